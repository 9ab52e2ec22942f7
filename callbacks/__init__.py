"""Callbacks look at a run and never touch it."""

from callbacks.diagnostic import Diagnostic
from callbacks.gradient_alignment import GradientAlignment
from callbacks.linear_probe import LayerwiseLinearProbe
from callbacks.mask_statistics import MaskStatistics
from callbacks.pair_statistics import PairStatistics
from callbacks.progress import RunProgress
from callbacks.representation_geometry import RepresentationGeometry
from callbacks.step_log import StepLog
from callbacks.synonymic_sensitivity import SynonymicSensitivity

__all__ = [
    "Diagnostic",
    "GradientAlignment",
    "LayerwiseLinearProbe",
    "MaskStatistics",
    "PairStatistics",
    "RepresentationGeometry",
    "RunProgress",
    "StepLog",
    "SynonymicSensitivity",
]
