"""A step of backpropagation as JAX does it: replicas mapped, steps scanned, Adam written out, all in one compiled call.

Shape suffixes: R replica, B batch, D position, S steps of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from datamodules import RHMDataModule


def jax_loop(width: int, data: RHMDataModule, steps: int) -> Callable[[], None] | None:
    """A call that makes so many steps of backpropagation on strings that are already made; None where JAX is not installed.

    The network is that of the other loops: four layers of linear maps of patches of two positions, biases, ReLU, a readout.
    """
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    v, layers = data.task.v, data.task.L
    batches = [data.train_batch(step) for step in range(steps)]
    x_SRBD, y_SRB = (
        np.stack([part.numpy() for part in parts]) for parts in ([b.x_RBD for b in batches], [b.y_RB for b in batches])
    )
    sizes = [(2 * (v if k == 0 else width), width) for k in range(layers)] + [(width, data.task.n)]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(data.replicas, *size, generator=generator).numpy() / np.sqrt(size[0]) for size in sizes]
    parameters: Any = [(jnp.asarray(w), jnp.zeros((data.replicas, w.shape[-1]))) for w in weights]

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        h = jax.nn.one_hot(x, v)
        for w, b in parameters[:-1]:
            h = jax.nn.relu(h.reshape(h.shape[0], h.shape[1] // 2, -1) @ w + b)
        log_p = jax.nn.log_softmax(h[:, 0] @ parameters[-1][0] + parameters[-1][1])
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean()

    gradient = jax.vmap(jax.grad(loss))

    def step(state: Any, batch: Any) -> tuple[Any, None]:
        p, m, u, t = state
        g = gradient(p, *batch)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        u = jax.tree.map(lambda u, g: 0.999 * u + 0.001 * g * g, u, g)
        c, d = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
        p = jax.tree.map(lambda p, m, u: p - 1e-3 * (m / c) / (jnp.sqrt(u / d) + 1e-8), p, m, u)
        return (p, m, u, t + 1), None

    scanned = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches)[0], donate_argnums=0)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = [parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), 0.0]
    strings = jnp.asarray(x_SRBD.astype(np.int32)), jnp.asarray(y_SRB.astype(np.int32))
    kept = {"state": tuple(state)}

    def run() -> None:
        kept["state"] = jax.block_until_ready(scanned(kept["state"], strings))

    return run
