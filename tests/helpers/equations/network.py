"""The network of one replica in plain numpy, from its definition: no torch, and nothing of the code under test.

A layer's parameters are those of one replica under their own names: ``weight_RGFE`` is ``[G, F, E]`` here, with ``G = 1`` where
positions share weights. Sums over strings and positions that make an update are loops.

Shape suffixes: B batch, D position, C channel, V vocabulary; G groups of positions that share weights, F inputs of a unit,
E units, N classes; I, J components of one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Parameters = dict[str, Array]

PHI: dict[str, Callable[[Array], Array]] = {
    "relu": lambda a: np.where(a > 0, a, 0.0),
    "tanh": np.tanh,
    "linear": lambda a: a.copy(),
}
SLOPE: dict[str, Callable[[Array], Array]] = {
    "relu": lambda a: np.where(a > 0, 1.0, 0.0),
    "tanh": lambda a: 1 / np.cosh(a) ** 2,
    "linear": np.ones_like,
}


def whitened(symbols: Array, v: int) -> Array:
    """``(onehot - 1/v) / sqrt((1/v)(1 - 1/v))`` of each symbol, one more axis of ``v``; zeros for ``v = 1``."""
    one_hot = np.zeros((*symbols.shape, v))
    for at in np.ndindex(symbols.shape):
        one_hot[(*at, symbols[at])] = 1
    return (one_hot - 1 / v) / (math.sqrt((1 / v) * (1 - 1 / v)) if v > 1 else 1)


@dataclass
class Run:
    """What a layer computed for a batch.

    Attributes:
        x_BDF: the patch that each position sees.
        a_BDE: pre-activation.
        units_BDE: ``phi(a)``.
        mask_BDE: ``phi'(a)``.
        raw_BDC: projection or units, before they are normalised.
        out_BDC: what is handed on.
    """

    x_BDF: Array
    a_BDE: Array
    units_BDE: Array
    mask_BDE: Array
    raw_BDC: Array
    out_BDC: Array


@dataclass
class PlainLayer:
    """``h = phi(W x + b)`` at every position, and ``z = sqrt(C) U h / |U h|`` where there is a projection.

    Attributes:
        parameters: ``weight_RGFE [G, F, E]``, ``bias_RG1E [G, 1, E]``, perhaps ``projection_RGEC [G, E, C]``.
        patch: neighbouring positions that are merged.
        activation: a key of ``PHI``.
        normalise: whether what is handed on has a mean square of 1.
    """

    parameters: Parameters
    patch: int
    activation: str
    normalise: bool

    def at(self, name: str, d: int) -> Array:
        """A parameter's matrix of position ``d``."""
        matrix = self.parameters[name]
        return matrix[d if len(matrix) > 1 else 0]

    @property
    def projects(self) -> bool:
        return "projection_RGEC" in self.parameters

    def forward(self, h_BDC: Array, noise_BDE: Array | None = None, projection_noise_BDC: Array | None = None) -> Run:
        """Run the layer; noise is added to the pre-activation, and to the projection before it is normalised."""
        batch, positions = h_BDC.shape[0], h_BDC.shape[1] // self.patch
        x = np.stack([h_BDC[:, d * self.patch : (d + 1) * self.patch].reshape(batch, -1) for d in range(positions)], 1)
        a = np.stack([x[:, d] @ self.at("weight_RGFE", d) + self.at("bias_RG1E", d) for d in range(positions)], 1)
        a = a if noise_BDE is None else a + noise_BDE
        units = PHI[self.activation](a)
        raw = units
        if self.projects:
            raw = np.stack([units[:, d] @ self.at("projection_RGEC", d) for d in range(positions)], 1)
        if projection_noise_BDC is not None:
            raw = raw + projection_noise_BDC
        out = raw
        if self.normalise:
            out = np.zeros_like(raw)
            for b in range(batch):
                for d in range(positions):
                    out[b, d] = math.sqrt(raw.shape[-1]) * raw[b, d] / max(np.sqrt((raw[b, d] ** 2).sum()), 1e-6)
        return Run(x, a, units, SLOPE[self.activation](a), raw, out)

    def jacobian(self, u_I: Array) -> Array:
        """``dz_J / du_I`` of the normalisation ``z = sqrt(C) u / |u|``."""
        size, norm = len(u_I), max(np.sqrt((u_I**2).sum()), 1e-6)
        return math.sqrt(size) * (np.eye(size) / norm - np.outer(u_I, u_I) / norm**3)

    def before_normalisation(self, run: Run, signal_BDC: Array) -> Array:
        """A signal at what is handed on, as one at the projection (or at the units)."""
        if not self.normalise:
            return signal_BDC.copy()
        found = np.zeros_like(signal_BDC)
        for b in range(signal_BDC.shape[0]):
            for d in range(signal_BDC.shape[1]):
                found[b, d] = self.jacobian(run.raw_BDC[b, d]).T @ signal_BDC[b, d]
        return found

    def at_units(self, run: Run, signal_BDC: Array, projection_GEC: Array | None = None) -> tuple[Parameters, Array]:
        """The projection's gradient and the signal at the units, ``[B, D, E]``, for a signal at what is handed on.

        Args:
            run: of the forward pass.
            signal_BDC: ``dLoss / d out`` or what stands for it.
            projection_GEC: carries the signal instead of the projection.
        """
        raw = self.before_normalisation(run, signal_BDC)
        if not self.projects:
            return {}, raw
        carrier = self.parameters["projection_RGEC"] if projection_GEC is None else projection_GEC
        signal = np.zeros_like(run.units_BDE)
        for b in range(raw.shape[0]):
            for d in range(raw.shape[1]):
                signal[b, d] = carrier[d if len(carrier) > 1 else 0] @ raw[b, d]
        return {"projection_RGEC": self.outer(run.units_BDE, raw, len(carrier))}, signal

    def outer(self, pre_BDF: Array, post_BDE: Array, groups: int) -> Array:
        """``sum post pre^T`` over strings and positions that share weights, ``[G, F, E]``."""
        total = np.zeros((groups, pre_BDF.shape[-1], post_BDE.shape[-1]))
        for b in range(pre_BDF.shape[0]):
            for d in range(pre_BDF.shape[1]):
                for f in range(pre_BDF.shape[2]):
                    total[d if groups > 1 else 0, f] += pre_BDF[b, d, f] * post_BDE[b, d]
        return total

    def hebbian(self, run: Run, delta_BDE: Array) -> Parameters:
        """Gradients of weights and biases for a postsynaptic factor at the pre-activations."""
        groups = len(self.parameters["weight_RGFE"])
        bias = np.zeros((groups, 1, delta_BDE.shape[-1]))
        for b in range(delta_BDE.shape[0]):
            for d in range(delta_BDE.shape[1]):
                bias[d if groups > 1 else 0, 0] += delta_BDE[b, d]
        return {"weight_RGFE": self.outer(run.x_BDF, delta_BDE, groups), "bias_RG1E": bias}

    def backward(self, run: Run, signal_BDC: Array, projection_GEC: Array | None = None) -> tuple[Parameters, Array]:
        """Gradients of all parameters, and ``delta`` at the pre-activations, for a signal at what is handed on."""
        gradients, signal = self.at_units(run, signal_BDC, projection_GEC)
        delta = run.mask_BDE * signal
        return gradients | self.hebbian(run, delta), delta

    def hand_down(self, delta_BDE: Array, weight_GFE: Array | None = None) -> Array:
        """The signal at the layer's input, ``[B, D * patch, C]``, through the weights or what stands for them."""
        weight = self.parameters["weight_RGFE"] if weight_GFE is None else weight_GFE
        batch, positions, _ = delta_BDE.shape
        channels = weight.shape[1] // self.patch
        below = np.zeros((batch, positions * self.patch, channels))
        for b in range(batch):
            for d in range(positions):
                patch = weight[d if len(weight) > 1 else 0] @ delta_BDE[b, d]
                for j in range(self.patch):
                    below[b, d * self.patch + j] = patch[j * channels : (j + 1) * channels]
        return below

    def tangent(self, run: Run, change_BDC: Array) -> Array:
        """How what is handed on changes along a change of the input: the Jacobian times a vector, position by position."""
        batch, positions = run.a_BDE.shape[:2]
        found = np.zeros_like(run.out_BDC)
        for b in range(batch):
            for d in range(positions):
                patch = change_BDC[b, d * self.patch : (d + 1) * self.patch].reshape(-1)
                moved = run.mask_BDE[b, d] * (self.at("weight_RGFE", d).T @ patch)
                moved = self.at("projection_RGEC", d).T @ moved if self.projects else moved
                found[b, d] = self.jacobian(run.raw_BDC[b, d]) @ moved if self.normalise else moved
        return found


@dataclass
class PlainSiblings(PlainLayer):
    """The weights of a place among siblings, such as left, stand above those of the next.

    Attributes:
        places: how many there are.
    """

    places: int

    def at(self, name: str, d: int) -> Array:
        matrix = super().at(name, d)
        return np.split(matrix, self.places)[d % self.places] if name == "weight_RGFE" else matrix


@dataclass
class PlainCompetition(PlainLayer):
    """``a = W (h - mean) / sqrt(variance + 1e-5) + b``, channel by channel, and ``relu(a - mean a)^p`` handed on.

    Attributes:
        mean_C, variance_C: of the input's channels.
        power: ``p``.
    """

    mean_C: Array
    variance_C: Array
    power: float

    def forward(self, h_BDC: Array, noise_BDE: Array | None = None, projection_noise_BDC: Array | None = None) -> Run:
        standard = np.zeros_like(h_BDC)
        for c, (mean, variance) in enumerate(zip(self.mean_C, self.variance_C, strict=True)):
            standard[..., c] = (h_BDC[..., c] - mean) / math.sqrt(variance + 1e-5)
        run = super().forward(standard, noise_BDE, projection_noise_BDC)
        for b in range(run.a_BDE.shape[0]):
            for d in range(run.a_BDE.shape[1]):
                mean = sum(run.a_BDE[b, d]) / len(run.a_BDE[b, d])
                run.out_BDC[b, d] = [(a - mean) ** self.power if a > mean else 0.0 for a in run.a_BDE[b, d]]
        return Run(run.x_BDF, run.a_BDE, run.out_BDC, run.mask_BDE, run.out_BDC, run.out_BDC)


@dataclass
class Answered:
    """What the readout computed: ``[B, N]`` logits, probabilities and errors ``softmax(o) - y``, cross-entropy ``[B]``."""

    logits_BN: Array
    p_BN: Array
    error_BN: Array
    loss_B: Array


@dataclass
class PlainNetwork:
    """Layers and a readout on whitened one-hot tokens.

    Attributes:
        layers: from the first.
        readout: ``weight_RFN [F, N]`` and ``bias_R1N [1, N]``.
        v, n: symbols and classes.
        label_slot: whether ``n`` more channels of the input show a class, or zeros.
    """

    layers: list[PlainLayer]
    readout: Parameters
    v: int
    n: int
    label_slot: bool = False

    def encode(self, x_BD: Array, label_B: Array | None = None) -> Array:
        """Tokens as ``[B, D, V]``, with a label slot ``[B, D, V + N]``."""
        h = whitened(x_BD, self.v)
        if not self.label_slot:
            return h
        shown = np.zeros((*x_BD.shape, self.n))
        if label_B is not None:
            shown[:] = whitened(label_B, self.n)[:, None]
        return np.concatenate([h, shown], -1)

    def forward(self, x_BD: Array, label_B: Array | None = None) -> list[Run]:
        """All layers' runs for tokens."""
        return self.forward_from(self.encode(x_BD, label_B))

    def forward_from(self, h_BDC: Array, first: int = 0) -> list[Run]:
        """Runs of ``layers[first:]`` for an input of the first of them."""
        runs = []
        for layer in self.layers[first:]:
            runs.append(layer.forward(h_BDC))
            h_BDC = runs[-1].out_BDC
        return runs

    def answer(self, out_BDC: Array, y_B: Array) -> Answered:
        """The readout of the top layer's output."""
        logits = out_BDC.reshape(len(out_BDC), -1) @ self.readout["weight_RFN"] + self.readout["bias_R1N"]
        p = np.stack([np.exp(o - o.max()) / np.exp(o - o.max()).sum() for o in logits])
        error, loss = p.copy(), np.zeros(len(p))
        for b, y in enumerate(y_B):
            error[b, y] -= 1
            loss[b] = -math.log(p[b, y])
        return Answered(logits, p, error, loss)

    def readout_gradients(self, out_BDC: Array, error_BN: Array) -> Parameters:
        """Gradients of the readout for the mean over strings of its errors."""
        weight, bias = (np.zeros_like(self.readout[name]) for name in ("weight_RFN", "bias_R1N"))
        for h, e in zip(out_BDC, error_BN, strict=True):
            weight += np.outer(h.reshape(-1), e) / len(error_BN)
            bias[0] += e / len(error_BN)
        return {"weight_RFN": weight, "bias_R1N": bias}

    def readout_down(self, error_BN: Array, shape: tuple[int, ...], weight_FN: Array | None = None) -> Array:
        """``W e / B`` of each string at the top layer's output, through the readout's weights or what stands for them."""
        weight = self.readout["weight_RFN"] if weight_FN is None else weight_FN
        return np.stack([weight @ e for e in error_BN]).reshape(shape) / len(error_BN)

    def backpropagate(self, runs: list[Run], error_BN: Array, down_to: int = 0) -> list[Parameters]:
        """Gradients of the mean of the readout's losses for the layers above the first ``down_to``."""
        found: list[Parameters] = []
        if down_to == len(self.layers):
            return found
        signal = self.readout_down(error_BN, runs[-1].out_BDC.shape)
        for k in range(len(self.layers), down_to, -1):
            gradients, delta = self.layers[k - 1].backward(runs[k - 1], signal)
            found.insert(0, gradients)
            signal = self.layers[k - 1].hand_down(delta)
        return found


def numeric_gradient(loss: Callable[[], float], parameters: Parameters, eps: float = 1e-6) -> Parameters:
    """Central finite differences of a scalar along every entry; the arrays are moved in place and put back."""
    found = {}
    for name, array in parameters.items():
        found[name] = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            start = array[at]
            array[at] = start + eps
            up = loss()
            array[at] = start - eps
            down = loss()
            array[at] = start
            found[name][at] = (up - down) / (2 * eps)
    return found
