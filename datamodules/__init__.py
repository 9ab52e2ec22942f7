"""Batches of strings, made on the training device from the step number alone."""

from datamodules.batch import Batch
from datamodules.pairs import ClassPairs, HalfPairs, Pairs, SiblingPairs, SynonymPairs
from datamodules.rhm_datamodule import RHMDataModule

__all__ = ["Batch", "ClassPairs", "HalfPairs", "Pairs", "RHMDataModule", "SiblingPairs", "SynonymPairs"]
