"""Oracles of the rules that carry an error, or what stands for it, to the layers.

Shape suffixes: B batch, D position, C channel, F inputs, E units, N classes, K components of a vector unit, Q rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from equations.case import Answer, Case, Equation, State, descend, with_readout
from equations.network import SLOPE, Array, Parameters, whitened
from equations.references import NETWORKS
from rhm.hashing import fold, normal

AUTOGRAD = (
    ("--model.form=autograd",),
    ("--model.form=autograd", "--model.network.normalise=true"),
    (
        "--model.form=autograd",
        "--model.network=LocallyConnectedNetwork",
        "--model.network.width=5",
        "--model.network.bottleneck=3",
    ),
)
"""The other form of a rule must say the same."""

# -------------------------------------------------------------------- direct feedback


def broadcast(case: Case, teaching_BN: Array, feedback_NF: Array, k: int) -> Array:
    """``B_k t / B`` of each string at the output of layer ``k``, entry by entry: row ``n`` has an entry a position and channel."""
    shape = case.runs()[k - 1].out_BDC.shape
    signal, channels = np.zeros(shape), shape[2]
    for b in range(shape[0]):
        for d in range(shape[1]):
            for c in range(channels):
                for n in range(case.network.n):
                    signal[b, d, c] += feedback_NF[n, d * channels + c] * teaching_BN[b, n] / shape[0]
    return signal


def direct(case: Case, teaching_BN: Array, feedback: Callable[[int], Array]) -> list[Parameters]:
    """``delta_l = D_l B_l t`` at every layer: through normalisation and projection, then the own mask."""
    found = []
    for k, (layer, run) in enumerate(zip(case.network.layers, case.runs(), strict=True), 1):
        found.append(layer.backward(run, broadcast(case, teaching_BN, feedback(k), k))[0])
    return found


def fixed(case: Case, k: int) -> Array:
    return case.buffers[f"feedback_{k}"]


def error_of(case: Case) -> Array:
    """``e = softmax(o) - y``, ``[B, N]``."""
    return case.answered(case.runs()).error_BN


def dfa(case: Case) -> Answer:
    """Nokland 2016, eq. 7: ``delta_l = D_l B_l e``."""
    return with_readout(case, direct(case, error_of(case), partial(fixed, case)))


def sign_dfa(case: Case) -> Answer:
    """``delta_l = D_l B_l sign(e)``."""
    teaching = np.where(error_of(case) > 0, 1.0, -1.0)  # an error is never 0: softmax is inside (0, 1)
    return with_readout(case, direct(case, teaching, partial(fixed, case)))


def drtp(case: Case) -> Answer:
    """Frenkel et al. 2021: ``delta_l = -D_l B_l y*``, the target in the place of the error."""
    teaching = np.zeros((len(case.y_B), case.network.n))
    for b, y in enumerate(case.y_B):
        teaching[b, y] = -1
    return with_readout(case, direct(case, teaching, partial(fixed, case)))


def correlation(error_BN: Array, out_BDC: Array) -> Array:
    """``E[e h^T]``, ``[N, D * C]``."""
    total = np.zeros((error_BN.shape[1], out_BDC[0].size))
    for e, h in zip(error_BN, out_BDC, strict=True):
        for n in range(len(e)):
            total[n] += e[n] * h.reshape(-1) / len(error_BN)
    return total


def dkp(case: Case) -> Answer:
    """Webster et al. 2021: ``delta_l = D_l B_l e``, ``dB_l = h_l e^T`` without the mask."""
    error = error_of(case)
    layers = direct(case, error, lambda k: case.parts[k - 1]["feedback_RNF"])
    for gradients, run in zip(layers, case.runs(), strict=True):
        gradients["feedback_RNF"] = correlation(error, run.out_BDC)
    return with_readout(case, layers)


def dkp_after(case: Case, answer: Answer) -> State:
    """All weights and feedback decay; biases do not."""
    state = descend(case, answer)
    for part in state.parts:
        for name in part:
            if not name.startswith("bias"):
                part[name] *= 1 - case.setting("decay", 1e-4)
    return state


def forward_dfa(case: Case) -> Answer:
    """Bacho, Chu 2024: ``delta_l = D_l B_l e``; ``B_l`` tracks ``E[t_o v_l^T]``, with ``t_o = sum_l J_l v_l``.

    The noise of each layer is carried up by itself here, and the changes of the logits are added.
    """
    runs, layers, readout = case.runs(), case.network.layers, case.network.readout["weight_RFN"]
    noises = [case.noise(f"tangent {k}", run.out_BDC.shape[1:]) for k, run in enumerate(runs, 1)]
    change_BN = np.zeros((len(case.y_B), case.network.n))
    for start, noise in enumerate(noises):
        change = noise
        for layer, run in zip(layers[start + 1 :], runs[start + 1 :], strict=True):
            change = layer.tangent(run, change)
        for b in range(len(change)):
            change_BN[b] += readout.T @ change[b].reshape(-1)
    estimates = {f"feedback_{k}": correlation(change_BN, noise) for k, noise in enumerate(noises, 1)}
    return with_readout(case, direct(case, error_of(case), partial(fixed, case)), estimates)


def ebd(case: Case) -> Answer:
    """Erdogan et al. 2025: ``R_l <- (1 - rate) R_l + rate E[h_l e^T]``, then ``delta_l = D_l (R_l e + power and entropy)``.

    Of a channel with ``P_c = E[h_c^2]`` over strings and positions, ``power (P_c - P)^2``; of all channels ``- entropy / 2 log det
    (Q_l + 1e-5)``, ``Q_l <- (1 - rate) Q_l + rate E[h_l h_l^T]``, whose gradient through ``h`` lacks the factor ``rate``.
    """
    error, rate, batch = error_of(case), case.setting("rate", 1e-5), len(case.y_B)
    power, entropy, wanted = case.setting("power", 0.01), case.setting("entropy", 0.001), case.setting("target_power", 1.0)
    layers, estimates = [], {}
    for k, (layer, run) in enumerate(zip(case.network.layers, case.runs(), strict=True), 1):
        estimates[f"feedback_{k}"] = correlation(error, run.out_BDC)
        rows = run.out_BDC.reshape(-1, run.out_BDC.shape[-1])
        estimates[f"activity_{k}"] = sum(np.outer(h, h) for h in rows) / len(rows)
        feedback, activity = (
            (1 - rate) * case.buffers[name] + rate * estimates[name] for name in (f"feedback_{k}", f"activity_{k}")
        )
        signal = broadcast(case, error, feedback, k)
        inverse = np.linalg.inv(activity + 1e-5 * np.eye(len(activity)))
        for b in range(batch):
            for d, h in enumerate(run.out_BDC[b]):
                for c in range(len(h)):
                    excess = sum(row[c] ** 2 for row in rows) / len(rows) - wanted
                    signal[b, d, c] += (4 * power * excess * h[c] - entropy * (inverse[c] @ h)) / len(rows)
        layers.append(layer.backward(run, signal)[0])
    return with_readout(case, layers, estimates)


def tracking(default_rate: float) -> Callable[[Case, Answer], State]:
    """Gradient descent, and what is tracked goes by ``model.rate`` towards the batch's value."""
    return lambda case, answer: descend(case, answer, case.setting("rate", default_rate))


# -------------------------------------------------------------------- feedback from layer to layer

Carrier = Callable[[int, str], Array]
"""What carries the error down in the place of parameter ``name`` of part ``k`` from 1; it has the parameter's shape."""


def carriers(case: Case) -> list[tuple[int, str]]:
    """The parameters through which backpropagation carries the error down: all matrices but those of the first layer."""
    above = [
        (k, name) for k, part in enumerate(case.parts, 1) for name in part if name in ("weight_RGFE", "weight_RFN") and k > 1
    ]
    return above + [(k, "projection_RGEC") for k, part in enumerate(case.parts, 1) if "projection_RGEC" in part]


def layered(case: Case, carrier: Carrier) -> tuple[list[Parameters], dict[tuple[int, str], Array]]:
    """``delta_l = D_l B_{l+1} delta_{l+1}``: the layers' gradients, and the errors that meet each carrier."""
    runs, layers, top = case.runs(), case.network.layers, case.depth
    error = error_of(case)
    signal = case.network.readout_down(error, runs[-1].out_BDC.shape, carrier(top + 1, "weight_RFN"))
    found, errors = [], {(top + 1, "weight_RFN"): error}
    for k in range(top, 0, -1):
        layer, run = layers[k - 1], runs[k - 1]
        projection = None
        if layer.projects:
            projection, errors[k, "projection_RGEC"] = carrier(k, "projection_RGEC"), layer.before_normalisation(run, signal)
        gradients, delta = layer.backward(run, signal, projection)
        found.insert(0, gradients)
        if k > 1:
            errors[k, "weight_RGFE"] = delta
            signal = layer.hand_down(delta, carrier(k, "weight_RGFE"))
    return found, errors


def feedback_alignment(case: Case) -> Answer:
    """Lillicrap et al. 2016: ``B`` is a fixed matrix."""
    return with_readout(case, layered(case, lambda k, name: case.buffers[f"feedback_{k}_{name}"])[0])


def signs(case: Case, k: int, name: str) -> Array:
    return np.where(case.parts[k - 1][name] > 0, 1.0, -1.0)


def usf(case: Case) -> Answer:
    """Liao et al. 2016: ``B = c sign(W)``, one number ``c`` for a matrix."""

    def carrier(k: int, name: str) -> Array:
        (size,) = case.buffers[f"magnitude_{k}_{name}"].reshape(-1)
        return size * signs(case, k, name)

    return with_readout(case, layered(case, carrier)[0])


def frsf(case: Case) -> Answer:
    """Liao et al. 2016: ``B = |M| * sign(W)``, ``M`` fixed."""
    return with_readout(
        case, layered(case, lambda k, name: np.abs(case.buffers[f"feedback_{k}_{name}"]) * signs(case, k, name))[0]
    )


def brsf(case: Case) -> Answer:
    """Liao et al. 2016: ``B = |M_t| * sign(W)``, ``M_t`` drawn from this step's key, ``c`` times a standard normal matrix."""
    key = torch.tensor([int(case.buffers["key_R"])])

    def carrier(k: int, name: str) -> Array:
        (size,) = case.buffers[f"magnitude_{k}_{name}"].reshape(-1)
        fresh = normal(fold(key, k, name), case.parts[k - 1][name].shape)[0].numpy()
        return size * np.abs(fresh) * signs(case, k, name)

    return with_readout(case, layered(case, carrier)[0])


def brsf_after(case: Case, answer: Answer) -> State:
    """The next step has another key."""
    state = descend(case, answer)
    state.buffers["key_R"] = fold(torch.tensor([int(case.buffers["key_R"])]), "next step")[0].numpy()
    return state


def kolen_pollack(case: Case) -> Answer:
    """Akrout et al. 2019: ``B`` learns from the same presynaptic and postsynaptic factors as the weights that it stands for."""
    layers, _ = layered(case, lambda k, name: case.parts[k - 1][f"feedback_{name}"])
    answer = with_readout(case, layers)
    for k, name in carriers(case):
        answer.gradients[k - 1][f"feedback_{name}"] = answer.gradients[k - 1][name]
    return answer


def decayed(case: Case, state: State, partner: str) -> State:
    """Weights that carry an error down, and what carries it in their place, times ``1 - decay``."""
    for k, name in carriers(case):
        state.parts[k - 1][name] *= 1 - case.setting("decay", 1e-3)
        state.parts[k - 1][f"{partner}_{name}"] *= 1 - case.setting("decay", 1e-3)
    return state


def kolen_pollack_after(case: Case, answer: Answer) -> State:
    return decayed(case, descend(case, answer), "feedback")


def weight_mirror(case: Case) -> Answer:
    """Akrout et al. 2019: ``B`` tracks ``E[x y^T]``, ``y`` the layer's answer to noise ``x`` and to ``-x``."""
    samples, batch, estimates = case.setting("samples", 1), len(case.y_B), {}
    for k, name in carriers(case):
        matrix = case.parts[k - 1][name]
        weights = matrix if matrix.ndim == 3 else matrix[None]  # the readout has no groups
        x = case.noise(f"mirror {k} {name}", (samples, *weights.shape[:2]))
        total = np.zeros_like(weights)
        for b in range(batch):
            for sample in range(samples):
                for g, weight in enumerate(weights):
                    for sign in (1, -1):
                        noise = sign * x[b, sample, g]
                        y = weight.T @ noise
                        if name == "weight_RGFE":
                            a = y + case.parts[k - 1]["bias_RG1E"][g, 0]
                            y = {"relu": np.maximum(a, 0), "tanh": np.tanh(a)}[case.network.layers[0].activation]
                        total[g] += np.outer(noise, y) / (batch * samples * 2)
        estimates[f"feedback_{k}_{name}"] = total.reshape(matrix.shape)
    return with_readout(case, layered(case, lambda k, name: case.buffers[f"feedback_{k}_{name}"])[0], estimates)


def low_rank(case: Case) -> Answer:
    """Hanut, Kadmon 2025: ``B = Q P``; ``dQ = h (P delta)^T``; ``P`` by Oja's rule, ``sum y delta^T - y y^T P``, ``y = P delta``.

    Its power ``sum |delta|^2`` is told beside it.
    """

    def p_of(k: int, name: str) -> Array:
        return case.buffers[f"P_{k}_{name}"]

    layers, errors = layered(case, lambda k, name: case.parts[k - 1][f"Q_{name}"] @ p_of(k, name))
    answer, runs = with_readout(case, layers), case.runs()
    for (k, name), error in errors.items():
        p = p_of(k, name)
        groups = p if p.ndim == 3 else p[None]  # the readout has no groups and one position
        rows = error if error.ndim == 3 else error[:, None]
        change, power, learned = np.zeros_like(groups), np.zeros((len(groups), 1, 1)), 0.0
        if k > case.depth:
            pre, scale = runs[-1].out_BDC.reshape(len(rows), 1, -1), 1 / len(rows)
        else:
            pre, scale = (runs[k - 1].x_BDF if name == "weight_RGFE" else runs[k - 1].units_BDE), 1.0
        learned = np.zeros((len(groups), pre.shape[2], groups.shape[1]))
        for b in range(rows.shape[0]):
            for d in range(rows.shape[1]):
                g, delta = d if len(groups) > 1 else 0, rows[b, d]
                y = groups[g] @ delta
                change[g] += np.outer(y, delta) - np.outer(y, y) @ groups[g]
                power[g] += (delta**2).sum()
                learned[g] += np.outer(pre[b, d], y) * scale
        answer.gradients[k - 1][f"Q_{name}"] = learned.reshape(case.parts[k - 1][f"Q_{name}"].shape)
        answer.estimates[f"P_{k}_{name}"] = change.reshape(p.shape)
        answer.estimates[f"power_{k}_{name}"] = power.reshape(p.shape[:-2] + (1, 1))
    return answer


def low_rank_after(case: Case, answer: Answer) -> State:
    """``P <- P + rate (Oja's step) / power``; weights and ``Q`` decay."""
    state = descend(case, Answer(answer.gradients))
    for k, name in carriers(case):
        step = answer.estimates[f"P_{k}_{name}"] / answer.estimates[f"power_{k}_{name}"]
        state.buffers[f"P_{k}_{name}"] += case.setting("rate", 0.02) * step
    return decayed(case, state, "Q")


# -------------------------------------------------------------------- the mask ladder


def mask_ladder(case: Case) -> Answer:
    """``delta_l = D_l B_{l+1} M_{l+1} ... M_L B_{L+1} e``, see the table of the class."""
    masks, route = case.setting("masks", "constant"), case.setting("feedback", "transposed")
    runs, layers, error = case.runs(), case.network.layers, error_of(case)
    activation = layers[0].activation
    if route == "direct":
        found = []
        for k, (layer, run) in enumerate(zip(layers, runs, strict=True), 1):
            delta = broadcast(case, error, fixed(case, k), k)
            if masks == "constant":  # the layer's own mask; without it in the last rung
                delta = delta * SLOPE[activation](run.a_BDE)
            found.append(layer.hebbian(run, delta))
        return with_readout(case, found)

    def carrier(k: int, name: str) -> Array:
        return case.parts[k - 1][name] if route == "transposed" else case.buffers[f"feedback_{k}_{name}"]

    top, found = case.depth, []
    signal = case.network.readout_down(error, runs[-1].out_BDC.shape, carrier(top + 1, "weight_RFN"))
    for k in range(top, 0, -1):
        own = SLOPE[activation](runs[k - 1].a_BDE)
        found.insert(0, layers[k - 1].hebbian(runs[k - 1], own * signal))
        if k == 1:
            break
        batch, positions, _ = own.shape
        passed = np.zeros_like(signal)
        for b in range(batch):
            for d in range(positions):
                mask = {
                    "exact": own[b, d],
                    "batch_mean": sum(own[c, d] for c in range(batch)) / batch,
                    "other_string": own[(b + 1) % batch, d],
                    "constant": np.full_like(own[b, d], 0.5 if activation == "relu" else own.mean()),
                }[masks]
                passed[b, d] = mask * signal[b, d]
        signal = layers[k - 1].hand_down(passed, carrier(k, "weight_RGFE"))
    return with_readout(case, found)


RUNGS = [
    ("exact", "transposed"),
    ("batch_mean", "transposed"),
    ("other_string", "transposed"),
    ("constant", "transposed"),
    ("constant", "random"),
    ("exact", "random"),
    ("constant", "direct"),
    ("none", "direct"),
    ("batch_mean", "random"),
    ("other_string", "random"),
]
LADDER = tuple(
    (f"--model.masks={masks}", f"--model.feedback={feedback}", f"--model.network.activation={activation}")
    for masks, feedback in RUNGS
    for activation in ("relu", "tanh", "linear")
)

# -------------------------------------------------------------------- no feedback matrices


def gevb(case: Case) -> Answer:
    """Clark, Abbott, Chung 2021, eq. 7: ``dw_ij = m_i (h_j . e)``, with vector units ``h_i = 1[t_i . a_i >= 0] a_i``.

    A token's channel ``j`` is ``K`` units, of which unit ``(j, k)`` has ``x_j`` in component ``k`` and 0 elsewhere.
    """
    K, batch = case.network.n, len(case.y_B)
    x_BDV = whitened(case.x_BD, case.network.v)
    h = np.zeros((*case.x_BD.shape, case.network.v * K, K))  # string, position, unit, component
    for b, d, j in np.ndindex(x_BDV.shape):
        for k in range(K):
            h[b, d, j * K + k, k] = x_BDV[b, d, j]
    inputs, gates = [], []
    for number, layer in enumerate(case.network.layers):
        weight, bias = layer.parameters["weight_RGFE"][0], layer.parameters["bias_RG1E"].reshape(-1, K)
        directions = case.buffers[f"network.layers.{number}.gate_REK"]
        x = np.stack([np.concatenate([h[:, d], h[:, d + 1]], 1) for d in range(0, h.shape[1], 2)], 1)
        h = np.zeros((batch, x.shape[1], weight.shape[1], K))
        gate = np.zeros(h.shape[:3])
        for b, d, i in np.ndindex(gate.shape):
            a = bias[i] + sum(weight[j, i] * x[b, d, j] for j in range(len(weight)))
            gate[b, d, i] = directions[i] @ a >= 0
            h[b, d, i] = gate[b, d, i] * a
        inputs.append(x)
        gates.append(gate)
    top_BUK = h.reshape(batch, -1, K)
    weight, bias = case.network.readout["weight_RFN"][:, 0], case.network.readout["bias_R1N"][0]
    error, loss, readout = np.zeros((batch, K)), 0.0, np.zeros((len(weight), 1))
    for b, y in enumerate(case.y_B):
        o = bias + sum(w * unit for w, unit in zip(weight, top_BUK[b], strict=True))
        error[b] = np.exp(o) / np.exp(o).sum() - np.eye(K)[y]
        loss += -np.log(np.exp(o[y]) / np.exp(o).sum()) / batch
        for i in range(len(weight)):
            readout[i] += top_BUK[b, i] @ error[b] / batch
    layers = []
    for x, gate in zip(inputs, gates, strict=True):
        dw, db = np.zeros((1, x.shape[2], gate.shape[2])), np.zeros((gate.shape[2], K))
        for b, d, i in np.ndindex(gate.shape):
            for j in range(x.shape[2]):
                dw[0, j, i] += gate[b, d, i] * (x[b, d, j] @ error[b]) / batch
            db[i] += gate[b, d, i] * error[b] / batch
        layers.append({"weight_RGFE": dw, "bias_RG1E": db.reshape(1, 1, -1)})
    top = {"weight_RFN": readout, "bias_R1N": error.mean(0)[None]}
    return Answer([*layers, top], {}, {"loss/readout": float(loss)})


def gevb_after(case: Case, answer: Answer) -> State:
    """Weights above the first layer, and the readout's, are cut off at 0; biases are not."""
    state = descend(case, answer)
    for part, name in [*((part, "weight_RGFE") for part in state.parts[1:-1]), (state.parts[-1], "weight_RFN")]:
        part[name] = np.where(part[name] > 0, part[name], 0)
    return state


def pepita(case: Case) -> Answer:
    """Dellaferrera, Kreiman 2022: ``dW_l = (h_l - h'_l) h'_{l-1}^T``, ``h'`` from a second pass with ``x + F e``."""
    x, first, error = case.network.encode(case.x_BD), case.runs(), error_of(case)
    modulated = x.copy()
    for b in range(len(x)):
        for n in range(case.network.n):
            modulated[b] += (case.buffers["feedback_RNF"][n] * error[b, n]).reshape(x[b].shape)
    second, batch, found = case.network.forward_from(modulated), len(x), []
    for layer, one, two in zip(case.network.layers, first, second, strict=True):
        gradients = layer.hebbian(two, (one.units_BDE - two.units_BDE) / batch)
        if layer.projects:
            groups = len(layer.parameters["projection_RGEC"])
            gradients["projection_RGEC"] = layer.outer(two.units_BDE, (one.out_BDC - two.out_BDC) / batch, groups)
        found.append(gradients)
    return with_readout(case, found)


def node_perturbation(case: Case) -> Answer:
    """Williams 1992: ``dW_l = (loss' - loss) / sigma^2 nu_l h_{l-1}^T``, ``loss'`` with noise ``nu`` of size ``sigma`` everywhere."""
    sigma, batch, found = case.setting("sigma", 0.01), len(case.y_B), []
    runs, noises, h = case.runs(), [], case.network.encode(case.x_BD)
    for k, (layer, run) in enumerate(zip(case.network.layers, runs, strict=True), 1):
        at_units = sigma * case.noise(f"units {k}", run.a_BDE.shape[1:])
        at_projection = sigma * case.noise(f"projection {k}", run.raw_BDC.shape[1:]) if layer.projects else None
        noises.append((at_units, at_projection))
        h = layer.forward(h, at_units, at_projection).out_BDC
    change_B = case.network.answer(h, case.y_B).loss_B - case.answered(runs).loss_B
    for layer, run, (at_units, at_projection) in zip(case.network.layers, runs, noises, strict=True):
        factor_B11 = (change_B / sigma**2 / batch)[:, None, None]
        gradients = layer.hebbian(run, factor_B11 * at_units)
        if at_projection is not None:
            groups = len(layer.parameters["projection_RGEC"])
            gradients["projection_RGEC"] = layer.outer(run.units_BDE, factor_B11 * at_projection, groups)
        found.append(gradients)
    return with_readout(case, found)


NOT_NORMALISED = tuple(network for network in NETWORKS if not any("bottleneck" in arg or "normalise" in arg for arg in network))
PLAIN = ("--model.network.normalise=false",)
DIRECT = (*NETWORKS, *AUTOGRAD, PLAIN)
LAYERED = (*NETWORKS, *AUTOGRAD, PLAIN)

EQUATIONS = {
    "dfa": Equation(dfa, variants=DIRECT),
    "sign_dfa": Equation(sign_dfa, variants=DIRECT),
    "drtp": Equation(drtp, variants=DIRECT),
    "dkp": Equation(dkp, dkp_after, variants=(*DIRECT, ("--model.decay=0.25",))),
    "forward_dfa": Equation(forward_dfa, tracking(0.02), variants=(*DIRECT, ("--model.rate=0.3",))),
    "ebd": Equation(
        ebd,
        tracking(1e-5),
        variants=(*DIRECT, ("--model.rate=0.3", "--model.power=0.7", "--model.target_power=0.5", "--model.entropy=0.2")),
    ),
    "feedback_alignment": Equation(feedback_alignment, variants=LAYERED),
    "usf": Equation(usf, variants=LAYERED),
    "frsf": Equation(frsf, variants=LAYERED),
    "brsf": Equation(brsf, brsf_after, variants=LAYERED),
    "kolen_pollack": Equation(
        kolen_pollack, kolen_pollack_after, variants=(*LAYERED, ("--model.decay=0.25", "--model.network.bottleneck=3"))
    ),
    "weight_mirror": Equation(weight_mirror, tracking(0.02), variants=(*LAYERED, ("--model.samples=2", "--model.rate=0.3"))),
    "low_rank_feedback": Equation(
        low_rank,
        low_rank_after,
        variants=(*LAYERED, ("--model.rank=2", "--model.rate=0.3", "--model.decay=0.25", "--model.network.bottleneck=3")),
    ),
    "mask_ladder": Equation(mask_ladder, variants=(*LADDER, *NOT_NORMALISED)),
    "gevb": Equation(gevb, gevb_after, variants=(("--model.network.paired=true",),), small=("--model.network.width=6",)),
    "pepita": Equation(pepita, variants=(*DIRECT, ("--model.feedback_scale=2.0", "--model.network.bottleneck=3"))),
    "node_perturbation": Equation(
        node_perturbation, variants=(*NETWORKS, PLAIN, ("--model.sigma=0.3", "--model.network.bottleneck=3"))
    ),
}
