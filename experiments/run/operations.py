"""How many floating-point operations a rule takes for a string, counted on tensors without content."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from datamodules import ReplicaDataModule
from experiments.run.hollow import hollow, hollow_batch
from rules import LocalRule


def operations_of(rule: LocalRule, data: ReplicaDataModule) -> float | None:
    """Floating-point operations of a step's matrix products, for one string of one replica; None of a rule whose way depends on
    what tensors hold.

    A product of ``a x b`` and ``b x c`` numbers has ``2 a b c``. Sums, activations and the optimizer are not counted; nor is
    what is no product of matrices, such as the counts of exchange clustering.
    """
    twin = hollow(rule)
    counter = FlopCounterMode(display=False)
    try:
        with torch.device("meta"):
            twin.prepare(data)
            batch = hollow_batch(data, data.batch_size, training=True)
            with counter, torch.no_grad():
                twin.updates(twin.compute(batch))
    except (RuntimeError, TypeError):
        return None
    return float(counter.get_total_flops()) / (data.replicas * data.batch_size)
