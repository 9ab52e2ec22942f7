"""A command is found, done, and what a person got wrong said in one line."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

from experiments.commands import COMMANDS, RUN
from experiments.explain import in_one_line, refusal
from experiments.run import ranks
from experiments.settings import Parser, ParsingError
from experiments.shipped import with_files
from rhm import InvalidInput
from rhm.errors import nearest
from rhm.names import look_in


def dispatch(command: str, args: list[str]) -> None:
    """Do a command. What a person got wrong is one line on standard error and exit code 2."""
    look_in(os.getcwd())
    try:
        if command not in COMMANDS:
            raise InvalidInput("command", command, ", ".join(COMMANDS) + nearest(command, COMMANDS))
        do(command, args)
    except (ParsingError, ValueError) as error:
        if not isinstance(error, ParsingError) and refusal(error) is None:
            raise
        ranks.say(f"rhm: {' '.join(in_one_line(error, command).split())}")
        ranks.leave(2)


def do(command: str, args: list[str]) -> None:
    """Import a command's module and call its function; no command waits for the modules of another."""
    module = importlib.import_module(COMMANDS[command].module)
    if command in (*RUN, "sweep"):
        args, notes = with_files(args)
        for note in notes:
            ranks.say(f"rhm: note: {note}")
    if command in RUN:
        module.run(command, args)
    elif command == "sweep":
        module.sweep_command(args)
    elif command == "configs":
        module.configs_command(args)
    else:
        call(getattr(module, command), command, args)


def call(function: Callable[..., None], command: str, args: list[str]) -> None:
    """Call a function whose parameters are the command's settings."""
    parser = Parser(prog=f"rhm {command}", description=COMMANDS[command].text)
    parser.add_function_arguments(function, as_positional=command == "report")
    function(**vars(parser.parse_args(args)))
