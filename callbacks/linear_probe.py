"""Which hidden symbols can be read linearly from which layer.

Shape suffixes: R replica, B batch, D position, C channel; K layer, L level, T targets of a layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from callbacks.figures import map_picture
from callbacks.logistic import TOLERANCE, fit_logistic
from callbacks.probes import SMALLEST_RIDGE, Probe, ProbeCounts, RidgeSums, targets_of
from callbacks.tensorboard import log_picture, mean_and_std, shows_figures
from datamodules import PROBE, TEST, Batch
from networks import LayeredNetwork, LayerState
from rhm import InvalidInput, TaskSizes
from rules import LocalRule


class LayerwiseLinearProbe(Callback):
    """Accuracy of linear probes, layer by level: what level of the hierarchy has a layer found?

    A probe reads the symbols of a level from the output of a layer at one position: the symbol that stands there (the
    diagonal), the symbols below it, or the one symbol above that it is part of. Positions share a probe if they share weights.
    Probes are fitted on strings that were not trained on and measured on the test strings. At every validation they are ridge
    regressions, a lower bound that costs little; after the run logistic regressions are added. Features are standardised: the
    scale and the offset of units change no accuracy (:mod:`callbacks.probes`). They are to be compared with the baseline, the
    accuracy of whoever always names the symbol that is the commonest in the probes' strings.

    Tags: ``probe/level{l}/layer{k}``, means over replicas, ``probe/level{l}_std/layer{k}`` if there are several; pictures
    ``probe/heat_map`` and, after the run, ``probe/heat_map_logistic``.

    Args:
        ridge: penalty of the ridge probes, as a share of the features' variance.
        logistic: also fit logistic probes after the run.
        logistic_rows: rows that each logistic probe is fitted on, at the most.
        penalty: of the logistic probes' squared weights of standardised features.
        iterations: of L-BFGS, at the most; a warning says where they were too few.
        picture_every: validations from one heat map to the next.

    Attributes:
        accuracy_KLR: ridge accuracy after the last validation or test, ``[layers, levels, R]``; NaN where a layer's positions
            and a level's symbols do not divide, and for levels that are not known: own strings have tokens and classes alone.
        logistic_KLR: the same for logistic probes, after a test; None before.
        baseline_KLR: the same for the commonest symbol.

    Raises:
        InvalidInput: a setting out of range; a ridge penalty of 0 has no unique solution where units depend on one another.
    """

    def __init__(
        self,
        ridge: float = 1e-3,
        logistic: bool = True,
        logistic_rows: int = 4096,
        penalty: float = 1e-5,
        iterations: int = 500,
        picture_every: int = 1,
    ):
        for key, value, least in (
            ("ridge", ridge, SMALLEST_RIDGE),
            ("penalty", penalty, 0),
            ("logistic_rows", logistic_rows, 1),
            ("iterations", iterations, 1),
            ("picture_every", picture_every, 1),
        ):
            if not least <= value < math.inf:
                raise InvalidInput(f"LayerwiseLinearProbe.{key}", value, f"at least {least}")
        self.ridge, self.logistic = ridge, logistic
        self.logistic_rows, self.penalty, self.iterations = logistic_rows, penalty, iterations
        self.picture_every, self.validations = picture_every, 0
        self.accuracy_KLR: Tensor | None = None
        self.logistic_KLR: Tensor | None = None
        self.baseline_KLR: Tensor | None = None

    # ---------------------------------------------------------------- validation and test

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def _start(self, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        network, R, device = pl_module.network, pl_module.data.replicas, pl_module.device
        self.levels = pl_module.data.task.levels
        self.groups = [layer.groups for layer in network.layers]
        self.targets = [targets_of(pl_module.data.task, positions) for positions in network.positions]
        widths = [layer.out_channels for layer in network.layers]
        self.sums = [
            RidgeSums(R, groups, width, targets, self.ridge, device)
            for groups, width, targets in zip(self.groups, widths, self.targets, strict=True)
        ]
        self.counts = [ProbeCounts(R, targets).to(device) for targets in self.targets]
        self.logistic_counts = [ProbeCounts(R, targets).to(device) for targets in self.targets]
        self.baseline_counts = [ProbeCounts(R, targets).to(device) for targets in self.targets]
        self.kept: list[list[tuple[Tensor, list[Tensor]]]] = [[] for _ in widths]
        self.probes: list[Probe] = []
        self.logistic_probes: list[Probe] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._add(outputs["states"], batch, dataloader_idx, keep=False)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._add(outputs["states"], batch, dataloader_idx, keep=self.logistic)

    def _add(self, states: list[LayerState], batch: Batch, dataloader_idx: int, keep: bool) -> None:
        if dataloader_idx == TEST and not self.probes:
            self._fit()
        for k, state in enumerate(states):
            x, y = self._rows(k, state, batch)
            if dataloader_idx == PROBE:
                self.sums[k].update(x, y)
                if keep and sum(kept.shape[2] for kept, _ in self.kept[k]) < self.logistic_rows:
                    self.kept[k].append((x, y))
            else:
                self.counts[k].update(self.probes[k].scores(x), y)
                self.baseline_counts[k].update(self.probes[k].baseline(x), y)
                if self.logistic_probes:
                    self.logistic_counts[k].update(self.logistic_probes[k].scores(x), y)

    def _rows(self, k: int, state: LayerState, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        groups = self.groups[k]
        out = state.out_RBDC if state.out_RBDC.dtype == torch.float64 else state.out_RBDC.float()
        x = out.flatten(1, 2)[:, None] if groups == 1 else out.transpose(1, 2)
        symbols = dict(zip(self.levels, batch.derivation.symbols, strict=True))
        return x, [t.of(symbols[t.level], groups) for t in self.targets[k]]

    def _fit(self) -> None:
        self.probes = [sums.solve() for sums in self.sums]
        if not any(self.kept):
            return
        for k, (kept, targets) in enumerate(zip(self.kept, self.targets, strict=True), 1):
            x = torch.cat([part for part, _ in kept], 2)[:, :, : self.logistic_rows]
            y = [torch.cat(parts, 2)[:, :, : self.logistic_rows] for parts in zip(*(ys for _, ys in kept), strict=True)]
            probe, slope_R = fit_logistic(x, y, targets, self.penalty, self.iterations)
            self.logistic_probes.append(probe)
            if slope_R.max() > TOLERANCE:
                after = f"have not converged after LayerwiseLinearProbe.iterations={self.iterations}"
                of = f"{int((slope_R > TOLERANCE).sum())} of {len(slope_R)} replicas"
                rank_zero_warn(f"logistic probes of layer {k} {after} ({of}, slope {slope_R.max():.1e} > {TOLERANCE:.0e})")
        self.kept = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(pl_module)
        if self.logistic_probes:
            assert isinstance(pl_module, LocalRule)
            self.logistic_KLR = self._table(self.logistic_counts, pl_module.data.task)

    def _finish(self, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        self.accuracy_KLR = self._table(self.counts, pl_module.data.task)
        self.baseline_KLR = self._table(self.baseline_counts, pl_module.data.task)
        measured = {
            f"probe/level{level}/layer{k}": accuracy_R
            for k, accuracy_LR in enumerate(self.accuracy_KLR, 1)
            for level, accuracy_R in enumerate(accuracy_LR)
            if not accuracy_R.isnan().any()
        }
        pl_module.log_measured(mean_and_std(measured))
        self.sums, self.counts, self.probes = [], [], []

    def _table(self, counts: list[ProbeCounts], task: TaskSizes) -> Tensor:
        replicas = len(counts[0].correct_RT)
        table = torch.full((len(counts), task.L + 1, replicas), math.nan)
        for k, (count, targets) in enumerate(zip(counts, self.targets, strict=True)):
            accuracy_RT = count.compute().reshape(replicas, len(targets)).cpu()  # torchmetrics squeezes a single number
            for j, target in enumerate(targets):
                table[k, target.level] = accuracy_RT[:, j]
        return table

    # ---------------------------------------------------------------- what a person sees

    def charts(self, rule: LocalRule) -> dict[str, dict[str, str]]:
        """One chart a level, with all layers that the level can be asked at."""
        levels = {target.level for positions in rule.network.positions for target in targets_of(rule.data.task, positions)}
        return {"probe": {f"level{level}": rf"^probe/level{level}/layer\d+$" for level in sorted(levels)}}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the heat map, if it is the validation's turn."""
        if self.validations % self.picture_every == 0:
            self._draw(trainer, pl_module, "probe/heat_map", self.accuracy_KLR)
        self.validations += 1

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the logistic probes' heat map."""
        self._draw(trainer, pl_module, "probe/heat_map_logistic", self.logistic_KLR)

    @property
    def lowest(self) -> float:
        """The smallest baseline of all layers and levels, where the colours of pictures start."""
        assert self.baseline_KLR is not None
        return float(self.baseline_KLR.mean(-1).nan_to_num(nan=1.0).min())

    def _draw(self, trainer: Trainer, rule: LightningModule, tag: str, accuracy_KLR: Tensor | None) -> None:
        assert isinstance(rule, LocalRule)
        if accuracy_KLR is not None and shows_figures(trainer):
            log_picture(trainer, tag, map_picture(accuracy_KLR.mean(-1), self.lowest, 1.0, self.levels))


def probe_dictionary(accuracy_KLR: Tensor, replica: int) -> dict[str, dict[str, float]]:
    """One replica's accuracies as ``{"layer1": {"level0": ...}}``, without those that were not measured."""
    return {
        f"layer{k + 1}": {f"level{level}": value for level, value in enumerate(row) if not math.isnan(value)}
        for k, row in enumerate(accuracy_KLR[..., replica].tolist())
    }


def on_own_level(accuracy_KLR: Tensor, network: LayeredNetwork) -> Tensor:
    """Accuracy of each layer on the level with as many symbols as the layer has positions, ``[K, R]``; NaN without one."""
    task = network.task
    level_of = {task.width(level): level for level in range(task.L + 1)}
    rows = [
        accuracy_KLR[k, level_of[p]] if p in level_of else torch.full_like(accuracy_KLR[k, 0], math.nan)
        for k, p in enumerate(network.positions)
    ]
    return torch.stack(rows)
