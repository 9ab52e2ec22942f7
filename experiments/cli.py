"""The command line: ``rhm fit | sweep | report | validate | test | check | rules | configs | describe | curves | demo``."""

from __future__ import annotations

import signal
import sys

from experiments.commands import COMMANDS
from experiments.streams import standard_streams
from experiments.version import version


def main(args: list[str] | None = None) -> None:
    """Run a command. What a person got wrong is one line on standard error and exit code 2."""
    try:
        with standard_streams():
            do(sys.argv[1:] if args is None else args)
    except KeyboardInterrupt:  # while modules are imported, say; a run that trains takes it itself
        print("rhm: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def do(args: list[str]) -> None:
    """Say what there is, or hand a command on."""
    if not args or args[0] in ("-h", "--help"):
        print_help()
        return
    if args[0] == "--version":
        print(f"rhm {version()}")
        return
    from experiments.dispatch import dispatch  # torch and Lightning take seconds to import; the help does not wait for them

    dispatch(args[0], args[1:])


def print_help() -> None:
    """The commands, and where settings are listed."""
    print("rhm: local learning rules on the Random Hierarchy Model\n")
    print("\n".join(f"  rhm {name:9} {command.text}" for name, command in COMMANDS.items()))
    print("\nSettings: `rhm fit --help` of a run and its trainer, `rhm fit --data.help` of the task,")
    print("`rhm fit --model.help=RULE` of a rule, `rhm fit --model=RULE --model.network.help=NETWORK` of its network.")


if __name__ == "__main__":
    main()
