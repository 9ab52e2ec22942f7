"""Callbacks look at a run and never touch it, but for its rate (CosineDecay) and its end (Convergence)."""

from callbacks.convergence import Convergence
from callbacks.diagnostic import Diagnostic
from callbacks.event_files import EventFiles
from callbacks.gradient_alignment import GradientAlignment
from callbacks.histograms import Histograms
from callbacks.hyper_parameters import HyperParameters
from callbacks.linear_probe import LayerwiseLinearProbe
from callbacks.mask_statistics import MaskStatistics
from callbacks.pair_statistics import PairStatistics
from callbacks.progress import RunProgress
from callbacks.representation_geometry import RepresentationGeometry
from callbacks.step_log import StepLog
from callbacks.synonymic_sensitivity import SynonymicSensitivity

__all__ = [
    "Convergence",
    "Diagnostic",
    "EventFiles",
    "GradientAlignment",
    "Histograms",
    "HyperParameters",
    "LayerwiseLinearProbe",
    "MaskStatistics",
    "PairStatistics",
    "RepresentationGeometry",
    "RunProgress",
    "StepLog",
    "SynonymicSensitivity",
]
