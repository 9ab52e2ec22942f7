"""The Random Hierarchy Model: strings from a random grammar whose hidden symbols are known."""

from rhm.derivation import Derivation
from rhm.encoding import one_hot, whitened_one_hot
from rhm.errors import InvalidInput, InvalidString
from rhm.model import RandomHierarchyModel
from rhm.task import Task

__all__ = [
    "Derivation",
    "InvalidInput",
    "InvalidString",
    "RandomHierarchyModel",
    "Task",
    "one_hot",
    "whitened_one_hot",
]
