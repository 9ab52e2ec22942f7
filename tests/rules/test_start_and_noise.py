"""What a rule draws has the distribution that its file states: oracles take start values and noise as given.

Shape suffixes: R replica, B batch; M numbers of a matrix, S samples, N classes, F numbers of a layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from rule_helpers import RULES, from_settings
from torch import Tensor

from datamodules import Batch
from networks import CellLayer
from rules import LocalRule
from rules.clapp import CLAPP
from rules.forward_forward import ForwardForward

SEEDS = (0, 1, 2, 3)


def rms(matrix: Tensor) -> Tensor:
    """Of each replica, to broadcast against the matrix."""
    return matrix.square().flatten(1).mean(1).sqrt().view(-1, *[1] * (matrix.dim() - 1))


def carried(rule: LocalRule, name: str) -> Tensor:
    """The parameter that ``feedback_3_weight_RGFE`` stands for."""
    found = re.search(r"_(\d+)_(\w+)$", name)
    assert found
    return rule.parts[int(found[1]) - 1].get_parameter(found[2])


def inputs(rule: LocalRule, value: Tensor) -> float:
    return 1 / math.sqrt(value.shape[-2])


NORMAL: dict[str, Callable[[LocalRule, str, Tensor], float | Tensor]] = {
    r"feedback_\d+|network\.layers\.\d+\.feedback_RNF": lambda rule, name, x: rule.feedback_scale / math.sqrt(x.shape[1]),
    r"feedback_RNF": lambda rule, name, x: rule.feedback_scale * math.sqrt(2 / x.shape[2]),
    r"feedback_\d+_\w+": lambda rule, name, x: rms(carried(rule, name)) * getattr(rule, "feedback_scale", 1),
    r".*\.(second_)?head_RCE|.*\.label_head_RFE|.*\.predictor_out_REC": lambda rule, name, x: inputs(rule, x),
    r".*\.predictor_in_RCE": lambda rule, name, x: math.sqrt(2) * inputs(rule, x),
    r".*\.(predictor|prediction|retrodiction)_RD?CC": lambda rule, name, x: 1 / x.shape[-1],
    r".*\.top_\w+_RDEC": lambda rule, name, x: 1 / math.sqrt(x.shape[-1] * x.shape[-2]),
    r".*\.label_RNC": lambda rule, name, x: 1.0,
    r".*\.target_RNF": lambda rule, name, x: math.sqrt(2 if rule.network_config.activation == "relu" else 1),
    r".*\.inverse_RGEF": lambda rule, name, x: inputs(rule, x),
    r"P_\d+_\w+": lambda rule, name, x: 1 / math.sqrt(x.shape[-1]),
}
"""Normal numbers of mean 0, by the names of buffers and parameters: the standard deviation that the rule's file states."""
GIVEN: dict[str, Callable[[LocalRule, str, Tensor], Tensor]] = {
    r"magnitude_\d+_\w+": lambda rule, name, x: rms(carried(rule, name)) * rule.feedback_scale,
    r"class_vectors_\d+": lambda rule, name, x: sines(x),
    r"target_\d+_\w+": lambda rule, name, x: rule.network.layers[int(name.split("_")[1]) - 1].get_parameter(
        re.sub(r"^head_", "head.", name.split("_", 2)[2])
    ),
    r".*\.inverse_bias_RG1F": lambda rule, name, x: torch.zeros_like(x),
    r"activity_\d+": lambda rule, name, x: torch.eye(x.shape[-1], dtype=x.dtype).expand_as(x),
    r".*code\.objective_RS": lambda rule, name, x: torch.zeros_like(x),
    r".*\.gate_REK": lambda rule, name, x: x.sign(),
    r".*\.mean_RC": lambda rule, name, x: torch.zeros_like(x),
    r".*\.variance_RC": lambda rule, name, x: torch.ones_like(x),
}
"""Start values that are no noise."""
NETWORK = re.compile(r".*\.(weight_RGFE|bias_RG1E|projection_RGEC|weight_RFN|bias_R1N)")


def sines(x_RNF: Tensor) -> Tensor:
    """``sin(f_n t)``, ``f_n`` spaced evenly from 50 to 512."""
    N, F = x_RNF.shape[1:]
    rows = [[math.sin((50 + n * 462 / (N - 1)) * t) for t in range(F)] for n in range(N)]
    return torch.tensor(rows, dtype=x_RNF.dtype).expand_as(x_RNF)


def own(rule: LocalRule) -> dict[str, Tensor]:
    """What the rule adds to its network and readout."""
    tensors = {**dict(rule.named_parameters()), **dict(rule.named_buffers())}
    return {
        name: value.detach()
        for name, value in tensors.items()
        if value.is_floating_point() and (name.startswith(("Q_", "feedback")) or not NETWORK.fullmatch(name))
    }


def is_standard_normal(x_M: Tensor, what: str) -> None:
    """Mean, variance, fourth moment and tails, each within five standard errors."""
    size = len(x_M)
    assert x_M.mean().abs() < 5 / math.sqrt(size), what
    assert (x_M.square().mean() - 1).abs() < 5 * math.sqrt(2 / size), what
    assert (x_M.pow(4).mean() - 3).abs() < 5 * math.sqrt(96 / size), what
    inside = (x_M.abs() < 0.6745).double().mean()
    assert (inside - 0.5).abs() < 5 * 0.5 / math.sqrt(size), what


def built(name: str) -> LocalRule:
    wide = [] if "Vector" in RULES[name].read_text() else ["--model.network.width=40"]
    return from_settings(name, *wide, "--data.v=6", "--data.n=6", seeds=SEEDS)


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_starts_with_is_as_its_file_states(name):
    rule, standard = built(name), {}
    for key, value in own(rule).items():
        given = [make for pattern, make in GIVEN.items() if re.fullmatch(pattern, key)]
        stated = [make for pattern, make in NORMAL.items() if re.fullmatch(pattern, key)]
        if re.search(r"(^|\.)feedback_(weight|projection)_\w+$", key):  # Kolen-Pollack's, beside the weights
            stated = [lambda rule, name, x: rms(rule.get_parameter(name.replace("feedback_", "")))]
        if re.search(r"(^|\.)Q_\w+$", key):
            stated = [lambda rule, name, x: rms(x)]  # its size is that of W P^T, below
        assert len(given) + len(stated) == 1, f"{key} is stated nowhere, or twice"
        if given:
            torch.testing.assert_close(value, given[0](rule, key, value).detach())
        else:
            standard[key] = (value / stated[0](rule, key, value)).double()
    if standard:
        is_standard_normal(torch.cat([x.flatten() for x in standard.values()]), name)
    for key, x in standard.items():
        assert all(not torch.equal(x[0], x[r]) for r in range(1, len(SEEDS))), f"{key}: replicas have the same"
    network = {n: p.detach().double() for n, p in rule.named_parameters() if NETWORK.fullmatch(n)}
    fixed = [f"network.layers.{k}." for k, layer in enumerate(rule.network.layers) if isinstance(layer, CellLayer)]
    apart({**standard, **{n: p for n, p in network.items() if not n.startswith((*fixed,))}})


def apart(drawn: dict[str, Tensor]) -> None:
    """No two matrices are the same numbers, in whatever scale or shape."""
    seen: dict[tuple[float, ...], str] = {}
    for name, x in drawn.items():
        if not x.any() or x[0].numel() < 8:
            continue
        first = x[0].flatten()[:8]
        key = tuple((first / first.norm()).mul(1e4).round().tolist())
        assert key not in seen, f"{name} has the numbers of {seen[key]}"
        seen[key] = name


def test_low_rank_feedback_starts_as_large_as_what_it_learns():
    rule = built("low_rank_feedback")
    for k, name, matrix in rule.carriers():
        product = matrix @ rule.get_buffer(f"P_{k}_{name}").transpose(-1, -2)
        torch.testing.assert_close(rms(rule.parts[k - 1].get_parameter(f"Q_{name}")), rms(product), rtol=0.35, atol=0)


# -------------------------------------------------------------------- noise of a step


def batches(rule: LocalRule, steps: int = 40) -> list[Batch]:
    return [rule.data.train_batch(step) for step in range(steps)]


def test_noise_is_standard_normal_and_new_for_each_string_step_name_and_seed():
    rule = from_settings("node_perturbation", seeds=SEEDS)
    noise = torch.stack([rule.noise(batch, name, (5, 7)) for batch in batches(rule) for name in ("a", "b")]).double()
    is_standard_normal(noise.flatten(), "noise")
    assert len(noise.flatten().unique()) > 0.99 * noise.numel()


def uniform(values_S: Tensor, low: int, high: int) -> None:
    """Integers in ``[low, high)``, all equally often: chi square within five standard deviations."""
    counts = torch.bincount(values_S - low, minlength=high - low).double()
    assert values_S.min() >= low and values_S.max() < high
    expected = len(values_S) / (high - low)
    chi = ((counts - expected) ** 2 / expected).sum()
    free = high - low - 1
    assert abs(chi - free) < 5 * math.sqrt(2 * free) + 5, counts


def test_a_negative_is_any_other_string_and_a_coin_is_fair():
    rule = from_settings("clapp", "--model.both_terms=false", seeds=SEEDS)
    assert isinstance(rule, CLAPP)
    pairs = [rule.pair(rule.compute(batch), k) for batch in batches(rule) for k in (1, 2)]
    uniform(torch.cat([pair.shift_R() for pair in pairs]), 1, 16)
    coins = torch.cat([(rule.weights(pair)[0] > 0).flatten().long() for pair in pairs])
    uniform(coins, 0, 2)


def test_a_wrong_class_is_any_other_class():
    rule = from_settings("forward_forward", seeds=SEEDS)
    assert isinstance(rule, ForwardForward)
    shown, encode = [], rule.network.encode
    rule.network.encode = lambda x_RBD, label=None: (shown.append(label), encode(x_RBD, label))[1]
    steps = batches(rule)
    for batch in steps:
        rule.compute(batch)
    wrong = [(shown[3 * i + 2] - shown[3 * i + 1]) % rule.data.task.n for i in range(len(steps))]
    uniform(torch.cat([x.flatten() for x in wrong]), 1, rule.data.task.n)


def test_fresh_magnitudes_are_half_normal_and_others_at_each_step():
    rule = built("brsf")
    first = rule.magnitude(2, "weight_RGFE") / rule.get_buffer("magnitude_2_weight_RGFE")
    rule.after_step()
    second = rule.magnitude(2, "weight_RGFE") / rule.get_buffer("magnitude_2_weight_RGFE")
    sign = torch.where(torch.arange(first.numel()).view_as(first) % 2 == 0, 1.0, -1.0)
    for x in first, second:
        is_standard_normal((x * sign).double().flatten(), "magnitude")
    assert (first != second).double().mean() > 0.99


def test_keys_of_two_rules_and_names_differ():
    rule = from_settings("dfa", seeds=SEEDS)
    other = from_settings("sign_dfa", seeds=SEEDS)
    keys = [rule.keys_R("feedback", 1), rule.keys_R("feedback", 2), other.keys_R("feedback", 1)]
    assert len(torch.cat(keys).unique()) == 3 * len(SEEDS)
