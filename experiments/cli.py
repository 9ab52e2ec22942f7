"""The command line: ``rhm fit | sweep | report | validate | test | check | rules | describe | curves | search | ...``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from experiments.commands import COMMANDS, RUN
from experiments.explain import in_one_line, refusal
from experiments.run import ranks
from experiments.settings import Parser, ParsingError
from rhm import InvalidInput
from rhm.errors import nearest


def main(args: list[str] | None = None) -> None:
    """Run a command. What a person got wrong is one line on standard error and exit code 2."""
    args = sys.argv[1:] if args is None else args
    command = args[0] if args else "--help"
    try:
        if command in ("-h", "--help"):
            print_help()
        elif command not in COMMANDS:
            raise InvalidInput("command", command, ", ".join(COMMANDS) + nearest(command, COMMANDS))
        else:
            do(command, args[1:])
    except (ParsingError, ValueError) as error:
        if not isinstance(error, ParsingError) and refusal(error) is None:
            raise
        ranks.say(f"rhm: {' '.join(in_one_line(error, command).split())}")
        ranks.leave(2)


def do(command: str, args: list[str]) -> None:
    """Import a command's module, which none waits for that does not need it, and call its function."""
    module = importlib.import_module(COMMANDS[command].module)
    if command in RUN:
        module.run(command, args)
    elif command == "sweep":
        module.sweep_command(args)
    else:
        call(getattr(module, command), command, args)


def call(function: Callable[..., None], command: str, args: list[str]) -> None:
    """Call a function whose parameters are the command's settings."""
    parser = Parser(prog=f"rhm {command}", description=COMMANDS[command].text)
    parser.add_function_arguments(function, as_positional=command == "report")
    function(**vars(parser.parse_args(args)))


def print_help() -> None:
    """The commands, and where settings are listed."""
    print("rhm: local learning rules on the Random Hierarchy Model\n")
    print("\n".join(f"  rhm {name:9} {command.text}" for name, command in COMMANDS.items()))
    print("\nSettings: `rhm fit --help` of a run and its trainer, `rhm fit --data.help` of the task,")
    print("`rhm fit --model.help=RULE` of a rule, `rhm fit --model=RULE --model.network.help=NETWORK` of its network.")


if __name__ == "__main__":
    main()
