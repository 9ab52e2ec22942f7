"""Networks whose layers can be addressed one by one."""

from networks.architectures import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from networks.cells import CellLayer, CodeNetwork
from networks.competitive import MOMENTUM, CompetitiveLayer, CompetitiveNetwork, moments
from networks.config import NetworkConfig
from networks.layer import Layer, multiply
from networks.layered import LayeredNetwork
from networks.readout import Readout, ReadoutState, error_and_loss
from networks.siblings import SiblingLayer, SiblingNetwork
from networks.state import LayerState, LayerUpdate
from networks.vector import VectorNetwork

__all__ = [
    "MOMENTUM",
    "CellLayer",
    "CodeNetwork",
    "CompetitiveLayer",
    "CompetitiveNetwork",
    "DenseNetwork",
    "HierarchicalNetwork",
    "Layer",
    "LayerState",
    "LayerUpdate",
    "LayeredNetwork",
    "LocallyConnectedNetwork",
    "NetworkConfig",
    "Readout",
    "ReadoutState",
    "SiblingLayer",
    "SiblingNetwork",
    "VectorNetwork",
    "error_and_loss",
    "moments",
    "multiply",
]
