"""One line for what a person got wrong in the settings: the key, what it got and what is allowed."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Mapping

import torch
from pytorch_lightning import Callback
from pytorch_lightning import callbacks as lightning_callbacks
from torch.optim import Optimizer

from experiments.classes import BRANCHES, Branches
from experiments.commands import RUN
from experiments.files import flatten
from experiments.settings import HEADS, RULE_FILES, ParsingError, discover
from rhm import InvalidInput
from rhm.errors import closest, nearest

KEY = re.compile(r'Parser key "([^"]+)"')
NOT_ACCEPTED = re.compile(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)")
NOT_IN_GROUP = re.compile(r"(?:Group '([^']+)'|Subcommand '\w+') does not accept option '([^']+)'")
UNRECOGNIZED = re.compile(r"unrecognized arguments: --?([^=\s]+)")
REQUIRED = re.compile(r"arguments are required: (\S+)")
NO_VALUE = re.compile(r"argument (?:-\w/)?--(\S+): expected one argument")
NO_CLASS = re.compile(r"(?:Expected a dot import path string: |has no attribute |Expected a path but )'?([\w.]+)")
OF_HELP = re.compile(r"--([\w.]+\.help): Expected a dot import path")
ABSTRACT = re.compile(r"Expected an instantiatable class, but ([\w.]*) ?is abstract")
NOT_A_KIND = re.compile(r"Not a valid subclass of (\w+)")
EXPECTED = re.compile(r"Expected an? (?:<class ')?(?:\w+\.)*(\w+)(?:'>)?")
VALUE = re.compile(r"(?:Got value|Given value): (.*)")
NESTED = re.compile(r"NestedArg\(key='([^']+)', val=(.*)\)")
NO_FILE = re.compile(r"File does not exist: '([^']+)'")
NO_PATH = re.compile(r"Unable to load config (.*)|Expected a path but (\S+)")
BUILDING = re.compile(r"Problem with given class_path '([\w.]+)'")
NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)
NUMBERS = {"int", "float"}
_QUOTES = "\"'), "

RUN_KEYS = (
    *HEADS,
    "run_dir",
    "checkpoint_every",
    "matmul_precision",
    "tables",
    "spread_replicas",
    "steps_per_call",
    "compile",
)
"""The settings of a run, whatever its parser lists."""


def refusal(error: BaseException | None) -> InvalidInput | None:
    """What we have refused, in an error or in what it came from; None if it is of another kind.

    The parser passes on what built classes refuse as an error of its own.
    """
    name = "a class"
    while error is not None and not isinstance(error, InvalidInput):
        if isinstance(error, ModuleNotFoundError):
            return InvalidInput(name, f"{error}", "a class whose packages are installed")
        if problem := BUILDING.search(str(error)):
            name = problem[1]
        error = error.__cause__
    return error


def in_one_line(error: Exception, command: str = "fit") -> str:
    """What a person got wrong, from the error of a parser or of classes that were built.

    Args:
        error: as it was raised.
        command: whose settings were wrong.
    """
    if (own := refusal(error)) is not None:
        return str(own)
    options, branches = (error.options, error.branches) if isinstance(error, ParsingError) else ([], {})
    if isinstance(error, ParsingError) and command in RUN:
        options = [*options, *RUN_KEYS]
    return explain(str(error), discover(), options, command, branches)


def explain(
    message: str, classes: Mapping[str, type], options: Iterable[str], command: str = "fit", branches: Branches | None = None
) -> str:
    """Shorten what the argument parser says: the one place where messages are read, for the parser has no types.

    Args:
        message: of the parser, or of an exception while classes were built.
        classes: what settings may name, by short name.
        options: known settings, dotted.
        command: whose settings they are.
        branches: where classes lie in the settings of a command that is not a run's.
    """
    message = message.replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    if file := NO_FILE.search(message):
        return f"config: got {file[1]}, allowed: a file that exists"
    known = Known(command, {*options}, classes, branches or {})
    path = _path(message)
    if required := REQUIRED.search(message):
        key = required[1].strip(",").split(".", 1)[-1]
        key = key if not path or key.startswith(path) else f"{path}.{key}"
        return f"{key}: got nothing, allowed: --{key}=VALUE or a settings file with -c"
    if empty := NO_VALUE.search(message):
        return f"{empty[1]}: got nothing, allowed: --{empty[1]}=VALUE"
    if unrecognized := UNRECOGNIZED.search(message):
        return known.not_a_key(_path(message, unrecognized[1]))
    if wrong := NOT_IN_GROUP.search(message):
        return known.not_a_key(_path(message, wrong[2], wrong[1]))
    if wrong := NOT_ACCEPTED.search(message):
        return known.not_a_key(_path(message, wrong[1].removeprefix("init_args.")))
    kinds = [kind for kind in dict.fromkeys(EXPECTED.findall(message)) if kind not in ("NoneType", "path", "dot")]
    values = VALUE.findall(message)
    name = NO_CLASS.search(message)
    if abstract := ABSTRACT.search(message):
        return known.no_class_yet(name[1] if name else abstract[1], path)
    if name and NUMBERS.isdisjoint(kinds):
        asked = OF_HELP.search(message)
        return known.not_a_class(path or asked[1] if asked else path, name[1])
    if (base := NOT_A_KIND.search(message)) and base[1] != "Tensor":  # which no setting can be, though some would take it
        return known.no_class_yet(base[1], path)
    if kinds and values:
        got = NESTED.sub(r"\2", values[0]).strip(_QUOTES)
        allowed = " or ".join(kinds)
        if "Literal" in kinds:
            allowed = f"a value that `{known.help_of(path)}` lists"
        elif "float" in kinds and NOT_FINITE.fullmatch(got):
            allowed = "a finite number"
        return f"{path}: got {got}, allowed: {allowed}"
    if path and (no_path := NO_PATH.search(message)):
        got = NESTED.sub(r"\2", values[-1] if values else no_path[1]).strip(_QUOTES)
        return f"{path}: got {got}, allowed: {known.inside(path)}"
    return " ".join(message.split())


def _path(message: str, last: str | None = None, group: str | None = None) -> str:
    """Where in the settings a message is about: its keys from the outside in, and ``last`` in the value that is refused.

    The parser does not name all keys on the way, but prints what it was given: a dotted key, or a tree.
    """
    keys = [key for key in KEY.findall(message) if key not in RUN]
    inside = [*keys[1:], *([group] if group else []), *([last] if last else [])]
    given = (VALUE.findall(message) or [""])[-1]
    nested = NESTED.fullmatch(given)
    typed = nested[1].split(".") if nested else []
    if keys and inside:
        found = _find(inside[-1].split("."), _read(nested[2] if nested else given), typed)
        inside = found or [*typed, *([last] if nested and last else inside)]
    elif keys:
        inside = typed
    return _plain(*keys[:1], *inside)


def _find(name: list[str], tree: object, outside: list[str]) -> list[str]:
    """The keys down to a name in a tree that lies at some keys, all of which belong to it; empty where it is not."""
    for key in flatten(tree, ".".join(outside)):
        parts = key.split(".")
        for end in range(len(name), len(parts) + 1):
            if parts[end - len(name) : end] == name:
                return max(parts[:end], outside, key=len)
    return []


def _read(value: str) -> object:
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value


def _plain(*keys: str) -> str:
    """Keys as a person types them."""
    return ".".join(dict.fromkeys(part for key in keys for part in key.split(".") if part != "init_args"))


class Known:
    """What may be typed where.

    Args:
        command: whose settings they are.
        options: settings that its parser lists, dotted.
        classes: what settings may name, by short name.
        branches: where classes lie in the settings of a command that is not a run's.
    """

    def __init__(self, command: str, options: set[str], classes: Mapping[str, type], branches: Branches):
        self.command, self.options = command, options
        self.branches = BRANCHES if command in RUN else branches
        optimizers = {name: item for name, item in vars(torch.optim).items() if inspect.isclass(item)}
        self.classes = {**optimizers, **classes}

    def not_a_key(self, key: str) -> str:
        """The line for an unknown key, with the key that was meant if it can be guessed."""
        parts = key.split(".")
        for depth, part in enumerate(parts):
            place = ".".join(parts[:depth])
            if part not in self.names(place):
                break
        return f"{key}: unknown key, allowed: keys that `{self.help_of(key)}` lists{self._meant(place, part)}"

    def inside(self, place: str) -> str:
        """The line's end for a value where there should be keys, of which it names some."""
        listed = [f"--{key}" for key in sorted(self.options) if key.startswith(f"{place}.") and not key.endswith(".help")]
        such = f", such as {', '.join(listed[:3])}" if listed else ""
        return f"settings that `{self.help_of(f'{place}.')}` lists{such}"

    def _meant(self, place: str, part: str) -> str:
        """A key in the same place or in one below; the key itself where it exists elsewhere."""
        if not place and part in HEADS and "settings" in self.options:  # a study's
            return f"; a setting of all runs is given as '--settings.{part}.KEY'"
        if part in self.names(place):
            owners = [name for name, item in self._kinds(place).items() if part in _parameters(item)]
            return f"; '{part}' is a key of other classes, such as {owners[0]}" if owners else ""
        names = {name: name for name in self.names(place)}
        for branch in self.branches:
            for name in self.names(branch):
                if name == part:
                    return f"; did you mean '{branch}.{name}'?"
                if branch.startswith(f"{place}." if place else ""):
                    names.setdefault(name, f"{branch}.{name}")
        close = closest(part, names)
        return f"; did you mean '{names[close]}'?" if close else ""

    def not_a_class(self, path: str, name: str) -> str:
        """The line for the name of a class that is none, or of the wrong kind."""
        kinds = self._kinds(path.removesuffix(".help"))
        if len(kinds) == 1 and self.command not in RUN:  # its class is not to be named
            return f"{path}: got {name}, allowed: {self.inside(path)}"
        allowed = f"one of {', '.join(kinds)}" if 0 < len(kinds) < 10 else "the name of a class"
        others = lightning_callbacks.__all__ if path == "trainer.callbacks" else []
        if path == "model" and (RULE_FILES / f"{name}.yaml").is_file():
            return f"{path}: got {name}, allowed: {allowed}; did you mean '-c configs/rules/{name}.yaml'?"
        return f"{path}: got {name}, allowed: {allowed}{nearest(name.rsplit('.', 1)[-1], [*kinds, *others])}"

    def no_class_yet(self, base: str, path: str) -> str:
        """The line for a setting of a class that is not yet named, or of which only the base is."""
        name = base.rsplit(".", 1)[-1]
        place = next((place for place, (kind, _) in self.branches.items() if kind.__name__ == name), path)
        if path == place:
            return f"{path}: got {name}, allowed: the name of a class that is not abstract"
        return f"{place}: got nothing, allowed: --{place}=NAME or a settings file with -c, before --{path}"

    def help_of(self, key: str) -> str:
        """The command that lists the settings among which a key belongs."""
        if self.command not in RUN:
            return f"rhm {self.command} --help"
        places = [place for place in self.branches if key.startswith(f"{place}.")]
        return f"rhm fit {self.branches[max(places, key=len)][1] if places else '--help'}"

    def names(self, place: str) -> set[str]:
        """The keys that a place in the settings may have."""
        inside = f"{place}." if place else ""
        known = {*self.options, *self.branches}
        listed = {key.removeprefix(inside).split(".")[0] for key in known if key.startswith(inside)} - {""}
        return listed.union(*map(_parameters, self._kinds(place).values()))

    def _kinds(self, place: str) -> dict[str, type]:
        """The classes that may stand in a place, by name."""
        if place not in self.branches:
            return {}
        base = self.branches[place][0]
        kinds = {**self.classes, base.__name__: base}
        return {name: kinds[name] for name in sorted(kinds) if issubclass(kinds[name], base) and not _abstract(kinds[name])}


def _abstract(item: type) -> bool:
    return inspect.isabstract(item) or item in (Callback, Optimizer) or item.__name__.startswith("LazyInstance")


def _parameters(item: type) -> set[str]:
    try:
        return set(inspect.signature(item).parameters)
    except (TypeError, ValueError):
        return set()
