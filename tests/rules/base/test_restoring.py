"""A rule from a checkpoint, a copy and a pickle answers as the one that was trained."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from rule_helpers import RULES, from_settings, make_data, quiet_trainer, same, train

from datamodules import HalfPairs, SynonymPairs
from networks import DenseNetwork, HierarchicalNetwork, NetworkConfig, VectorNetwork
from rhm import InvalidInput
from rules import LocalRule, checking
from rules.backprop import Backprop
from rules.base.block import Block
from rules.contrastive import LayerwiseContrastive
from rules.mask_ladder import MaskLadder
from rules.softhebb import SoftHebb


def saved(rule: LocalRule, path, precision="32-true", **settings) -> str:
    trainer = quiet_trainer(max_steps=2, precision=precision)
    trainer.fit(rule, rule.data)
    trainer.save_checkpoint(path / "a.ckpt", **settings)
    return str(path / "a.ckpt")


def alike(one: LocalRule, other: LocalRule) -> bool:
    x_RBD = one.data.train_batch(5).x_RBD
    assert torch.equal(x_RBD, other.data.train_batch(5).x_RBD)
    return all(torch.equal(a.out_RBDC, b.out_RBDC) for a, b in zip(one(x_RBD), other(x_RBD), strict=True))


MADE = {
    "positional": lambda: Backprop(HierarchicalNetwork(width=12, bottleneck="v")).prepare(make_data()),
    "default network": lambda: Backprop().prepare(make_data(seeds=(3,), train_size=20, labels=True, eval_batch_size=7)),
    "vector units": lambda: Backprop(network=VectorNetwork(width=5)).prepare(make_data()),
    "block, pairs": lambda: LayerwiseContrastive(
        HierarchicalNetwork(12), block=Block(head=5, separate_heads=True), temperature=0.5
    ).prepare(make_data(SynonymPairs(2))),
    "another attribute": lambda: MaskLadder(DenseNetwork(12), masks="none", feedback="direct").prepare(make_data()),
    "label sizes": lambda: LayerwiseContrastive(HierarchicalNetwork(12)).prepare(
        make_data(HalfPairs(), train_size=[32, 64], label_size=[8, 16])
    ),
}


@pytest.mark.parametrize("case", MADE)
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_gives_back_the_rule_that_was_trained(case, weights_only, tmp_path):
    rule = MADE[case]()
    other = type(rule).load_from_checkpoint(saved(rule, tmp_path, weights_only=weights_only), map_location="cpu")
    assert alike(rule, other) and not other.training
    with torch.no_grad():
        batch = rule.data.train_batch(2)
        assert all(same(rule.updates(rule.compute(batch)).layers, other.updates(other.compute(batch)).layers))


def test_a_share_of_the_replicas_in_double_precision_is_given_back(tmp_path):
    data = make_data(train_size=[32, 64])
    data.keep_share(1, 4)
    rule = Backprop(HierarchicalNetwork(12)).prepare(data)
    other = Backprop.load_from_checkpoint(saved(rule, tmp_path, "64-true"))
    assert other.data.replica_seeds == data.replica_seeds and other.data.replica_sizes == data.replica_sizes
    assert other.readout.weight_RFN.dtype == torch.float64 and alike(rule, other)


@pytest.mark.parametrize("name", RULES)
def test_what_a_settings_file_builds_is_said_in_its_checkpoint(name):
    rule, content = from_settings(name), {}
    rule.on_save_checkpoint(content)
    assert not content["made_with"]["unsaid"] and content["made_with"]["data"]
    assert set(content["made_with"]["arguments"]) == set(rule.given) - {"optimizer"}


def test_a_loaded_rule_has_no_optimizer_but_the_one_that_it_is_given(tmp_path):
    path = saved(MADE["positional"](), tmp_path)
    with pytest.raises(InvalidInput, match=r"rule\.optimizer: got none"):
        train(Backprop.load_from_checkpoint(path), 1, precision="32-true")
    train(Backprop.load_from_checkpoint(path, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)), 1, precision="32-true")


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path):
    path = saved(MADE["positional"](), tmp_path)
    content = torch.load(path)
    del content["made_with"]
    torch.save(content, old := tmp_path / "old.ckpt")
    (broken := tmp_path / "broken.ckpt").write_text("no checkpoint")
    for kind, file, key in (
        (SoftHebb, path, "one of SoftHebb"),
        (Backprop, old, r"network=..., datamodule=..."),
        (Backprop, broken, "a file that a trainer has written"),
        (Backprop, tmp_path / "none.ckpt", "a file that a trainer has written"),
    ):
        with pytest.raises(InvalidInput) as error:
            kind.load_from_checkpoint(file)
        assert key in error.value.allowed and "\n" not in str(error.value)
    network = HierarchicalNetwork(width=12, bottleneck="v")
    assert alike(
        Backprop.load_from_checkpoint(path), Backprop.load_from_checkpoint(old, network=network, datamodule=make_data())
    )
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        Backprop().load_from_checkpoint(path)


class Secretive(HierarchicalNetwork):
    """Does not keep its argument."""

    def __init__(self, units: int = 12):
        super().__init__(units)


def test_an_argument_that_the_checkpoint_does_not_say_is_asked_for(tmp_path):
    rule = Backprop(network=Secretive()).prepare(make_data())
    path = saved(rule, tmp_path)
    with pytest.raises(InvalidInput, match=r"load_from_checkpoint\(path, network=\.\.\.\)"):
        Backprop.load_from_checkpoint(path)
    assert alike(rule, Backprop.load_from_checkpoint(path, network=Secretive()))


@pytest.mark.parametrize("name", ["dfa", "gevb", "low_rank_feedback", "exchange_clustering", "label_context"])
def test_a_copy_and_a_pickle_of_a_trained_rule_say_what_it_says(name):
    assert not checking.copies(from_settings(name))


def test_a_copy_shares_its_data_and_a_pickle_has_its_own():
    rule = from_settings("dfa")
    assert copy.deepcopy(rule).data is rule.data and pickle.loads(pickle.dumps(rule)).data is not rule.data


def test_the_default_optimizer_comes_back_from_a_pickle():
    rule = pickle.loads(pickle.dumps(Backprop(HierarchicalNetwork(12)))).prepare(make_data())
    assert rule.configure_optimizers().defaults["lr"] == 1e-3


def test_two_rules_do_not_share_the_settings_of_their_network():
    one, other = Backprop(), Backprop()
    assert type(one.network_config) is HierarchicalNetwork and isinstance(one.network_config, NetworkConfig)
    one.network_config.width = 3
    assert other.network_config.width == 256


@pytest.mark.parametrize("name", ["trained_layers", "trained_by", "diverged_R", "network", "readout", "data"])
def test_a_rule_without_data_says_that_it_must_be_prepared(name):
    with pytest.raises(InvalidInput, match="a rule without a network"):
        getattr(Backprop(), name)
    with pytest.raises(InvalidInput, match="a rule without a network"):
        Backprop()(torch.zeros(1, 1, 8))
    assert not hasattr(Backprop(), "network")
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = Backprop().prepare(make_data()).nothing_of_the_kind
