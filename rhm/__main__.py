"""``rhm`` and ``python -m rhm``: the command line, in a folder with whatever names."""

from __future__ import annotations

import os
from importlib import import_module

from rhm.names import claim


def main() -> None:
    """Run a command of :mod:`experiments.cli`; what it starts with ``python -m`` does not import from the current folder."""
    claim()
    os.environ["PYTHONSAFEPATH"] = "1"
    import_module("experiments.cli").main()


if __name__ == "__main__":
    main()
