"""What callbacks tell the loggers, whichever a run has. Pictures, histograms and charts go to TensorBoard; others do without.

All of it happens on rank zero and at the trainer's step; every other rank may call it and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def log_scalars(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Write numbers (read from the device before) by tag, such as ``train/loss/layer1``, to every logger."""
    if values and not trainer.sanity_checking:
        for logger in trainer.loggers:
            logger.log_metrics(dict(values), trainer.global_step)


def shows_figures(trainer: Trainer) -> bool:
    """Whether someone looks: ask before a figure is drawn, which takes longer than many steps."""
    return not trainer.sanity_checking and bool(writers(trainer))


def log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Write a picture; the *Images* tab has a slider over its steps."""
    if not trainer.sanity_checking:
        for writer in writers(trainer):
            writer.add_figure(tag, figure, trainer.global_step)


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """The event files of a run: one for each TensorBoard logger, none on other ranks."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
