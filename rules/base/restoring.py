"""A rule that a checkpoint or a pickle gives back: what it was made with, as plain values."""

from __future__ import annotations

import copy
import copyreg
import inspect
from pathlib import Path
from typing import IO, Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import _restricted_classmethod

from datamodules import Pairs, ReplicaDataModule, RHMDataModule, StringsDataModule
from networks import NetworkConfig
from networks.activations import ACTIVATIONS, Activation
from rhm import InvalidInput
from rules.base.block import Block

KEY = "made_with"
"""Of checkpoints: the rule's name, its arguments and those of its data."""
PARTS = (NetworkConfig, Pairs, Block)
"""Kinds of arguments that are written as ``{"class_path": name, "init_args": values}``."""
OPTIMIZER = "optimizer"
COMPILED = "updates_of"
"""What is compiled of a rule, in place of the method: it has no pickle."""


class Restorable(pl.LightningModule):
    """Says in its checkpoints what it was made with, so that they give it back.

    Attributes:
        given: the arguments of its constructor, by name.
        data: what it is trained on, once it has been prepared.
    """

    given: dict[str, Any]
    data: ReplicaDataModule

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        rule = super().__new__(cls)
        rule.__dict__["given"] = signature(cls).bind_partial(*args, **kwargs).arguments if args or kwargs else {}
        return rule

    def prepare(self, data: ReplicaDataModule) -> Self:
        """Build the network for a datamodule's task and replicas."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write what is needed to make the rule again."""
        said, unsaid = plain_items({name: value for name, value in self.given.items() if name != OPTIMIZER})
        data = plain_data(self.data)
        checkpoint[KEY] = {"rule": type(self).__name__, "arguments": said, "unsaid": unsaid, "data": data}

    @_restricted_classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """A trained rule, to look at: ``rule(x_RBD)`` gives its layers' states, ``rule.data`` is its datamodule.

        It has no optimizer, unless one is given. A run goes on with a new rule and ``trainer.fit(..., ckpt_path=path)``.

        Args:
            checkpoint_path: of a run of this rule.
            map_location: the device, ``cpu`` by default.
            hparams_file: not used.
            strict: whether the checkpoint must have all weights and no others, as by default.
            weights_only: see :func:`torch.load`.
            kwargs: ``datamodule``, and arguments of the rule; the checkpoint says what is not given.

        Raises:
            InvalidInput: a file that cannot be read, or that is of another rule; arguments that the checkpoint does not say.
        """
        device = torch.device(map_location or "cpu")
        checkpoint = read(checkpoint_path, device, weights_only)
        made_with, name = checkpoint.get(KEY, {"unsaid": ["network"]}), cls.__name__
        if made_with.get("rule", name) != name:
            raise InvalidInput("checkpoint", f"{checkpoint_path} of {made_with['rule']}", f"one of {name}")
        data, said = kwargs.pop("datamodule", None), made_with.get("data")
        unsaid = [key for key in made_with["unsaid"] if key not in kwargs] + ["datamodule"] * (data is None and said is None)
        if unsaid:
            allowed = f"{name}.load_from_checkpoint(path, {', '.join(f'{key}=...' for key in unsaid)})"
            raise InvalidInput("checkpoint", f"{checkpoint_path}, which does not say all that the rule was made with", allowed)
        arguments = {key: made(value) for key, value in made_with.get("arguments", {}).items()}
        rule = cls(**{OPTIMIZER: no_optimizer, **arguments, **kwargs})
        rule.prepare(made_data(said) if data is None else data)
        weights = checkpoint["state_dict"]
        rule.to(next(w.dtype for w in weights.values() if w.is_floating_point()))
        rule.load_state_dict(weights, strict=strict is not False)
        rule.data.move(device)
        return rule.to(device).eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that is trained on the same data, by no trainer yet."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        state = self.__getstate__()
        if "data" in state:
            memo[id(state["data"])] = self.data
        other.__setstate__(copy.deepcopy(state, memo))
        return other

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in super().__getstate__().items() if key != COMPILED}
        if "data" in state:
            state["data"] = copy.copy(self.data)
            state["data"].trainer = state["data"]._block = None
        return {key: value for key, value in state.items() if key != OPTIMIZER or value is not default_optimizer(type(self))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({OPTIMIZER: default_optimizer(type(self)), **state})  # a function without a name has no pickle


def signature(rule: type[Restorable]) -> inspect.Signature:
    """Of the constructor."""
    return inspect.signature(rule)


def default_optimizer(rule: type[Restorable]) -> Any:
    """What the constructor takes where nothing is said."""
    parameter = signature(rule).parameters.get(OPTIMIZER)
    return None if parameter is None else parameter.default


def plain(value: Any) -> Any:
    """An argument as numbers, words, lists and dictionaries.

    Raises:
        TypeError: one that is none of them, nor of :data:`PARTS`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    kind = next((kind for kind in type(value).__mro__ if kind in kinds().values()), None)
    if kind is None or not isinstance(value, PARTS):
        raise TypeError(f"{type(value).__name__} is not plain")
    said = {name: plain(getattr(value, name)) for name in inspect.signature(kind).parameters}
    return {"class_path": kind.__qualname__, "init_args": said}


def made(value: Any) -> Any:
    """The inverse of :func:`plain`.

    Raises:
        InvalidInput: a class that nobody has imported.
    """
    if isinstance(value, list):
        return [made(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = {key: made(item) for key, item in value.items()}
    if items.keys() != {"class_path", "init_args"}:
        return items
    name, known = items["class_path"], kinds()
    if name not in known:
        raise InvalidInput("checkpoint", f"made with {name}", "classes that are imported before the checkpoint is loaded")
    return known[name](**items["init_args"])


def kinds() -> dict[str, type]:
    """All classes of :data:`PARTS` by name, but those that the argument parser makes for its defaults."""
    found, ahead = {}, list(PARTS)
    while ahead:
        kind = ahead.pop()
        ahead += kind.__subclasses__()
        if not hasattr(kind, "_lazy_kwargs") and not kind.__name__.startswith("LazyInstance_"):
            found[kind.__qualname__] = kind
    return found


def plain_network(network: NetworkConfig) -> NetworkConfig:
    """A network's settings without the argument parser's lazy default, which all rules would share."""
    kind = next(kind for kind in type(network).__mro__ if kind in kinds().values())
    if kind is type(network):
        return network
    return made(plain(network))


def plain_items(items: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments by name as :func:`plain` has them, and the names of those that it has not."""
    said, unsaid = {}, []
    for name, value in items.items():
        try:
            said[name] = plain(value)
        except (TypeError, AttributeError):  # a class that does not keep an argument under its name
            unsaid.append(name)
    return said, unsaid


def plain_data(data: ReplicaDataModule) -> dict[str, Any] | None:
    """What a datamodule was made with; None for strings that are in no file, and for pairs that do not say."""
    if type(data) is RHMDataModule:
        own: dict[str, Any] = data.task.given | data.origin
    elif type(data) is StringsDataModule and data.path is not None:
        own = {"path": data.path, "s": data.task.s, "fingerprint": data.task.fingerprint}
    else:
        return None
    said, unsaid = plain_items(
        {
            **own,
            "pairs": data.pairs,
            "batch_size": data.batch_size,
            "test_size": data.test_range[1] - data.test_range[0],
            "probe_size": data.probe_range[1] - data.probe_range[0] or 1,
            "eval_batch_size": data.eval_batch_size,
            "labels": data.labels,
            "replicas": list(zip(data.replica_seeds, data.replica_sizes, data.replica_label_sizes, strict=True)),
        }
    )
    return None if unsaid else said


def made_data(said: dict[str, Any]) -> ReplicaDataModule:
    """The inverse of :func:`plain_data`.

    Raises:
        InvalidInput: a file of strings or of a grammar that is not there any more, or holds others.
    """
    arguments = {name: made(value) for name, value in said.items()}
    replicas = [(seed, size, labelled) for seed, size, labelled in arguments.pop("replicas")]
    seeds, sizes, label_sizes = ([*dict.fromkeys(column)] for column in zip(*replicas, strict=True))
    arguments["train_size"], arguments["label_size"] = (None if None in x else x for x in (sizes, label_sizes))
    of = arguments.pop("fingerprint", None)
    data: ReplicaDataModule = (StringsDataModule if "path" in arguments else RHMDataModule)(**arguments, seeds=seeds)
    allowed = "the file of the checkpoint's run, as it was, or load_from_checkpoint(path, datamodule=...)"
    if isinstance(data, StringsDataModule) and data.task.fingerprint != of:
        raise InvalidInput("data.path", f"{data.path} with other strings or labels", allowed)
    if isinstance(data, RHMDataModule) and data.fingerprint != of:
        raise InvalidInput("data.grammar", f"{data.grammar_file} with another grammar", allowed)
    if list(zip(data.replica_seeds, data.replica_sizes, data.replica_label_sizes, strict=True)) != replicas:
        data._have(replicas)  # of a rank with a share of them
        if data.pairs is not None:
            data.pairs.prepare(data)
    return data


def activation_named(name: str) -> Activation:
    """An activation of :data:`networks.activations.ACTIVATIONS`."""
    return ACTIVATIONS[name]


def _reduced(activation: Activation) -> tuple[Any, ...]:
    """By its name, as its functions have none; those of vector units are methods."""
    name = next((name for name, known in ACTIVATIONS.items() if known is activation), None)
    return (Activation, tuple(activation)) if name is None else (activation_named, (name,))


copyreg.pickle(Activation, _reduced)


def no_optimizer(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of a rule from a checkpoint."""
    allowed = "load_from_checkpoint(path, optimizer=...), or a new rule and trainer.fit(..., ckpt_path=path) to go on"
    raise InvalidInput("rule.optimizer", "none: the rule was loaded to be looked at", allowed)


def read(path: str | Path | IO[bytes], device: torch.device, weights_only: bool | None) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        InvalidInput: a file that is none, or is damaged.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=weights_only)
        assert isinstance(content, dict) and "state_dict" in content, "no state_dict"
        return content
    except Exception as error:  # whatever a broken file makes of it
        got = f"{path} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        raise InvalidInput("checkpoint", got, "a file that a trainer has written") from error
