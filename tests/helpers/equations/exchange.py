"""The oracle of rules that cluster cells: counts in loops over strings, and an objective that is enumerated anew for each choice.

Shape suffixes: B batch (string), D position, S codebooks, Y contexts, T cells, N cells that decide, K codes.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from equations.case import Answer, Case, Equation, State, descend
from equations.network import Array, Parameters, Run, whitened
from rhm.hashing import fold, uniform

SHARES = [2 ** (-i / 4) for i in range(33)]
SHAPES = [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
EVENNESS = [2.0**i for i in range(7)]


@dataclass(frozen=True)
class Belief:
    """What is thought of counts before they are seen: the share of pairs of codes that occur, how equal their rates are, and how
    equal the probabilities of a code's cells; how often one that occurs is expected."""

    share: float
    shape: float
    even: float
    expected: float


def rising(start: float, count: float) -> float:
    """``ln start (start + 1) ... (start + count - 1)``, one factor after another."""
    return sum(math.log(start + i) for i in range(round(count)))


def of_pairs(joint: Array, share: float, shape: float, expected: float) -> float:
    """The log of the probability of counts of pairs of codes, each of which occurs or does not."""
    total = 0.0
    for count, times in zip(*np.unique(joint, return_counts=True), strict=True):
        occurs = rising(shape, count) - shape * math.log((shape + expected) / shape)
        if count:
            total += times * (math.log(share) + occurs - count * math.log((shape + expected) / expected))
        else:
            total += times * math.log(share * math.exp(occurs) + 1 - share)
    return total


def of_cells(counts_YTT: Array, codes_T: Array, joint: Array, even: float) -> float:
    """The log of the probability of which of its cells each code had, under a Dirichlet prior of ``even`` a cell."""
    total, cells = 0.0, [0] * joint.shape[1]
    for t, seen in enumerate(cells_seen(counts_YTT)):
        if seen:
            cells[codes_T[t]] += 1
            total += rising(even, counts_YTT[:, t].sum() + counts_YTT[:, :, t].sum())
    for k, count in enumerate(cells):
        total -= rising(even * count, joint[:, k].sum() + joint[:, :, k].sum()) if count else 0.0
    return total


def joint_of(counts_YTT: Array, codes_T: Array, K: int) -> Array:
    """How often each code stood left of each, by going through all pairs of cells."""
    joint = np.zeros((len(counts_YTT), K, K))
    for y, left, right in np.argwhere(counts_YTT):
        joint[y, codes_T[left], codes_T[right]] += counts_YTT[y, left, right]
    return joint


def possible(joint: Array, counts_YTT: Array, codes_T: Array, spare: bool) -> Array:
    """The counts of all pairs of codes or, of spare ones, of those that cells have that were seen."""
    has = sorted({codes_T[t] for t, seen in enumerate(cells_seen(counts_YTT)) if seen}) if spare else slice(None)
    return joint[:, has][:, :, has]


def belief(counts_YTT: Array, codes_T: Array, K: int, spare: bool = False) -> Belief:
    """Under which the counts are most probable, of all that are tried."""
    joint = joint_of(counts_YTT, codes_T, K)
    pairs = possible(joint, counts_YTT, codes_T, spare)
    tried = [(share, shape, pairs.sum() / (share * max(1, pairs.size))) for share in SHARES for shape in SHAPES]
    share, shape, expected = tried[first_best([of_pairs(pairs, *all_three) for all_three in tried])]
    even = EVENNESS[first_best([of_cells(counts_YTT, codes_T, joint, one) for one in EVENNESS])]
    return Belief(share, shape, even, expected)


def first_best(values: list[float]) -> int:
    """The first of the largest, which may be several, but for rounding."""
    return next(i for i, value in enumerate(values) if math.isclose(value, max(values), rel_tol=1e-9, abs_tol=1e-9))


def objective(counts_YTT: Array, codes_T: Array, K: int, under: Belief | None = None, spare: bool = False) -> float:
    """The log of the counts' probability under a belief, else under the one that makes them most probable."""
    joint, under = joint_of(counts_YTT, codes_T, K), under or belief(counts_YTT, codes_T, K, spare)
    pairs = possible(joint, counts_YTT, codes_T, spare)
    return of_pairs(pairs, under.share, under.shape, under.expected) + of_cells(counts_YTT, codes_T, joint, under.even)


def drive(weights_YTT: Array, counts_YTT: Array, codes_T: Array, cell: int, k: int, K: int, a: float) -> float:
    """What the siblings of a cell, counted in ``counts_YTT``, say of code ``k``, by what ``weights_YTT`` says stood beside it."""
    joint = np.full((len(weights_YTT), K, K), a)
    for y, left, right in np.argwhere(weights_YTT):
        joint[y, codes_T[left], codes_T[right]] += weights_YTT[y, left, right]
    total = 0.0
    for y, left, right in np.argwhere(counts_YTT):
        count = counts_YTT[y, left, right]
        if left == cell:
            total += count * math.log(joint[y, k, codes_T[right]] / (joint[:, k].sum() + joint[:, :, k].sum()))
        if right == cell:
            total += count * math.log(joint[y, codes_T[left], k] / (joint[:, k].sum() + joint[:, :, k].sum()))
    return total


def cells_seen(counts_YTT: Array) -> list[bool]:
    """Whether a cell has been counted, on either side."""
    return [bool(counts_YTT[:, t].any() or counts_YTT[:, :, t].any()) for t in range(counts_YTT.shape[1])]


class Layer:
    """Layer ``k`` as it stands: its table, counts and settings."""

    def __init__(self, case: Case, k: int, now: int):
        self.case, self.k, self.now = case, k, now
        self.name = f"network.layers.{k - 1}.code"
        self.codes_ST, self.objective_S = (case.buffers[f"{self.name}.{name}"] for name in ("codes_RST", "objective_RS"))
        self.counts_YTT = case.buffers[f"{self.name}.counts_RYTT"]
        out = case.network.layers[k].parameters["weight_RGFE"].shape[1]
        self.K = out // case.network.layers[k].patch
        self.patch = case.network.layers[k].patch
        self.places = 1 if self.patch == 2 else self.patch
        self.Y, self.T, _ = self.counts_YTT.shape
        self.turn, returns = case.setting("turn", 150), case.setting("returns", 0)
        top = sum(name.endswith("counts_RYTT") for name in case.buffers)
        order = [{k} for k in [*range(1, top + 1), *[top - 1, top] * returns]]
        turns = order if case.setting("one_by_one", True) else [{*range(1, top + 1)}]
        self.start = now // self.turn * self.turn
        self.learns = self.start < len(turns) * self.turn and k in turns[now // self.turn]
        self.returned = returns > 0 and k == top - 1 and now >= top * self.turn
        if returns > 0 and k == top - 1 and not self.returned:
            self.Y = 1
        self.spare = case.setting("spare_codes", False)
        self.a = case.setting("pseudo_counts", 6.4) / (self.K**2 * self.Y / self.places)

    def handed_on(self) -> Array:
        """The codes of the codebook with the largest objective."""
        return self.codes_ST[int(np.argmax(self.objective_S))]

    def count(self, active_BD: Array, sizes: tuple[int, int]) -> Array:
        """How often each cell stood left of each other one, of strings that the turn has not yet shown."""
        (P, batch), patch, places = sizes, self.patch, self.places
        found = np.zeros(self.counts_YTT.shape)
        first = -(-self.start * batch // P) * P
        if first + P > (self.start + self.turn) * batch:
            first = self.start * batch
        for b, cells_D in enumerate(active_BD):
            if not first <= self.now * batch + b < first + P:
                continue
            y = int(self.case.y_B[b]) if places < self.Y else 0
            parents = cells_D.reshape(-1, patch)
            contexts = self.expected(y, parents) if self.returned else [y] * len(parents)
            for parent, context in zip(parents, contexts, strict=True):
                for place in range(places):
                    if context is not None:
                        found[context * places + place, parent[place], parent[(place + 1) % patch]] += 1
        return found

    def before(self) -> Array:
        """The codes that were handed on before the turn."""
        return self.handed_on() if self.now == self.start else self.case.buffers[f"{self.name}.before_RT"]

    def expected(self, y: int, parents: Array) -> list[int | None]:
        """For each pair of cells the code that its parent should have by the class and the other pair's parent; None if unsure."""
        upper = Layer(self.case, self.k + 1, self.now)
        code_T, upper_T, before_T = upper.handed_on(), [], self.before()
        for left, right in parents:
            upper_T.append(code_T[before_T[left] * self.K + before_T[right]])
        found: list[int | None] = []
        for d in range(len(parents)):
            other, beside = upper_T[d + 1 if d % 2 == 0 else d - 1], [0.0] * upper.K
            for a, b in np.argwhere(upper.counts_YTT[y]):
                one, its = (a, b) if d % 2 == 0 else (b, a)
                if code_T[its] == other:
                    beside[code_T[one]] += upper.counts_YTT[y, a, b]
            best, second = sorted(beside, reverse=True)[:2]
            found.append(beside.index(best) if best > 0 and best >= 2 * second else None)
        return found

    def decide(self, counts_YTT: Array) -> Array:
        """A fraction of the seen cells of each codebook takes the code with the largest objective and noise, the others as they were."""
        S, fraction = len(self.codes_ST), self.case.setting("fraction", 0.7)
        N = max(1, round(fraction * self.T))
        key = torch.tensor([self.case.keys(self.k, self.now)])
        order_ST = uniform(fold(key, "order"), (S, self.T))[0].numpy()
        noise_SNK = uniform(fold(key, "noise"), (S, N, self.K))[0].numpy()
        seen = cells_seen(counts_YTT)
        passed = (self.now - self.start) / (self.case.setting("falling", 0.6) * self.turn)
        temperature = self.case.setting("temperature", 0.15) * max(0.0, 1 - passed) * 2 * counts_YTT.sum() / max(1, sum(seen))
        codes_ST = self.codes_ST.copy()
        for s in range(S):
            cells = sorted(range(self.T), key=lambda t: -order_ST[s, t] - seen[t])[: max(1, round(fraction * sum(seen)))]
            under = belief(counts_YTT, self.codes_ST[s], self.K, self.spare)
            for n, cell in enumerate(cells):
                values = []
                for k in range(self.K):
                    noise = -math.log(-math.log(noise_SNK[s, n, k]))
                    values.append(self.says(counts_YTT, self.codes_ST[s], cell, k, under) + temperature * noise)
                if seen[cell]:
                    codes_ST[s, cell] = int(np.argmax(values))
        return codes_ST

    def says(self, counts_YTT: Array, codes_T: Array, cell: int, k: int, under: Belief) -> float:
        """How good a cell finds a code."""
        form = self.case.setting("drive", "gain")
        if form == "gain":
            other_T = codes_T.copy()
            other_T[cell] = k
            return objective(counts_YTT, other_T, self.K, under, self.spare)
        weights_YTT = counts_YTT.copy()
        if form == "weights":
            weights_YTT[:, cell], weights_YTT[:, :, cell] = 0, 0
        return drive(weights_YTT, counts_YTT, codes_T, cell, k, self.K, self.a)

    def value(self, counts_YTT: Array, codes_T: Array) -> float:
        """How good codes are."""
        return objective(counts_YTT, codes_T, self.K, spare=self.spare)

    def told(self) -> dict[str, float]:
        best, seen = self.objective_S.max(), cells_seen(self.counts_YTT)
        used = {code for code, is_seen in zip(self.handed_on(), seen, strict=True) if is_seen}
        return {
            f"loss/layer{self.k}": -best / max(1, self.counts_YTT.sum()),
            f"codes/layer{self.k}_agree": float(sum(value >= best - 1e-6 * abs(best) for value in self.objective_S)),
            f"codes/layer{self.k}_in_use": float(len(used)),
        }


def coded_layers(case: Case, now: int, kind: type[Layer]) -> list[Layer]:
    coded = [k for k in range(1, case.depth + 1) if f"network.layers.{k - 1}.code.codes_RST" in case.buffers]
    return [kind(case, k, now) for k in coded]


def active(run: Run) -> Array:
    """The most active cell at each position."""
    return np.array([[units.argmax() for units in positions] for positions in run.units_BDE])


def coded_runs(case: Case, layers: list[Layer]) -> list[Run]:
    """The layers' runs. A layer with cells hands on, whitened, the code of the most active one."""
    runs: list[Run] = []
    h = case.network.encode(case.x_BD)
    for k, layer in enumerate(case.network.layers, 1):
        run = layer.forward(h)
        if k <= len(layers):
            run.out_BDC = whitened(layers[k - 1].handed_on()[active(run)], layers[k - 1].K)
        runs.append(run)
        h = run.out_BDC
    return runs


def exchange(
    now: int = 0, sizes: tuple[int, int] = (64, 6), kind: type[Layer] = Layer, **settings: tuple[tuple[str, ...], ...]
) -> Equation:
    """The equation of a step after ``now`` others, for so many training strings and strings of a step."""

    def says(case: Case) -> Answer:
        layers = coded_layers(case, now, kind)
        runs = coded_runs(case, layers)
        estimates: dict[str, Array] = {}
        losses: dict[str, float] = {}
        for layer, run in zip(layers, runs, strict=False):
            if layer.learns:
                estimates[f"{layer.name}.counts_RYTT"] = layer.count(active(run), sizes)
                losses |= layer.told()
        answered = case.answered(runs)
        upper = case.network.backpropagate(runs, answered.error_BN, down_to=len(layers))
        readout = case.network.readout_gradients(runs[-1].out_BDC, answered.error_BN)
        none: list[Parameters] = [{} for _ in layers]
        return Answer([*none, *upper, readout], estimates, {**losses, "loss/readout": float(answered.loss_B.mean())})

    def after(case: Case, answer: Answer) -> State:
        state = descend(case, Answer(answer.gradients))
        for layer in coded_layers(case, now, kind):
            if not layer.learns:
                continue
            before_YTT = layer.counts_YTT if now > layer.start else 0
            counts_YTT = before_YTT + answer.estimates[f"{layer.name}.counts_RYTT"]
            codes_ST = layer.decide(counts_YTT[: layer.Y])
            values = [layer.value(counts_YTT[: layer.Y], codes_T) for codes_T in codes_ST]
            if layer.returned:
                state.buffers[f"{layer.name}.before_RT"] = layer.before()
            state.buffers |= {
                f"{layer.name}.counts_RYTT": counts_YTT,
                f"{layer.name}.codes_RST": codes_ST,
                f"{layer.name}.objective_RS": np.array(values),
            }
        return state

    return Equation(says, after, **deepcopy(settings))


# the rule's own numbers, for each settings file; `tests/rules/test_exchange_clustering.py` has later steps and other sizes
AT_ONCE = "--model.one_by_one=false"
VARIANTS = (
    (AT_ONCE,),
    (AT_ONCE, "--model.network.bottleneck=3", "--model.network.codebooks=2", "--model.fraction=1.0", "--model.temperature=0"),
    (AT_ONCE, "--data.s=3", "--data.L=3", "--data.m=3"),
    (AT_ONCE, "--model.drive=weights"),
    (AT_ONCE, "--model.spare_codes=true", "--model.network.bottleneck=5", "--data.s=3", "--data.L=3", "--data.m=3"),
    (AT_ONCE, "--model.drive=own_weights", "--data.s=3", "--data.L=3", "--data.m=3"),
    (AT_ONCE, "--model.pseudo_counts=1.5", "--model.fraction=0.37", "--model.falling=0.2", "--model.temperature=1"),
)

EQUATIONS = {name: exchange(variants=VARIANTS) for name in ("exchange_clustering", "exchange_clustering_label")}
