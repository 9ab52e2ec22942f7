"""Which hidden symbols can be read linearly from which layer.

Shape suffixes: R replica, B batch, D position, C channel; K layer, L level, G groups of positions that share a probe, M rows, F
features and a constant, T columns of all targets of a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from callbacks.figures import map_picture
from callbacks.tensorboard import log_picture, mean_and_std, shows_figures
from datamodules import PROBE, TEST, Batch
from networks import LayeredNetwork, LayerState
from rhm import InvalidInput, Task
from rules import LocalRule


@dataclass(frozen=True)
class Target:
    """What is read of one level from one position of a layer.

    A position that covers several symbols of the level is asked for each of them (``slots``); a position below the level is
    asked for the one symbol that it is part of, together with ``sharers - 1`` others.
    """

    level: int
    slots: int
    sharers: int
    symbols: int

    def of(self, symbols_RBD: Tensor, groups: int) -> Tensor:
        """The level's symbols as targets ``[R, G, M, slots]`` for the layer's positions."""
        y = symbols_RBD.long().repeat_interleave(self.sharers, 2).unflatten(2, (-1, self.slots))
        return y.flatten(1, 2)[:, None] if groups == 1 else y.transpose(1, 2)


def targets_of(task: Task, positions: int) -> list[Target]:
    """The levels that can be asked at a layer with so many positions: those whose number of symbols divides, or is divided."""
    targets = []
    for level in range(task.L + 1):
        width = task.width(level)
        if width % positions == 0 or positions % width == 0:
            targets.append(Target(level, max(1, width // positions), max(1, positions // width), task.symbols(level)))
    return targets


class RidgeSums(Metric):
    """Sums from which the ridge probes of one layer are solved: one Gram matrix, whatever the number of levels.

    Args:
        replicas: R.
        groups: 1 if all positions share a probe, else the number of positions.
        features: width of the layer's output.
        targets: what is read.
        ridge: penalty, as a share of the features' mean square.
    """

    full_state_update = False
    gram_RGFF: Tensor
    cross_RGFT: Tensor

    def __init__(self, replicas: int, groups: int, features: int, targets: list[Target], ridge: float):
        super().__init__(sync_on_compute=False)  # every rank sees all strings that probes are fitted on
        self.targets, self.ridge, self.groups = targets, ridge, groups
        columns = sum(t.slots * t.symbols for t in targets)
        shape = (replicas, groups, features + 1)
        self.add_state("gram_RGFF", torch.zeros(*shape, features + 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("cross_RGFT", torch.zeros(*shape, columns, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x_RGMF: Tensor, y: list[Tensor]) -> None:
        """Add rows: features with a constant, and for each target its symbols ``[R, G, M, slots]``."""
        hot = [functional.one_hot(y_t, t.symbols).flatten(-2) for y_t, t in zip(y, self.targets, strict=True)]
        y_RGMT = torch.cat(hot, -1).to(x_RGMF.dtype)
        x_RGFM = x_RGMF.transpose(-1, -2)
        self.gram_RGFF += x_RGFM @ x_RGMF
        self.cross_RGFT += x_RGFM @ y_RGMT

    def compute(self) -> Tensor:
        """Weights ``[R, G, F, T]`` of all probes, by one factorisation."""
        square = self.gram_RGFF.diagonal(dim1=-2, dim2=-1)
        penalty = self.ridge * square.mean(-1, keepdim=True).clamp_min(1e-12).expand_as(square)
        penalty = torch.cat([penalty[..., :-1], penalty[..., -1:] * 1e-6], -1)  # the constant is all but free
        factor = torch.linalg.cholesky_ex(self.gram_RGFF + torch.diag_embed(penalty))[0]
        return torch.cholesky_solve(self.cross_RGFT, factor)


class ProbeCounts(Metric):
    """Right answers of a layer's probes.

    Args:
        replicas: R.
        targets: what is read.
    """

    full_state_update = False
    correct_RT: Tensor
    total_T: Tensor

    def __init__(self, replicas: int, targets: list[Target]):
        super().__init__()
        self.targets = targets
        self.add_state("correct_RT", torch.zeros(replicas, len(targets), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total_T", torch.zeros(len(targets), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores_RGMT: Tensor, y: list[Tensor]) -> None:
        """Add answers: the scores of all targets' symbols, side by side, and the true symbols ``[R, G, M, slots]``."""
        parts = scores_RGMT.split([t.slots * t.symbols for t in self.targets], -1)
        for j, (part, y_t, target) in enumerate(zip(parts, y, self.targets, strict=True)):
            right = part.unflatten(-1, (target.slots, target.symbols)).argmax(-1) == y_t
            self.correct_RT[:, j] += right.flatten(1).sum(1)
            self.total_T[j] += y_t[0].numel()

    def compute(self) -> Tensor:
        """Accuracy ``[R, targets]``."""
        return self.correct_RT / self.total_T


def fit_logistic(x_RGMF: Tensor, y: list[Tensor], targets: list[Target], penalty: float, iterations: int) -> Tensor:
    """Multinomial logistic regressions of one layer's targets by L-BFGS, for all groups, levels and slots at once.

    Replicas one after another: they share no line search, so that each has the probes that it would have alone.

    Args:
        x_RGMF: features with a constant.
        y: for each target its symbols ``[R, G, M, slots]``.
        targets: what is read.
        penalty: of the squared weights of standardised features.
        iterations: of L-BFGS.

    Returns:
        weights ``[R, G, F, T]``; zero for a replica whose features are not finite.
    """
    replicas = zip(x_RGMF, zip(*y, strict=True), strict=True)
    return torch.stack([_fit_logistic(x_GMF, list(symbols), targets, penalty, iterations) for x_GMF, symbols in replicas])


def _fit_logistic(x_GMF: Tensor, y: list[Tensor], targets: list[Target], penalty: float, iterations: int) -> Tensor:
    columns = [t.slots * t.symbols for t in targets]
    if not x_GMF.isfinite().all():
        return x_GMF.new_zeros(len(x_GMF), x_GMF.shape[-1], sum(columns))
    with torch.inference_mode(False), torch.enable_grad():  # Lightning tests in inference mode, whose tensors have no gradient
        scale = x_GMF.std(-2, keepdim=True, correction=0).clamp_min(1e-6)
        scale[..., -1] = 1.0
        x, y = x_GMF / scale, [y_t.clone() for y_t in y]
        weights = torch.zeros(len(x), x.shape[-1], sum(columns), dtype=x.dtype, device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = penalty * weights.square().sum()
            for scores, y_t, target in zip((x @ weights).split(columns, -1), y, targets, strict=True):
                log_p = scores.unflatten(-1, (target.slots, target.symbols)).log_softmax(-1)
                loss = loss - log_p.gather(-1, y_t[..., None]).mean(1).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return weights.detach() / scale.transpose(-1, -2)


class LayerwiseLinearProbe(Callback):
    """Accuracy of linear probes, layer by level: what level of the hierarchy has a layer found?

    A probe reads the symbols of a level from the output of a layer at one position: the symbol that stands there (the
    diagonal), the symbols below it, or the one symbol above that it is part of. Positions share a probe if they share weights.
    Probes are fitted on strings that were not trained on and measured on the test strings. At every validation they are ridge
    regressions, a lower bound that costs little; after the run logistic regressions are added.

    Tags: ``probe/level{l}/layer{k}``, means over replicas, ``probe/level{l}_std/layer{k}`` if there are several; pictures
    ``probe/heat_map`` and, after the run, ``probe/heat_map_logistic``.

    Args:
        ridge: penalty of the ridge probes, as a share of the features' mean square.
        logistic: also fit logistic probes after the run.
        logistic_rows: rows that each logistic probe is fitted on, at the most.
        iterations: of L-BFGS.
        picture_every: validations from one heat map to the next.

    Attributes:
        accuracy_KLR: ridge accuracy after the last validation or test, ``[layers, levels, R]``; NaN where a layer's positions
            and a level's symbols do not divide.
        logistic_KLR: the same for logistic probes, after a test; None before.
    """

    def __init__(
        self,
        ridge: float = 1e-3,
        logistic: bool = True,
        logistic_rows: int = 4096,
        iterations: int = 60,
        picture_every: int = 1,
    ):
        for key, value, least in (
            ("ridge", ridge, 0),
            ("logistic_rows", logistic_rows, 1),
            ("iterations", iterations, 1),
            ("picture_every", picture_every, 1),
        ):
            if value < least:
                raise InvalidInput(f"LayerwiseLinearProbe.{key}", value, f"at least {least}")
        self.ridge, self.logistic = ridge, logistic
        self.logistic_rows, self.iterations = logistic_rows, iterations
        self.picture_every, self.validations = picture_every, 0
        self.accuracy_KLR: Tensor | None = None
        self.logistic_KLR: Tensor | None = None

    # ---------------------------------------------------------------- validation and test

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def _start(self, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        network, R, device = pl_module.network, pl_module.data.replicas, pl_module.device
        self.groups = [layer.groups for layer in network.layers]
        self.targets = [targets_of(pl_module.data.task, positions) for positions in network.positions]
        widths = [layer.out_channels for layer in network.layers]
        self.sums = [
            RidgeSums(R, groups, width, targets, self.ridge).to(device)
            for groups, width, targets in zip(self.groups, widths, self.targets, strict=True)
        ]
        self.counts = [ProbeCounts(R, targets).to(device) for targets in self.targets]
        self.logistic_counts = [ProbeCounts(R, targets).to(device) for targets in self.targets]
        self.kept: list[list[tuple[Tensor, list[Tensor]]]] = [[] for _ in widths]
        self.weights: list[Tensor] = []
        self.logistic_weights: list[Tensor] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._add(outputs["states"], batch, dataloader_idx, keep=False)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._add(outputs["states"], batch, dataloader_idx, keep=self.logistic)

    def _add(self, states: list[LayerState], batch: Batch, dataloader_idx: int, keep: bool) -> None:
        if dataloader_idx == TEST and not self.weights:
            self._fit()
        for k, state in enumerate(states):
            x, y = self._rows(k, state, batch)
            if dataloader_idx == PROBE:
                self.sums[k].update(x, y)
                if keep and sum(kept.shape[2] for kept, _ in self.kept[k]) < self.logistic_rows:
                    self.kept[k].append((x, y))
            else:
                self.counts[k].update(x @ self.weights[k].to(x.dtype), y)
                if self.logistic_weights:
                    self.logistic_counts[k].update(x @ self.logistic_weights[k].to(x.dtype), y)

    def _rows(self, k: int, state: LayerState, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        groups = self.groups[k]
        out = state.out_RBDC if state.out_RBDC.dtype == torch.float64 else state.out_RBDC.float()
        x = out.flatten(1, 2)[:, None] if groups == 1 else out.transpose(1, 2)
        y = [t.of(batch.derivation.symbols[t.level], groups) for t in self.targets[k]]
        return torch.cat([x, torch.ones_like(x[..., :1])], -1), y

    def _fit(self) -> None:
        self.weights = [sums.compute() for sums in self.sums]
        if not any(self.kept):
            return
        for kept, targets in zip(self.kept, self.targets, strict=True):
            x = torch.cat([part for part, _ in kept], 2)[:, :, : self.logistic_rows]
            y = [torch.cat(parts, 2)[:, :, : self.logistic_rows] for parts in zip(*(ys for _, ys in kept), strict=True)]
            self.logistic_weights.append(fit_logistic(x, y, targets, 1e-5, self.iterations))
        self.kept = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(pl_module)
        if self.logistic_weights:
            assert isinstance(pl_module, LocalRule)
            self.logistic_KLR = self._table(self.logistic_counts, pl_module.data.task)

    def _finish(self, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        self.accuracy_KLR = self._table(self.counts, pl_module.data.task)
        measured = {
            f"probe/level{level}/layer{k}": accuracy_R
            for k, accuracy_LR in enumerate(self.accuracy_KLR, 1)
            for level, accuracy_R in enumerate(accuracy_LR)
            if not accuracy_R.isnan().any()
        }
        pl_module.log_measured(mean_and_std(measured))
        self.sums, self.counts, self.weights = [], [], []

    def _table(self, counts: list[ProbeCounts], task: Task) -> Tensor:
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

    @staticmethod
    def _draw(trainer: Trainer, rule: LightningModule, tag: str, accuracy_KLR: Tensor | None) -> None:
        assert isinstance(rule, LocalRule)
        if accuracy_KLR is not None and shows_figures(trainer):
            log_picture(trainer, tag, map_picture(accuracy_KLR.mean(-1), 1 / rule.data.task.v, 1.0))


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
