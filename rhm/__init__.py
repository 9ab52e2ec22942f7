"""The Random Hierarchy Model: strings from a random grammar whose hidden symbols are known.

What needs torch is imported when it is first asked for: a command's help does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rhm.errors import InvalidInput, InvalidString

if TYPE_CHECKING:
    from rhm.derivation import Derivation
    from rhm.encoding import one_hot, whitened_one_hot
    from rhm.model import RandomHierarchyModel
    from rhm.silence import SparseHierarchyModel
    from rhm.task import OwnTask, SparseTask, Task, TaskSizes

__all__ = [
    "Derivation",
    "InvalidInput",
    "InvalidString",
    "OwnTask",
    "RandomHierarchyModel",
    "SparseHierarchyModel",
    "SparseTask",
    "Task",
    "TaskSizes",
    "one_hot",
    "whitened_one_hot",
]
_MODULES = {
    "Derivation": "derivation",
    "OwnTask": "task",
    "RandomHierarchyModel": "model",
    "SparseHierarchyModel": "silence",
    "SparseTask": "task",
    "Task": "task",
    "TaskSizes": "task",
    "one_hot": "encoding",
    "whitened_one_hot": "encoding",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
