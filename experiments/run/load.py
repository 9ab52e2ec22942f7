"""A finished run as Python objects, to look at what its layers do."""

from __future__ import annotations

import json

import torch

from experiments.files import read_settings
from experiments.run.checkpoints import newest_readable
from experiments.run.earlier import completed
from experiments.run.folder import RunFolder
from experiments.run.limits import precision_name
from experiments.settings import instantiate
from rhm import InvalidInput
from rules import LocalRule


@torch.no_grad()
def load_run(run_dir: str) -> LocalRule:
    """A run's rule with the weights of its last checkpoint, on the CPU; ``rule.data`` is its datamodule.

    Args:
        run_dir: folder of a run of ``rhm fit``; of a run whose replicas were spread, that of one of its ranks.

    Raises:
        InvalidInput: no run there, none whose settings and a checkpoint can be read, or unknown settings.
    """
    folder, allowed = RunFolder(run_dir), "a folder with a run's config.yaml and checkpoints"
    if not folder.config.is_file():
        raise InvalidInput("run_dir", run_dir, allowed)
    try:
        settings = read_settings("run_dir", folder.config)
        precision = precision_name(settings["trainer"]["precision"])
        whole = completed(folder.config, settings)
    except (KeyError, TypeError) as error:
        raise InvalidInput("run_dir", f"{run_dir} ({type(error).__name__}: {error})", allowed) from error
    rule = instantiate([f"--{part}={json.dumps(whole[part])}" for part in ("model", "data")])
    rule.prepare(rule.data)
    if precision.startswith("64"):
        rule.double()
    saved = newest_readable(folder.checkpoints, rule)
    if saved is None:
        raise InvalidInput("run_dir", f"{run_dir} without a checkpoint", allowed)
    rule.load_state_dict(saved.content["state_dict"])
    return rule.eval().requires_grad_(False)
