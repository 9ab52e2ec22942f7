"""What holds for every rule: each settings file in ``configs/rules`` is a case, so a new rule is proved as soon as it lies there.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import RULES, compute, copied, from_settings, same, train, updates
from rules.layerwise import LayerwiseRule

from datamodules import ClassPairs, HalfPairs, SynonymPairs
from rhm import InvalidInput
from rules import LocalRule, Step


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -------------------------------------------------------------------- locality


@torch.no_grad()
def with_other_labels(rule: LocalRule, step: Step) -> Step:
    """The same strings, shown with one another's classes."""
    return rule.compute(step.batch._replace(y_RB=step.batch.y_RB.roll(1, 1)))


@torch.no_grad()
def with_other_output(rule: LocalRule, step: Step) -> Step:
    """The same strings and classes, after which the network has answered something else."""
    other = copied(rule)
    answer = other.readout.forward

    def changed(out_RBDC, y_RB):
        state = answer(out_RBDC, y_RB)
        return state._replace(
            logits_RBN=state.logits_RBN.flip(-1), error_RBN=state.error_RBN.flip(-1), loss_RB=state.loss_RB.roll(1, 1)
        )

    other.readout.forward = changed
    return other.compute(step.batch)


def scrambled(state):
    return type(state)(*(None if t is None else t.flip(-1) * 1.5 + 0.1 for t in state))


def with_other_layers(rule: LocalRule, step: Step, keep: int) -> Step:
    """States, weights and heads of all layers but one, and the readout's weights, changed."""

    def change(states):
        return None if states is None else [s if j == keep else scrambled(s) for j, s in enumerate(states)]

    with torch.no_grad():
        for j, module in enumerate(rule.parts):
            if j != keep:
                for parameter in module.parameters():
                    parameter.mul_(-0.5).add_(0.1)
    return step._replace(states=change(step.states), view_states=change(step.view_states))


def with_another_partner(step: Step, k: int, halves: bool) -> Step:
    """The partners of all strings exchanged between the strings, in layer ``k``."""
    states = list(step.states if step.view_states is None else step.view_states)
    out = states[k].out_RBDC.clone()
    if step.view_states is not None:
        out = out.roll(1, 1)
    elif halves:
        out[..., : out.shape[-1] // 2] = out[..., : out.shape[-1] // 2].roll(1, 1)
    else:
        out[:, :, ::2] = out[:, :, ::2].roll(1, 1)
    states[k] = states[k]._replace(out_RBDC=out)
    return step._replace(states=states) if step.view_states is None else step._replace(view_states=states)


def part(rule: LocalRule, step: Step, start: int, stop: int):
    batch = step.batch
    view = None if batch.view_RBD is None else batch.view_RBD[:, start:stop]
    batch = batch._replace(
        x_RBD=batch.x_RBD[:, start:stop], y_RB=batch.y_RB[:, start:stop], view_RBD=view, key_RB=batch.key_RB[:, start:stop]
    )
    with torch.no_grad():
        return updates(rule, rule.compute(batch))


def strings_add_up(rule: LocalRule, step: Step) -> bool:
    """Whether a batch's update is the mean of its halves'. Noise that is drawn once a batch is made the same in both."""
    key_RB = step.batch.key_RB.clone()
    key_RB[:, 8] = key_RB[:, 0]
    step = step._replace(batch=step.batch._replace(key_RB=key_RB))
    whole, first, second = (part(rule, step, *cut) for cut in ((0, 16), (0, 8), (8, 16)))
    return all(
        torch.allclose(update[name], (a[name] + b[name]) / 2, rtol=1e-9, atol=1e-12)
        for update, a, b in zip(whole, first, second, strict=True)
        for name in update
    )


@pytest.mark.parametrize("name", RULES)
def test_an_update_depends_on_what_its_locality_allows_and_on_nothing_else(name):
    rule = from_settings(name)
    step, locality = compute(rule), rule.locality
    state = {key: value.clone() for key, value in rule.state_dict().items()}
    before = updates(rule, step)
    assert same(before, updates(rule, compute(rule))) == [True] * len(before), "the same step twice, two updates"
    assert all(torch.equal(value, state[key]) for key, value in rule.state_dict().items()), "asking changed the rule"
    learning = [any(bool(grad.any()) for grad in update.values()) for update in before]
    assert any(learning) != (name == "frozen")

    unmoved = same(before, updates(rule, with_other_labels(rule, step)))
    assert all(unmoved) != (locality.label or locality.output_error), unmoved
    unmoved = same(before, updates(rule, with_other_output(rule, step)))
    assert unmoved == [not (moves and locality.output_error) for moves in learning]
    unmoved = []
    for k in range(len(before)):
        other = copied(rule)
        unmoved.append(same(before, updates(other, with_other_layers(other, step, keep=k)))[k])
    assert all(unmoved) != locality.other_layers, unmoved

    interacting = not strings_add_up(rule, step)
    assert locality.pair or not interacting
    if locality.pair and not interacting:
        partners = [same(before, updates(rule, with_another_partner(step, k, False)))[k] for k in range(len(before))]
        assert not any(partners), partners


SIBLINGS_ONLY = ["code_prediction"]
LAYERWISE = [name for name, path in RULES.items() if "pairs:" in path.read_text() and name not in SIBLINGS_ONLY]


@pytest.mark.parametrize("pairs", ["ClassPairs", "HalfPairs"])
@pytest.mark.parametrize("name", SIBLINGS_ONLY)
def test_a_rule_for_siblings_refuses_other_pairs(name, pairs):
    with pytest.raises(InvalidInput, match="allowed: SiblingPairs"):
        from_settings(name, f"--data.pairs={pairs}")


@pytest.mark.parametrize("pairs", [ClassPairs(), SynonymPairs(2), HalfPairs()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", LAYERWISE)
def test_a_rule_for_pairs_takes_every_kind_of_pair(name, pairs):
    rule = from_settings(name, f"--data.pairs={type(pairs).__name__}", *(["--data.pairs.level=2"] * (hasattr(pairs, "level"))))
    assert rule.supervision in (pairs.knowledge, "labels") and isinstance(rule, LayerwiseRule)
    step = compute(rule)
    for update in updates(rule, step):
        for key, grad in update.items():
            assert torch.isfinite(grad).all() and grad.any(), key


# -------------------------------------------------------------------- replicas and precision


@pytest.mark.parametrize("name", RULES)
def test_a_replica_of_three_trains_as_it_would_alone(name):
    together = train(from_settings(name, "--model.clip=0.1", seeds=(5, 0, 9)))
    for r, seed in enumerate((5, 0, 9)):
        alone = train(from_settings(name, "--model.clip=0.1", seeds=(seed,)))
        for key, value in alone.items():
            if not key.startswith("accuracy"):
                torch.testing.assert_close(together[key][r : r + 1], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_bf16_mixed_follows_float32(name):
    torch.set_default_dtype(torch.float32)
    start = {key: value.clone() for key, value in from_settings(name).state_dict().items()}
    single = train(from_settings(name), steps=1, precision="32-true")
    mixed = train(from_settings(name), steps=1, precision="bf16-mixed")
    for key, value in single.items():
        assert mixed[key].dtype == value.dtype and torch.isfinite(mixed[key]).all(), key
    moved = [key for key in start if "weight" in key and not torch.equal(single[key], start[key])]
    change = [torch.cat([(state[key] - start[key]).flatten() for key in moved]) for state in (single, mixed)]
    assert torch.cosine_similarity(*change, dim=0) > 0.8


@pytest.mark.parametrize("network", ["LocallyConnectedNetwork", "DenseNetwork"])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_runs_on_other_networks_or_says_why_not(name, network):
    try:
        rule = from_settings(name, f"--model.network={network}")
    except (InvalidInput, ValueError) as error:
        assert "allowed: " in str(error)
        return
    for update in updates(rule, compute(rule)):
        assert all(torch.isfinite(grad).all() for grad in update.values())


@pytest.mark.parametrize("name", RULES)
def test_a_batch_of_one_is_refused_by_rules_that_compare_strings_and_learned_from_by_others(name):
    one = "--data.batch_size=1"
    if from_settings(name).compares_strings:
        with pytest.raises(InvalidInput, match="data.batch_size: got 1, allowed: at least 2"):
            from_settings(name, one)
        return
    rule = from_settings(name, one)
    trained = train(rule, steps=2)
    assert all(value.isfinite().all() for value in trained.values()) and not rule.diverged_R.any()
    fresh = from_settings(name, one).state_dict()
    moved = [key for key in fresh if key.startswith("network.") and (trained[key] != fresh[key]).any()]
    assert bool(moved) == (name != "frozen")


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"gevb"}))  # vector units have no bottleneck
def test_codes_are_refused_before_the_first_step_or_learned_through(name):
    codes = "--model.network.bottleneck=3", "--model.network.codebooks=2"
    try:
        rule = from_settings(name, *codes)
    except ValueError as refusal:  # one of ours, or with one of ours inside, from a constructor
        assert "model.network" in str(refusal) and "allowed:" in str(refusal)
        return
    assert rule.takes_codes
    train(rule, steps=2)


def test_one_weight_that_is_not_finite_marks_its_replica_and_no_other():
    rule = from_settings("backprop")
    assert not rule.diverged_R.any()
    with torch.no_grad():
        rule.network.layers[1].weight_RGFE[1, 0, 2, 3] = torch.inf
    assert rule.diverged_R.tolist() == [False, True, False]
