"""``rhm configs``: the settings files that come with the package, listed or printed."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from experiments.commands import COMMANDS
from experiments.settings import Parser
from experiments.shipped import names, short
from rhm import InvalidInput
from rhm.errors import nearest


def configs_command(args: list[str]) -> None:
    """List every name with what its file says of itself; print the file of a name as it is.

    Raises:
        InvalidInput: there is no file of this name.
    """
    parser = Parser(prog="rhm configs", description=COMMANDS["configs"].text)
    parser.add_argument("name", nargs="?", type=str, help="of one of them, such as rules/backprop: print it")
    name, known = parser.parse_args(args).name, names()
    if name is None:
        for one, path in known.items():
            print(f"{one:34}{said_of_itself(path)}".rstrip())
    elif short(name) not in known:
        raise InvalidInput("name", name, f"a name that `rhm configs` lists{nearest(short(name), known)}")
    else:
        print(known[short(name)].read_text(encoding="utf-8"), end="")


def said_of_itself(path: Path) -> str:
    """The first sentence of the comment that a file begins with; without one, the rule's class."""
    text = path.read_text(encoding="utf-8").removeprefix("#!/usr/bin/env bash\n")
    comment = takewhile(lambda line: line.startswith("# ") and not line.startswith("#  "), text.splitlines())
    sentence = " ".join(line.removeprefix("# ").strip() for line in comment).partition(". ")[0].rstrip(".:")
    rule = re.match(r"model:\n  class_path: (\w+)", text)
    return sentence or (rule[1] if rule else "")
