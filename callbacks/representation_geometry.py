"""How many dimensions do layers use, and which layers are alike?

Shape suffixes: R replica, B string, D position, C channel, F = D * C; G groups of positions that share weights, M rows, N
classes.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from callbacks.checkpoint_files import newest
from callbacks.diagnostic import Diagnostic, full
from callbacks.figures import spectra
from callbacks.probes import varies
from callbacks.tensorboard import log_figure
from datamodules import replicas_of
from networks import LayeredNetwork
from rhm import InvalidInput
from rules import LocalRule


class RepresentationGeometry(Diagnostic):
    """Dimension and spectrum of what each layer hands on, and linear CKA of layers with one another and with another run's.

    Measured on fresh strings that nothing is trained on, the first of those that probes are fitted on (as long as the task has
    enough strings); every rank sees all of them, so that ranks agree without a word.

    Tags: ``geometry/participation_ratio/layer{k}``, ``geometry/rank_me/layer{k}``, ``geometry/cka/layer{j}/layer{k}``,
    ``geometry/reference_cka/layer{j}/layer{k}`` (own layer ``j``, the other run's layer ``k``); picture: ``geometry/spectra``.
    ``results.json`` also has
    ``spectrum``, the leading eigenvalues of the covariance as shares of its trace. Rows of a covariance are strings and the
    positions that share weights; where positions have weights of their own, the mean over positions is given. CKA compares
    whole strings.

    Args:
        strings: number of strings.
        eigenvalues: of the spectrum, that are kept.
        reference: folder of a run of the same task and with our seeds, whose newest checkpoint is compared with; None has none.

    Raises:
        InvalidInput: a number out of range; a reference that is missing, unreadable, or of another task or other seeds.
    """

    prefix = "geometry"
    charted = ("participation_ratio", "rank_me")

    def __init__(self, strings: int = 512, eigenvalues: int = 32, reference: str | None = None):
        super().__init__()
        for key, value, least in ("strings", strings, 3), ("eigenvalues", eigenvalues, 1):
            if value < least:
                raise InvalidInput(f"RepresentationGeometry.{key}", value, f"an integer of at least {least}")
        self.strings, self.eigenvalues, self.reference = strings, eigenvalues, reference
        self.other: LayeredNetwork | None = None

    def check(self, rule: LocalRule) -> None:
        if self.reference is not None and self.other is None:
            self.other = load_network(self.reference, rule)

    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        x_RBD = self.held_out(rule)
        values: dict[str, Tensor] = {}
        codes = []
        for k, (layer, state) in enumerate(zip(rule.network.layers, rule(x_RBD), strict=True), 1):
            codes.append(full(state.out_RBDC).flatten(2))
            rows_RGMC = layer.by_group(state.out_RBDC).double()
            variances_RGC = eigenvalues(centred(rows_RGMC, 2))
            values[f"participation_ratio/layer{k}"] = participation_ratio(variances_RGC).mean(1)
            values[f"rank_me/layer{k}"] = rank_me(eigenvalues(rows_RGMC)).mean(1)
            share = variances_RGC / variances_RGC.sum(-1, keepdim=True)
            values[f"spectrum/layer{k}"] = share.mean(1)[:, : self.eigenvalues]
        grams = [centred_gram(code) for code in codes]
        for j, first in enumerate(grams, 1):
            for k, second in enumerate(grams[j:], j + 1):
                values[f"cka/layer{j}/layer{k}"] = alignment(first, second)
        if self.other is not None:
            other = self.other.to(x_RBD.device, rule.readout.weight_RFN.dtype)
            theirs = [centred_gram(full(state.out_RBDC).flatten(2)) for state in other(x_RBD)]
            for j, first in enumerate(grams, 1):
                for k, second in enumerate(theirs, 1):
                    values[f"reference_cka/layer{j}/layer{k}"] = alignment(first, second)
        return values

    def draw(self, trainer: Trainer, rule: LocalRule) -> None:
        """The spectra of all layers, means over replicas."""
        shares = {f"layer {k}": self.values[f"spectrum/layer{k}"].nanmean(0) for k in range(1, len(rule.network) + 1)}
        log_figure(trainer, f"{self.prefix}/spectra", spectra(shares))

    def held_out(self, rule: LocalRule) -> Tensor:
        """Tokens of the strings that are looked at, ``[R, B, D]``."""
        start, end = rule.data.probe_range
        index = torch.arange(start, min(start + self.strings, end), device=rule.data.seeds_R.device)
        return rule.data.shown(rule.data.strings(index).x_RBD, index)


# -------------------------------------------------------------------- measures


def eigenvalues(rows_RGMC: Tensor) -> Tensor:
    """Of ``X^T X / M``, the largest first, ``[R, G, C]``; NaN where rows are not finite, for which LAPACK has no answer."""
    moment = rows_RGMC.transpose(-1, -2) @ rows_RGMC / rows_RGMC.shape[2]
    finite_RG1 = moment.isfinite().flatten(2).all(2, keepdim=True)
    found = torch.linalg.eigvalsh(moment.where(finite_RG1[..., None], 0.0)).clamp_min(0).flip(-1)
    return found.where(finite_RG1, torch.nan)


def centred(x: Tensor, dim: int) -> Tensor:
    """Without its mean along an axis; exactly 0 where a unit does not vary but by the rounding of single precision."""
    mean = x.mean(dim, keepdim=True)
    x = x - mean
    deviation = x.square().mean(dim, keepdim=True).sqrt()
    return x.where(varies(deviation, mean, torch.float32) | ~deviation.isfinite(), 0.0)


def participation_ratio(eigenvalues_RGC: Tensor) -> Tensor:
    """``(sum l)^2 / sum l^2`` of a covariance's eigenvalues: between 1 and its rank; NaN if all are 0."""
    return eigenvalues_RGC.sum(-1).square() / eigenvalues_RGC.square().sum(-1)


def rank_me(eigenvalues_RGC: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 1): the exponential of the entropy of the singular values of ``X``, without centring.

    Args:
        eigenvalues_RGC: of ``X^T X``, up to a factor.
    """
    singular = eigenvalues_RGC.sqrt()
    share = singular / singular.sum(-1, keepdim=True)
    return (-torch.xlogy(share, share).sum(-1)).exp()


def centred_gram(x_RBF: Tensor) -> Tensor:
    """``K = X X^T`` of strings whose mean is taken out, ``[R, B, B]``."""
    x_RBF = centred(x_RBF, 1)
    return x_RBF @ x_RBF.transpose(1, 2)


def alignment(first_RBB: Tensor, second_RBB: Tensor) -> Tensor:
    """Linear CKA (Kornblith et al. 2019, eq. 3) of two centred Gram matrices, ``[R]`` in [0, 1]; NaN if one is 0."""
    product = (first_RBB * second_RBB).sum((1, 2))
    return product / (first_RBB.flatten(1).norm(dim=1) * second_RBB.flatten(1).norm(dim=1))


# -------------------------------------------------------------------- another run


def load_network(folder: str, rule: LocalRule) -> LayeredNetwork:
    """The network of a run's newest checkpoint, with those of its replicas that have our seeds, in our order.

    Raises:
        InvalidInput: no run there, of another task or other seeds, or with a checkpoint that cannot be read.
    """
    key, path = "RepresentationGeometry.reference", Path(folder)
    damaged: list[Exception] = []
    saved = newest(path / "checkpoints", lambda _, error: damaged.append(error))
    if not (path / "config.yaml").exists() or (saved is None and not damaged):
        raise InvalidInput(key, folder, "a run's folder, with config.yaml and checkpoints")
    try:
        settings = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        data, network = settings["data"]["init_args"], settings["model"]["init_args"]["network"]
        if saved is None:
            raise damaged[0]
        if damaged:
            rank_zero_warn(f"{key}: a newer checkpoint than {saved.path} cannot be read ({damaged[0]})")
        state = saved.content["state_dict"]
    except Exception as error:  # whatever a damaged file makes of itself
        raise InvalidInput(key, f"{folder} ({type(error).__name__}: {error})", "a run that can be read") from error
    of, ours = saved.content.get("run", {}), rule.data.task.given | rule.data.origin
    task = of.get("task", {}) | data | of.get("origin", {})
    for name in ours | of.get("origin", {}):
        if task.get(name) != ours.get(name):
            allowed = f"a run of the same task, {name}={ours.get(name)}"
            raise InvalidInput(key, f"{folder} with {name}={task.get(name)}", allowed)
    if data.get("label_size") is not None or settings.get("spread_replicas"):
        got = f"{folder} with label_size {data.get('label_size')}, spread_replicas {settings.get('spread_replicas')}"
        raise InvalidInput(key, got, "a run in one process whose strings all have labels")
    theirs = [(seed, size) for seed, size, _ in replicas_of(data["seeds"], data["train_size"], None)]
    sizes = {size for _, size in theirs}
    chosen = []
    for seed, size in zip(rule.data.replica_seeds, rule.data.replica_sizes, strict=True):
        alike = [r for r, other in enumerate(theirs) if other == (seed, size)] or [
            r for r, other in enumerate(theirs) if other[0] == seed and len(sizes) == 1
        ]
        if not alike:
            allowed = f"a run with seed {seed}, and train_size {size} if it has several"
            raise InvalidInput(key, f"{folder} with seeds {data['seeds']} and train_size {data['train_size']}", allowed)
        chosen.append(alike[0])
    module, _, name = network["class_path"].rpartition(".")
    config = getattr(importlib.import_module(module), name)(**network["init_args"])
    other = config.build(rule.data.task, torch.tensor(rule.data.replica_seeds))
    own = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    other.load_state_dict({name: own[name][chosen] for name in other.state_dict()})
    return other
