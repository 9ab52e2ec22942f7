"""Several ranks that share a batch learn what one rank learns from all of it: each settings file in ``configs/rules`` is a case."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from rule_helpers import RULES, every, from_settings, train

from callbacks.rank_drift import RankDriftCheck, fingerprint
from rules import LocalRule
from rules.backprop import Backprop

STEPS = 3
"""Of each rule: what ranks do not share shows after one, and in an optimizer's moments after two."""


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def on_two_ranks(rule: LocalRule, precision: str = "64-true", **kwargs) -> dict[str, torch.Tensor]:
    """The state after some steps on two processes; a child's traceback is raised here, and so is a difference of ranks."""
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork")
    return train(rule, precision=precision, devices=2, strategy=strategy, callbacks=[RankDriftCheck(every=1)], **kwargs)


def learned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("accuracy")}


def check(name: str, *args: str, steps: int = STEPS) -> None:
    start = copy.deepcopy(from_settings(name, *args).state_dict())
    one = learned(train(from_settings(name, *args), steps=steps))
    two = learned(on_two_ranks(from_settings(name, *args), steps=steps))
    assert any(not torch.equal(one[key], start[key]) for key in one)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", every(6, RULES))
def test_two_ranks_end_with_the_weights_of_one(name):
    check(name, "--model.clip=0.1")


def test_two_ranks_return_to_a_layer_with_the_counts_of_both():
    check("exchange_clustering_label", "--model.turn=2", "--model.returns=1", steps=8)


OTHERWISE = {
    "vicreg": ["--data.pairs=ClassPairs"],
    "lpl": ["--model.form=autograd", "--model.block.expansion=local"],
    "clapp": ["--model.retrodiction=true", "--model.both_terms=false"],
    "clapp_pp": ["--model.context=top", "--data.pairs=ClassPairs"],
    "scff": ["--data.pairs=ClassPairs"],
    "simsiam": ["--model.block.expansion=random"],
    "exchange_clustering_label": ["--model.one_by_one=false"],
    "label_context": ["--model.network=LocallyConnectedNetwork"],
    "supervised_contrastive": ["--model.network=DenseNetwork"],
    "low_rank_feedback": ["--model.network=LocallyConnectedNetwork"],
    "end_to_end_contrastive": ["--data.pairs=HalfPairs"],
}


@pytest.mark.parametrize("pairs", ["RandomHalfPairs", "MaskedPairs"])
def test_two_ranks_draw_the_same_halves(pairs):
    check("clapp", f"--data.pairs={pairs}")


@pytest.mark.chaos  # each file as it is: above
@pytest.mark.parametrize("name", OTHERWISE)
def test_two_ranks_end_with_the_weights_of_one_with_other_settings(name):
    check(name, *OTHERWISE[name])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("masks", ["batch_mean", "other_string", "constant"])
def test_two_ranks_meet_the_masks_of_all_strings(masks, activation):
    check("mask_ladder", f"--model.masks={masks}", f"--model.network.activation={activation}")


@pytest.mark.parametrize("name", ["sibling_contrastive", "lpl", "kolen_pollack", "similarity_matching"])
def test_two_ranks_run_in_mixed_precision(name):
    torch.set_default_dtype(torch.float32)
    start = from_settings(name).state_dict()
    for key, value in on_two_ranks(from_settings(name), precision="bf16-mixed", steps=2).items():
        assert value.dtype == start[key].dtype and torch.isfinite(value).all(), key


class Drifting(Backprop):
    """One rank goes its own way."""

    def after_step(self) -> None:
        if self.data.rank == 1 and self.trainer.global_step == 2:
            self.readout.bias_R1N.data += 1e-12


def test_a_rank_that_drifts_is_found():
    data = from_settings("backprop").data
    with pytest.raises(Exception, match="ranks differ after step 2: readout.bias_R1N"):
        on_two_ranks(Drifting().prepare(data))


def test_a_fingerprint_sees_every_bit_and_its_place():
    x = torch.arange(6.0).view(2, 3)
    y = x.clone()
    y[1, 2] += 1e-15
    assert (
        fingerprint(x) == fingerprint(x.clone())
        and fingerprint(x) != fingerprint(y)
        and fingerprint(x) != fingerprint(x.flip(1))
    )
