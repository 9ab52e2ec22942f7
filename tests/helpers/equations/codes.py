"""The oracle of code prediction: a delta rule and running averages, in loops over strings, positions and codebooks.

Shape suffixes: B batch (string), D position, E units, S codebooks, K symbols of a codebook, J = 2 K predictions, P = S J.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from equations.case import Answer, Case, Equation, State, descend
from equations.network import Array, Parameters, Run, whitened
from equations.pair_losses import cosine


def information(joint_KK: Array) -> float:
    """Mutual information ``sum p(a, b) log p(a, b) / p(a) p(b)``."""
    total = 0.0
    for a in range(len(joint_KK)):
        for b in range(len(joint_KK)):
            if joint_KK[a, b] > 0:
                total += joint_KK[a, b] * math.log(joint_KK[a, b] / (joint_KK[a].sum() * joint_KK[:, b].sum()))
    return total


@dataclass
class Codebook:
    """One codebook of a layer as it stands: ``U`` of its own, prototypes, how often the symbols of siblings win together."""

    U_EJ: Array
    prototypes_KJ: Array
    joint_KK: Array
    mean_E: Array

    def predict(self, u_E: Array) -> Array:
        """``q = (u - mean u) U``: first what is said of a sibling to the right, then of one to the left."""
        return (u_E - self.mean_E) @ self.U_EJ

    def cosines(self, q_J: Array) -> Array:
        """With each prototype."""
        return np.array([cosine(q_J, prototype) for prototype in self.prototypes_KJ])

    def scores(self, q_J: Array, conscience: float) -> Array:
        """``cos(q, c_j) - a log(K p_j)``; ``p_j`` is how often ``j`` wins, as a left or as a right sibling."""
        size = len(self.joint_KK)
        p = [(self.joint_KK[j].sum() + self.joint_KK[:, j].sum()) / 2 for j in range(size)]
        return self.cosines(q_J) - conscience * np.array([math.log(max(size * p_j, 1e-4)) for p_j in p])


def codebooks(case: Case, k: int) -> list[Codebook]:
    """The codebooks of layer ``k``."""
    start = f"network.layers.{k - 1}.code."
    prototypes, joint, mean = (case.buffers[start + name] for name in ("prototypes_RSKJ", "joint_RSKK", "mean_R1E"))
    width = prototypes.shape[-1]
    U = case.parts[k - 1]["code.predictor_REP"]
    return [Codebook(U[:, s * width : (s + 1) * width], prototypes[s], joint[s], mean[0]) for s in range(len(joint))]


def coded_runs(case: Case) -> list[Run]:
    """The layers' runs. A layer with codes hands on, whitened, the winner by cosine alone in its most informative codebook."""
    runs: list[Run] = []
    h = case.network.encode(case.x_BD)
    for k, layer in enumerate(case.network.layers, 1):
        run = layer.forward(h)
        if "code.predictor_REP" in layer.parameters:
            best = max(codebooks(case, k), key=lambda book: information(book.joint_KK))
            winner_BD = np.array([[best.cosines(best.predict(u)).argmax() for u in units] for units in run.units_BDE])
            assert len(np.unique(winner_BD)) > 1, f"layer {k} hands on one code for all, and the case tells nothing"
            run.out_BDC = whitened(winner_BD, len(best.joint_KK))
        runs.append(run)
        h = run.out_BDC
    return runs


def learn(case: Case, k: int, units_BDE: Array) -> tuple[Array, dict[str, Array], float]:
    """Against ``dU = cov(u, t_sibling - q)``; what the averages move to; the mean square of ``t_sibling - q``.

    ``t = softmax_j((cos(q, c_j) - a log(K p_j)) / T)``. In ``dU``, which is a mean over pairs of siblings, ``u``, ``t`` and ``q``
    are without their means over the batch's strings and positions.
    """
    conscience, temperature = case.setting("conscience", 0.1), case.setting("temperature", 0.1)
    books = codebooks(case, k)
    batch, positions, _ = units_BDE.shape
    size, pairs, mean = len(books[0].joint_KK), batch * positions // 2, units_BDE.mean((0, 1))
    gradient = [np.zeros_like(book.U_EJ) for book in books]
    prototypes, joint = (np.zeros((len(books), *shape)) for shape in (books[0].prototypes_KJ.shape, (size, size)))
    loss = 0.0
    for s, book in enumerate(books):
        t, winner = np.zeros((batch, positions, size)), np.zeros((batch, positions), int)
        for b in range(batch):
            for d in range(positions):
                q = book.predict(units_BDE[b, d])
                scores = book.scores(q, conscience)
                powers = np.exp((scores - scores.max()) / temperature)
                t[b, d], winner[b, d] = powers / powers.sum(), scores.argmax()
                prototypes[s] += np.outer(t[b, d], q / np.linalg.norm(q)) / (batch * positions)
        for b in range(batch):
            for d in range(0, positions, 2):
                joint[s, winner[b, d], winner[b, d + 1]] += 1 / pairs
                left, right = units_BDE[b, d] - mean, units_BDE[b, d + 1] - mean
                of_right = t[b, d + 1] - t.mean((0, 1)) - left @ book.U_EJ[:, :size]
                of_left = t[b, d] - t.mean((0, 1)) - right @ book.U_EJ[:, size:]
                gradient[s] -= np.concatenate([np.outer(left, of_right), np.outer(right, of_left)], 1) / pairs
                loss += float(of_right @ of_right + of_left @ of_left) / (pairs * size * len(books))
    estimates = {"mean_R1E": mean[None], "prototypes_RSKJ": prototypes, "joint_RSKK": joint}
    return np.concatenate(gradient, 1), {f"network.layers.{k - 1}.code.{name}": x for name, x in estimates.items()}, loss


def code_prediction(case: Case) -> Answer:
    """Layers with codes learn, with ``stagger`` in the first step the first one alone; expansions and layers above never do."""
    runs = coded_runs(case)
    coded = [k for k, layer in enumerate(case.network.layers, 1) if "code.predictor_REP" in layer.parameters]
    layers: list[Parameters] = [{} for _ in runs]
    estimates: dict[str, Array] = {}
    losses: dict[str, float] = {}
    for k in coded if case.setting("stagger", 400) is None else coded[:1]:
        gradient, moved, losses[f"loss/layer{k}"] = learn(case, k, runs[k - 1].units_BDE)
        layers[k - 1] = {"code.predictor_REP": gradient}
        estimates |= moved
    answered = case.answered(runs)
    readout = case.network.readout_gradients(runs[-1].out_BDC, answered.error_BN)
    return Answer([*layers, readout], estimates, {**losses, "loss/readout": float(answered.loss_B.mean())})


def averages_move(case: Case, answer: Answer) -> State:
    """``x += rate (estimate - x)`` of prototypes, joint frequencies and means."""
    return descend(case, answer, rate=case.setting("rate", 0.05))


SMALL = ("--model.network.bottleneck=5", "--model.network.codebooks=4")

EQUATIONS: dict[str, Equation] = {
    "code_prediction": Equation(
        code_prediction,
        averages_move,
        variants=(
            ("--model.stagger=null",),
            ("--model.stagger=null", *SMALL, "--model.rate=0.3"),
            ("--model.stagger=null", *SMALL, "--model.conscience=0.5", "--model.temperature=0.4"),
        ),
        small=("--model.network.bottleneck=8",),  # four symbols are too few for codes that differ before they are learned
    )
}
