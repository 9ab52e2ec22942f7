"""The linear probe's callback, on codes whose answer is known.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch

from callbacks import LayerwiseLinearProbe, RunProgress
from callbacks.linear_probe import on_own_level, probe_dictionary
from datamodules import RHMDataModule, SiblingPairs
from networks import DenseNetwork, HierarchicalNetwork, LayerState, LocallyConnectedNetwork
from rhm import InvalidInput, one_hot
from rules.backprop import Backprop
from rules.contrastive import LayerwiseContrastive


def trainer(*callbacks, **kwargs):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"logger": False, "accelerator": "cpu", "max_epochs": -1, "num_sanity_val_steps": 0, **quiet, **kwargs}
    return pl.Trainer(callbacks=list(callbacks), **settings)


class Knows(Backprop):
    """A rule whose layer ``k`` hands on exactly the one-hot symbols of level ``k``."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx, dataloader_idx)
        states = []
        for k in range(1, len(self.network) + 1):
            h = one_hot(batch.derivation.symbols[k], self.network.layers[0].out_channels).float()
            if self.only_noise:
                h = torch.rand_like(h)
            states.append(LayerState(h, h, h, None, h))
        return {"states": states}


def measured(rule, **data):
    settings = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3, "train_size": 64, "test_size": 256, "probe_size": 512, **data}
    probe = LayerwiseLinearProbe()
    trainer(probe).test(rule, RHMDataModule(seeds=[0, 1], **settings), verbose=False)
    return probe


@pytest.mark.parametrize("logistic", [False, True])
def test_a_code_that_is_the_level_reads_one_on_the_diagonal(logistic):
    rule = Knows(HierarchicalNetwork(width=4))
    rule.only_noise = False
    probe = measured(rule)
    table = probe.logistic_KLR if logistic else probe.accuracy_KLR
    assert table.shape == (3, 4, 2)
    for k in range(3):
        assert (table[k, k + 1] == 1).all()
    assert (on_own_level(table, rule.network) == 1).all()
    assert (table[0, 3] < 1).all()  # the class is not in one of four symbols


def test_a_probe_is_not_asked_where_it_is_silent_nor_helped_by_that_most_positions_are():
    """Two thirds of the positions of level 2 are silent, eight ninths of those of level 1: who says so has found nothing."""
    rule = Knows(HierarchicalNetwork(width=5))
    rule.only_noise = False
    probe = measured(rule, silent=2)
    for table in probe.accuracy_KLR, probe.logistic_KLR:
        assert all((table[k, k + 1] == 1).all() for k in range(3))
    ranges = rule.data.probe_range, rule.data.test_range
    fitted, tested = (rule.data.grammar.grammar.sample(torch.arange(*of)) for of in ranges)
    for level in (1, 2, 3):
        for r in range(2):
            commonest = fitted.symbols[level][r].flatten().long().bincount().argmax()
            share = (tested.symbols[level][r] == commonest).double().mean()
            assert math.isclose(float(probe.baseline_KLR[level - 1, level, r]), float(share), rel_tol=1e-6)
    random = Knows(HierarchicalNetwork(width=5))
    random.only_noise = True
    with torch.random.fork_rng():
        torch.manual_seed(0)
        probe = measured(random, silent=2)
    for level in (1, 2, 3):
        assert ((probe.accuracy_KLR[level - 1, level] - probe.baseline_KLR[level - 1, level]).abs() < 0.12).all()
    assert (table[2, 0] < 0.8).all()  # nor eight tokens in a class


@pytest.mark.parametrize("logistic", [False, True])
def test_a_code_without_information_reads_chance(logistic):
    rule = Knows(HierarchicalNetwork(width=4))
    rule.only_noise = True
    probe = measured(rule, test_size=4096, train_size=1, L=4)
    table = probe.logistic_KLR if logistic else probe.accuracy_KLR
    assert ((table - probe.baseline_KLR).abs().nan_to_num(nan=0) < 0.06).all()  # some overfitting, on either side
    for k, level in ((0, 1), (1, 2), (2, 3)):
        # the commonest symbol is all there is to know: at most .5 for four symbols of two rules each, and some overfitting
        assert (table[k, level] < 0.55).all() and (table[k, level] > 0.15).all()


def test_the_baseline_is_the_share_of_the_commonest_symbol_of_the_probes_strings():
    rule = Knows(HierarchicalNetwork(width=4))
    rule.only_noise = True
    probe = measured(rule)
    grammar = rule.data.grammar
    fitted, tested = (grammar.sample(torch.arange(*of)).symbols for of in (rule.data.probe_range, rule.data.test_range))
    for k in (1, 2, 3):
        for level in range(4):
            slots = max(1, 2 ** (k - level))
            for r in range(2):
                before, after = (s[level][r].reshape(-1, slots).long() for s in (fitted, tested))
                right = [float((after[:, j] == before[:, j].bincount().argmax()).float().mean()) for j in range(slots)]
                assert math.isclose(float(probe.baseline_KLR[k - 1, level, r]), sum(right) / slots, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value"), [("ridge", 0), ("ridge", 1e-9), ("ridge", math.nan), ("penalty", -1.0), ("iterations", 0)]
)
def test_penalties_that_cannot_be_solved_are_refused_by_name(setting, value):
    with pytest.raises(InvalidInput, match=f"LayerwiseLinearProbe.{setting}"):
        LayerwiseLinearProbe(**{setting: value})


def test_logistic_probes_that_have_not_converged_say_so(recwarn):
    rule = Knows(HierarchicalNetwork(width=4))
    rule.only_noise = True
    data = RHMDataModule(4, 4, 2, 2, 3, train_size=64, test_size=64, probe_size=64, seeds=[0, 1])
    trainer(LayerwiseLinearProbe(iterations=1)).test(rule, data, verbose=False)
    said = [str(w.message) for w in recwarn if "converged" in str(w.message)]
    assert len(said) == 3 and said[0].startswith("logistic probes of layer 1 have not converged after") and "2 of 2" in said[0]
    recwarn.clear()
    trainer(LayerwiseLinearProbe()).test(rule, data, verbose=False)
    assert not [w for w in recwarn if "converged" in str(w.message)]


@pytest.mark.parametrize(
    "network", [HierarchicalNetwork(8), LocallyConnectedNetwork(8), DenseNetwork(8), HierarchicalNetwork(8, depth=2)]
)
def test_every_network_and_every_number_of_replicas_can_be_probed(network):
    for seeds in ([0], [0, 1, 2]):
        data = RHMDataModule(4, 4, 2, 2, 3, train_size=32, test_size=64, probe_size=64, seeds=seeds, eval_batch_size=24)
        probe, rule = LayerwiseLinearProbe(), Backprop(network)
        trainer(probe, max_steps=4, val_check_interval=2, check_val_every_n_epoch=None).fit(rule, data)
        assert probe.accuracy_KLR.shape == (len(rule.network), 4, len(seeds))
        assert not probe.accuracy_KLR.isnan().any() and probe.logistic_KLR is None
        assert rule.test_accuracy_R.shape == (len(seeds),)
        tables = [probe_dictionary(probe.accuracy_KLR, r) for r in range(len(seeds))]
        assert tables[0]["layer1"].keys() == {"level0", "level1", "level2", "level3"}


def test_probing_changes_nothing_that_is_trained():
    def fit(*callbacks):
        data = RHMDataModule(4, 4, 2, 2, 3, train_size=32, test_size=64, probe_size=64)
        rule = Backprop(HierarchicalNetwork(8))
        trainer(*callbacks, max_steps=6, val_check_interval=2, check_val_every_n_epoch=None).fit(rule, data)
        return rule.state_dict()

    with_probe, without = fit(LayerwiseLinearProbe()), fit()
    assert all(torch.equal(with_probe[name], without[name]) for name in without)


def test_progress_shows_the_loss_of_each_layer_and_the_current_test_accuracy(capsys):
    data = RHMDataModule(4, 4, 2, 2, 3, train_size=32, test_size=64, probe_size=64, pairs=SiblingPairs())
    rule = LayerwiseContrastive(HierarchicalNetwork(8, bottleneck=4))
    trainer(
        RunProgress(plain_seconds=0), enable_progress_bar=True, max_steps=4, val_check_interval=2, check_val_every_n_epoch=None
    ).fit(rule, data)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("LayerwiseContrastive")]
    assert [line.split()[2] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(name in line for line in lines for name in ("layer1 ", "layer2 ", "readout "))
    assert "test accuracy" not in lines[0] and "test accuracy" in lines[2]


def test_test_accuracy_is_the_share_of_right_answers_of_each_replica():
    data = RHMDataModule(4, 4, 2, 2, 3, train_size=64, test_size=60, probe_size=64, seeds=[0, 1, 2], eval_batch_size=16)
    rule = Backprop(HierarchicalNetwork(8))
    t = trainer(max_steps=60, limit_val_batches=0)
    t.fit(rule, data)
    t.test(rule, data, verbose=False)
    derivation = data.grammar.sample(torch.arange(*data.test_range))
    with torch.no_grad():
        logits = rule.readout(rule(derivation.x_RBD)[-1].out_RBDC, derivation.y_RB).logits_RBN
    for r in range(3):
        right = sum(int(logits[r, b].argmax()) == int(derivation.y_RB[r, b]) for b in range(60))
        assert math.isclose(float(rule.test_accuracy_R[r]), right / 60, rel_tol=1e-6)
