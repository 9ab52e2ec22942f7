"""Batches of strings, made on the training device from the step number alone."""

from datamodules.base import PROBE, TEST, ReplicaDataModule, replicas_of
from datamodules.batch import Batch
from datamodules.pairs import (
    ClassPairs,
    HalfPairs,
    MaskedPairs,
    Pairs,
    PositionHalfPairs,
    RandomHalfPairs,
    SelfPairs,
    SiblingPairs,
    SynonymPairs,
)
from datamodules.rhm_datamodule import RHMDataModule
from datamodules.strings_datamodule import StringsDataModule

__all__ = [
    "PROBE",
    "TEST",
    "Batch",
    "ClassPairs",
    "HalfPairs",
    "MaskedPairs",
    "Pairs",
    "PositionHalfPairs",
    "RHMDataModule",
    "RandomHalfPairs",
    "ReplicaDataModule",
    "SelfPairs",
    "SiblingPairs",
    "StringsDataModule",
    "SynonymPairs",
    "replicas_of",
]
