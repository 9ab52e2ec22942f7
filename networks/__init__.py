"""Networks whose layers can be addressed one by one."""

from networks.layered import (
    DenseNetwork,
    HierarchicalNetwork,
    Layer,
    LayeredNetwork,
    LayerState,
    LayerUpdate,
    LocallyConnectedNetwork,
    NetworkConfig,
)
from networks.readout import Readout, ReadoutState
from networks.vector import VectorNetwork

__all__ = [
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
    "VectorNetwork",
]
