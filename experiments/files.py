"""Files: written whole or not at all, new ones, and those with settings."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rhm import InvalidInput

FLAGS = {"true": "true", "false": "false", "null": "null", "none": "null", "~": "null"}
"""Texts that are no numbers, and what they say."""


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file or nothing, and return when it is on the disk.

    Raises:
        OSError: it could not be written; a file that was there before still is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # ranks may write the same settings at once
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; numbers that are not finite, which JSON does not have, are null.

    Raises:
        OSError: see :func:`write_atomically`.
    """
    write_atomically(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file; ``Infinity`` and ``NaN``, which Python writes, and what is as large are null.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None, parse_float=_if_finite)
    except RecursionError:
        raise ValueError("too many levels") from None


def _if_finite(text: str) -> float | None:
    return number if math.isfinite(number := float(text)) else None


UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What may be wrong with a JSON file that somebody else has written, as it is read and taken apart."""


def text_of(content: dict[str, Any], key: str) -> str:
    """A text of a JSON file.

    Raises:
        KeyError, TypeError: it is missing, or no text.
    """
    if not isinstance(content[key], str):
        raise TypeError(f"{key} is {content[key]!r}, not a name")
    return str(content[key])


def whole_of(content: dict[str, Any], key: str, least: int = 0) -> int:
    """An integer of a JSON file, of 63 bits at the most.

    Raises:
        KeyError, TypeError: it is missing, or no such number.
    """
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise TypeError(f"{key} is {value!r}, not an integer of at least {least}")
    return value


def number_of(content: Any, key: Any, most: float = math.inf) -> float:
    """A number of a JSON file, from 0 on.

    Raises:
        KeyError, TypeError: it is missing, or no such number.
    """
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= min(most, sys.float_info.max):
        raise TypeError(f"{key} is {value!r}, not a number from 0 to {most:g}")
    return float(value)


@contextmanager
def writing(key: str, path: str | Path, kind: str = "folder") -> Iterator[None]:
    """Whatever is written here is what a person has named.

    Raises:
        InvalidInput: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InvalidInput(key, f"{path} ({error.strerror or error})", f"a {kind} that can be written") from error


def check_folder(key: str, path: Path) -> None:
    """See that a folder is there or can be made.

    Raises:
        InvalidInput: there is a file, or a link that leads nowhere.
    """
    with writing(key, path):
        if path.exists() and not path.is_dir():
            raise InvalidInput(key, path, "a folder; this is a file")
        if path.is_symlink() and not path.exists():
            raise InvalidInput(key, path, f"a folder; this is a link to {path.readlink()}, which is not there")


def new_file(key: str, path: str, endings: tuple[str, ...]) -> Path:
    """A path at which a file may be written.

    Raises:
        InvalidInput: there is one already or a link, there is no folder that can be written, or it has another ending.
    """
    target = Path(path)
    with writing(key, path, "file"):
        if target.exists() or target.is_symlink():
            raise InvalidInput(key, path, "a file that does not exist yet; nothing is overwritten")
        if not target.parent.is_dir():
            raise InvalidInput(key, path, "a file in a folder that exists")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InvalidInput(key, path, "a file in a folder that can be written")
    if target.suffix not in endings:
        raise InvalidInput(key, path, f"a file name that ends in {' or '.join(endings)}")
    return target


def read_settings(key: str, path: str | Path) -> dict[str, Any]:
    """The content of a settings file.

    Args:
        key: what the file is given as.
        path: of the file.

    Raises:
        InvalidInput: it cannot be read, is not YAML, says something twice, or has no settings.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(key, path, f"a file that can be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(key, path, f"a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInput(key, path, "a YAML file with settings, such as those in configs")
    return content


def load_yaml(text: str) -> Any:
    """What YAML says.

    Raises:
        yaml.YAMLError: it is no YAML, or :class:`Unclear`.
    """
    check_yaml(text)
    try:
        return yaml.safe_load(text)
    except ValueError as error:  # a date that does not exist, say
        raise yaml.YAMLError(str(error)) from error


class Unclear(yaml.YAMLError):
    """YAML that says a key twice, of which all but the last would be lost, or that holds itself."""


def check_yaml(text: str) -> None:
    """See that YAML says each key once, as a branch or with dots, and that nothing lies within itself.

    Raises:
        Unclear: it does not.
        yaml.YAMLError: it is no YAML.
    """
    lines: dict[str, int] = {}
    around, done = set[int](), set[int]()

    def look(node: yaml.Node | None, place: str) -> None:
        if node is None or id(node) in done or not isinstance(node, yaml.CollectionNode):
            return
        if id(node) in around:
            raise Unclear(f"{place} lies within itself, in line {node.start_mark.line + 1}")
        around.add(id(node))
        for number, item in enumerate(node.value):
            key, value = item if isinstance(node, yaml.MappingNode) else (None, item)
            name = f"{place.removesuffix('.init_args')}.{number if key is None else key.value}".removeprefix(".")
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":  # merged maps may be several
                line = key.start_mark.line + 1
                if name in lines:
                    raise Unclear(f"{name} stands twice, in lines {lines[name]} and {line}")
                lines[name] = line
            look(value, name)
        around.remove(id(node))
        done.add(id(node))

    try:
        look(yaml.compose(text, yaml.SafeLoader), "")
    except RecursionError:
        raise Unclear("too many levels") from None


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def alike(one: Any, other: Any) -> bool:
    """Whether two settings say the same, however they are written: 1, 1.0 and "1", true and "true", a list and a tuple."""
    return bool(_as_said(one) == _as_said(other))


def _as_said(value: Any) -> Any:
    """A setting without the type that a file or the command line has given it; a flag is never a number."""
    if isinstance(value, dict):
        return {str(key): _as_said(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_said(item) for item in value]
    if value is None or isinstance(value, bool) or str(value).lower() in FLAGS:
        return FLAGS.get(str(value).lower(), str(value).lower())
    for kind in int, float:
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value
