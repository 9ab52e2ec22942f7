"""Batches of strings, made on the training device from the step number alone."""

from datamodules.batch import Batch
from datamodules.pairs import ClassPairs, HalfPairs, Pairs, PositionHalfPairs, SiblingPairs, SynonymPairs
from datamodules.rhm_datamodule import PROBE, TEST, RHMDataModule, replicas_of

__all__ = [
    "PROBE",
    "TEST",
    "Batch",
    "ClassPairs",
    "HalfPairs",
    "Pairs",
    "PositionHalfPairs",
    "RHMDataModule",
    "SiblingPairs",
    "SynonymPairs",
    "replicas_of",
]
