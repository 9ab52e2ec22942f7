"""What a run found: measured while it trains, written as ``results.json``, read again.

Shape suffixes: R replica, K layer, L level; G groups of positions, E units.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from callbacks import Convergence, Diagnostic, LayerwiseLinearProbe
from callbacks.find import callbacks_of
from callbacks.linear_probe import probe_dictionary
from datamodules import ReplicaDataModule
from experiments.files import write_json
from experiments.run.folder import RunFolder
from experiments.run.operations import operations_of
from experiments.version import version
from rules import LocalRule


class RunRecord(Callback):
    """Measures a run's time, over all its restarts, and writes ``results.json``.

    Args:
        folder: where to.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.before: float = 0.0
        self.started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far, with all earlier starts of the run up to their checkpoint."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def state_dict(self) -> dict[str, float]:
        """Kept in checkpoints."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting where the checkpoint stopped."""
        self.before = state_dict["seconds"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: tests are not training."""
        self.before, self.started = self.seconds, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what there is of a run that was stopped; it can go on later."""
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING:
            assert isinstance(pl_module, LocalRule)
            with suppress(OSError):  # a full disk, say: the exception tells it
                self.write(trainer, pl_module, "stopped")

    def write(self, trainer: Trainer, rule: LocalRule, status: str) -> dict[str, Any]:
        """Write ``results.json`` and return its content."""
        results = collect_results(trainer, rule, status, self.seconds)
        write_json(self.folder.results, results)
        return results


def collect_results(trainer: Trainer, rule: LocalRule, status: str, seconds: float) -> dict[str, Any]:
    """Everything a report needs of a run.

    ``samples_seen`` are strings shown to each replica, ``samples_per_second`` strings of all replicas together, ``seconds``
    training time with validation and without the final test, ``operations_per_string`` those of a replica in training
    (:func:`experiments.run.operations.operations_of`), accuracies shares in [0, 1]. ``diagnostics`` has, for each
    diagnostic callback, nested dictionaries with a list over replicas in each.
    """
    data, steps = rule.data, trainer.global_step
    seen = steps * data.batch_size
    probe = next((c for c in callbacks_of(trainer) if isinstance(c, LayerwiseLinearProbe)), None)
    convergence = next((c for c in callbacks_of(trainer) if isinstance(c, Convergence)), None)
    ended_R = None if convergence is None else convergence.ended_R
    accuracy, diverged_R = getattr(rule, "test_accuracy_R", None), rule.diverged_R
    replicas = []
    described = zip(data.replica_seeds, data.replica_sizes, data.replica_label_sizes, strict=True)
    for r, (seed, size, labelled) in enumerate(described):
        entry: dict[str, Any] = {
            "seed": seed,
            "train_size": size,
            "label_size": labelled,
            "test_accuracy": None if accuracy is None else float(accuracy[r]),
            "chance": data.chance,
            "diverged": bool(diverged_R[r]),
            "converged": None if ended_R is None else bool(ended_R[r]),
            "steps": steps if ended_R is None else int(ended_R[r]) or steps,
            "probe": {},
        }
        if probe is not None and probe.accuracy_KLR is not None:
            assert probe.baseline_KLR is not None
            entry["probe"] = probe_dictionary(probe.accuracy_KLR, r)
            entry["probe_baseline"] = probe_dictionary(probe.baseline_KLR, r)
        if probe is not None and probe.logistic_KLR is not None:
            entry["probe_logistic"] = probe_dictionary(probe.logistic_KLR, r)
        replicas.append(entry)
    return {
        "rule": type(rule).__name__,
        "task": data.task.given,
        **({"origin": data.origin} if data.origin else {}),
        "supervision": supervision(rule, seen),
        "network": network(rule),
        "replicas": replicas,
        "probe_strings": data.probe_range[1] - data.probe_range[0],
        "probe_strings_trained_on": data.probes_trained_on,
        "diagnostics": {type(c).__name__: c.results() for c in callbacks_of(trainer) if isinstance(c, Diagnostic)},
        "steps": steps,
        "max_steps": trainer.max_steps,
        "samples_seen": seen,
        "operations_per_string": operations_of(rule, data),
        "seconds": round(seconds, 3),
        "samples_per_second": round(seen * data.replicas / max(seconds, 1e-9), 1),
        "status": status,
        "versions": versions(),
        "git_commit": git_commit(),
    }


def network(rule: LocalRule) -> dict[str, Any]:
    """What a rule's network was."""
    return {
        "class": type(rule.network_config).__name__,
        "units": [layer.bias_RG1E.shape[-1] for layer in rule.network.layers],
        "handed_on": [layer.out_channels for layer in rule.network.layers],
        "bottleneck": rule.network_config.bottleneck,
        "activation": rule.network_config.activation,
        "normalise": rule.network_config.normalise,
    }


def supervision(rule: LocalRule, seen: int) -> dict[str, Any]:
    """What the hidden layers learn from, by what each of them and the readout are trained, and how many labels that took."""
    *layers, readout = rule.trained_by
    return {
        "rule": rule.supervision,
        "pairs": type(rule.data.pairs).__name__ if rule.uses_pairs else None,
        "layers": layers,
        "readout": readout,
        "readout_labels": readout_labels(rule.data, seen),
    }


def versions() -> dict[str, str]:
    """Of what results depend on."""
    return {
        "rhm-local-learning": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch-lightning": pl.__version__,
        "torchmetrics": torchmetrics.__version__,
    }


def readout_labels(data: ReplicaDataModule, seen: int) -> list[int]:
    """How many different strings, at the most, the readout has seen with their labels, in each replica."""
    sizes = zip(data.replica_sizes, data.replica_label_sizes, strict=True)
    return [min(size or data.stream_length, labelled or seen, seen) if data.labels else 0 for size, labelled in sizes]


def git_commit() -> str | None:
    """The commit of this source tree, with ``-dirty`` if files were edited since; None outside of one, as in a wheel."""
    root = Path(__file__).resolve().parents[2]
    top, commit, changes = (
        _git(root, *command)
        for command in (("rev-parse", "--show-toplevel"), ("rev-parse", "HEAD"), ("diff", "HEAD", "--name-only"))
    )
    if not commit or top is None or Path(top).resolve() != root:  # a wheel may lie in somebody else's repository
        return None
    return f"{commit}-dirty" if changes else commit


def _git(folder: Path, *command: str) -> str | None:
    """What git answers; None if it does not."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None
