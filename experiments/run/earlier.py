"""Settings of runs that another version of this package has begun."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer

from experiments.explain import in_one_line
from experiments.files import flatten
from experiments.run.ranks import say
from experiments.settings import dumped, parse
from rhm import InvalidInput

RUN: dict[str, Any] = {
    "checkpoint_every": 500,
    "matmul_precision": "highest",
    "tables": True,
    "spread_replicas": False,
    "steps_per_call": None,
    "compile": None,
}
"""What a run has beside model, data and trainer, where nothing is said."""
TRAINER = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}

_told: set[Path] = set()
"""Files of which this process has said what they lack."""


def completed(config: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with what this version takes where they say nothing, which is told.

    Args:
        config: the file that they are from.
        settings: with ``model`` and ``data``.

    Raises:
        InvalidInput: they name something that this version does not know.
    """
    try:
        own = parse([f"--{part}={json.dumps(settings[part])}" for part in ("model", "data")])
    except (ArgumentError, InvalidInput) as error:
        got = f"{config} of another version ({in_one_line(error)})"
        raise InvalidInput("run_dir", got, "a run whose settings this version knows") from error
    known = RUN | yaml.safe_load(dumped(own))
    trainer = TRAINER | (settings.get("trainer") or {})
    whole = settings | {key: value for key, value in known.items() if key not in settings or key in ("model", "data")}
    whole |= {"trainer": trainer}
    old = flatten(settings)
    missing = [f"{key}={value}" for key, value in flatten(known).items() if key not in old and value is not None]
    if missing and config not in _told:
        _told.add(config)
        say(f"rhm: note: {config} does not say {', '.join(missing).replace('.init_args', '')}; taken as in this version")
    return whole
