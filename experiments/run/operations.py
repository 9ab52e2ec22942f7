"""How many floating-point operations a rule takes for a string, counted on tensors without content."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from datamodules import ReplicaDataModule
from experiments.run.hollow import hollow, hollow_batch
from rules import LocalRule


def operations_of(rule: LocalRule, data: ReplicaDataModule) -> float | None:
    """Floating-point operations of a step's matrix products, for one string of one replica; None if they cannot be counted.

    A product of ``a x b`` and ``b x c`` numbers has ``2 a b c``. Sums, activations and the optimizer are not counted; nor is
    what is no product of matrices, such as the counts of exchange clustering. A whole batch is counted, as on one rank: nothing
    is asked of the others.
    """
    twin, alone = hollow(rule), copy.copy(data)
    alone.rank, alone.world = 0, 1
    counter = FlopCounterMode(display=False)
    try:
        with torch.device("meta"):
            twin.prepare(alone)
            batch = hollow_batch(alone, alone.batch_size, training=True)
            with counter, torch.no_grad():
                twin.updates(twin.compute(batch))
    except Exception:  # a rule of one's own that looks at what tensors hold, say: what was trained is worth more than this
        return None
    return float(counter.get_total_flops()) / (data.replicas * data.batch_size)
