"""What callbacks tell the loggers, whichever a run has. Pictures and charts go to TensorBoard; other loggers do without.

All of it happens on rank zero and at the trainer's step; every other rank may call it and writes nothing.

Shape suffixes: R replica, W numbers that are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from matplotlib.figure import Figure
from numpy import ndarray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from rules import LocalRule

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@runtime_checkable
class HasCharts(Protocol):
    """A callback with charts in the tab *Custom scalars*; :class:`callbacks.event_files.EventFiles` asks for them."""

    def charts(self, rule: LocalRule) -> dict[str, dict[str, str]]:
        """For each heading and chart the pattern of the tags that it shows: ``{"probe": {"level1": r"^probe/level1/"}}``."""
        ...


def log_scalars(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Write numbers (read from the device before) by tag, such as ``train/loss/layer1``, to every logger."""
    if values and not trainer.sanity_checking:
        for logger in trainer.loggers:
            logger.log_metrics(dict(values), trainer.global_step)


def shows_figures(trainer: Trainer) -> bool:
    """Whether someone looks: ask before a figure is drawn, which takes longer than many steps."""
    return not trainer.sanity_checking and bool(writers(trainer))


def log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Write a figure; the tab *Images* has a slider over its steps. It takes .15 s, :func:`log_picture` some ms."""
    if not trainer.sanity_checking:
        for writer in writers(trainer):
            writer.add_figure(tag, figure, trainer.global_step)


def log_picture(trainer: Trainer, tag: str, pixels: ndarray) -> None:
    """Write a picture of bytes ``[height, width, 3]``, such as one of :func:`callbacks.figures.map_picture`."""
    if not trainer.sanity_checking:
        for writer in writers(trainer):
            writer.add_image(tag, pixels, trainer.global_step, dataformats="HWC")


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """The event files of a run: one for each TensorBoard logger, none on other ranks."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def mean_and_std(values_R: dict[str, Tensor]) -> dict[str, float]:
    """Mean over replicas and, as ``..._std``, their standard deviation if there are several; one transfer from the device."""
    x_WR = torch.stack(list(values_R.values()))
    if x_WR.shape[1] == 1:
        return dict(zip(values_R, x_WR[:, 0].tolist(), strict=True))
    mean, std = torch.stack([x_WR.mean(1), x_WR.std(1)]).tolist()
    names = list(values_R)
    return dict(zip([*names, *(with_std(name) for name in names)], [*mean, *std], strict=True))


def with_std(tag: str) -> str:
    """``train/loss_std/layer1`` for ``train/loss/layer1``: a group of its own, so that charts of means stay as they are."""
    group, _, name = tag.rpartition("/")
    return f"{group}_std/{name}"
