"""How much memory this machine has left, and what would not fit."""

from __future__ import annotations

from pathlib import Path

from rhm.errors import InvalidInput

GIB = 2**30


def free_memory() -> float:
    """Bytes that this process can still take; infinite where the system does not say."""
    found = [_number(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")]
    for line in _lines(Path("/proc/self/cgroup")):
        if line.startswith("0::"):  # limits of a job or a container, which lie within those of what it is part of
            root = Path("/sys/fs/cgroup")
            group = root / line.removeprefix("0::").strip("/")
            found += [_left(part) for part in (group, *group.parents) if part.is_relative_to(root)]
    return min(found, default=float("inf"))


def _left(group: Path) -> float:
    most, used = (_number("".join(_lines(group / name))) for name in ("memory.max", "memory.current"))
    reclaimed = [_number(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("inactive_file ")]
    return most - used + sum(reclaimed) if used < float("inf") else float("inf")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else float("inf")


def check_memory(key: str, got: object, what: str, need: float, free: float | None = None) -> None:
    """Refuse what does not fit.

    Args:
        key, got: the setting that makes it large.
        what: takes the memory.
        need: bytes that it takes.
        free: bytes that there are; those of this machine by default.

    Raises:
        InvalidInput: there are fewer.
    """
    free = free_memory() if free is None else free
    if need > free:
        size = f"about {need / GIB:,.1f} GiB" if need < 2**60 else "more"
        allowed = f"less: {what} would take {size} of memory{'' if need < 2**60 else ' than any machine has'}"
        raise InvalidInput(key, got, f"{allowed}, and {free / GIB:,.1f} GiB are free")
