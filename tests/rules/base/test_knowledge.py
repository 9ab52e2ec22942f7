"""What a rule says that it learns from is what it learns from.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import RULES, every, from_settings, make_data, train

from datamodules import SiblingPairs, SynonymPairs
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules import Locality, LocalRule, Updates
from rules.backprop import Backprop
from rules.base.knowledge import differ
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment
from rules.forward_dfa import ForwardDirectFeedback
from rules.local_cross_entropy import LocalCrossEntropy
from rules.supervised_contrastive import SupervisedContrastive


def saying(kind: type[LocalRule], word: str) -> LocalRule:
    """A rule whose class says something else."""
    return type(f"My{kind.__name__}", (kind,), {"knowledge": word})(HierarchicalNetwork(12)).prepare(make_data())


SUPERVISED = [Backprop, DirectFeedbackAlignment, LocalCrossEntropy, SupervisedContrastive]


@pytest.mark.parametrize("kind", SUPERVISED)
@pytest.mark.parametrize("word", ["none", "grammar"])
def test_a_rule_that_learns_from_labels_and_says_that_it_does_not_is_found(kind, word):
    rule = saying(kind, word)
    with pytest.raises(
        InvalidInput, match=f"My{kind.__name__}.knowledge: got {word}, but .* with other labels, allowed: labels"
    ):
        train(rule, 1, precision="32-true")
    saying(kind, "labels").check_knowledge()


def test_a_tracked_buffer_that_depends_on_labels_is_found():
    class Tracked(ForwardDirectFeedback):
        knowledge = "none"

        def layer_updates(self, step):
            error_RBN = step.readout.error_RBN
            tracked = {"feedback_1": self.feedback(1) * 0 + error_RBN.mean()}
            return Updates([{} for _ in self.network.layers], tracked)

    with pytest.raises(InvalidInput, match="the estimate of feedback_1 is another with other labels"):
        Tracked(HierarchicalNetwork(12)).prepare(make_data()).check_knowledge()


class LooksAt(LocalRule):
    """Learns from what a test says."""

    knowledge, locality = "none", Locality()

    def seen(self, batch):
        return batch.derivation.symbols[1].double().mean((1, 2))

    def layer_updates(self, step):
        seen_R = self.seen(step.batch)
        return Updates([{"bias_RG1E": layer.bias_RG1E + seen_R.view(-1, 1, 1, 1)} for layer in self.network.layers])


def test_a_rule_that_looks_at_hidden_symbols_says_so():
    class Grammar(LooksAt):
        knowledge = "grammar"

        def seen(self, batch):
            return (batch.derivation.symbols[1][:, :1] * 1.0).mean((1, 2))

    class Nothing(Grammar):
        knowledge = "none"

    Grammar(HierarchicalNetwork(12)).prepare(make_data()).check_knowledge()
    with pytest.raises(InvalidInput, match="other hidden symbols, allowed: grammar"):
        Nothing(HierarchicalNetwork(12)).prepare(make_data()).check_knowledge()


def test_noise_is_not_taken_for_knowledge_and_random_states_stay():
    class Noisy(LooksAt):
        def seen(self, batch):
            return torch.rand(batch.x_RBD.shape[0])

    rule = Noisy(HierarchicalNetwork(12)).prepare(make_data())
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in rule.state_dict().items()}
    rule.check_knowledge()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in rule.state_dict().items())


def test_a_change_counts_from_ten_times_what_the_same_question_changes():
    first, again = torch.tensor([1.0, 5.0]), torch.tensor([1.1, 5.0])
    assert differ(first, again, torch.tensor([1.0, 6.1])) and not differ(first, again, torch.tensor([1.0, 5.9]))
    assert differ(first, first, again) and not differ(first, first, first)


def test_a_rule_that_keeps_something_is_asked_on_a_copy():
    class Counts(LooksAt):
        def build(self):
            self.register_buffer("asked", torch.zeros(()))

        def seen(self, batch):
            self.asked += 1
            return self.asked.expand(batch.x_RBD.shape[0])

    rule = Counts(HierarchicalNetwork(12)).prepare(make_data())
    rule.check_knowledge()
    assert rule.asked == 0


@pytest.mark.parametrize("name", every(3, RULES))
def test_every_settings_file_says_what_it_learns_from(name):
    from_settings(name).check_knowledge()


@pytest.mark.parametrize("word", [None, "nothing", "label"])
def test_a_rule_that_says_nothing_is_refused_when_it_is_made(word):
    class Silent(LocalRule):
        locality = Locality()

        def layer_updates(self, step):
            return Updates([])

    if word is not None:
        Silent.knowledge = word
    with pytest.raises(InvalidInput) as error:
        Silent()
    assert error.value.key == "Silent.knowledge" and "one of none, grammar, labels" in error.value.allowed


def test_a_rule_on_pairs_that_adds_labels_learns_from_labels():
    class Adds(LayerwiseContrastive):
        def __init__(self, network):
            super().__init__(network)
            self.knowledge = "labels"

    network = HierarchicalNetwork(12)
    for kind, pairs, says in (
        (LayerwiseContrastive, SiblingPairs(), "none"),
        (LayerwiseContrastive, SynonymPairs(2), "grammar"),
        (Adds, SiblingPairs(), "labels"),
        (Adds, SynonymPairs(2), "labels"),
    ):
        assert kind(network).prepare(make_data(pairs)).supervision == says


BY = {
    "backprop": ["rule"] * 3 + ["labels"],
    "frozen": ["nothing"] * 3 + ["labels"],
    "sibling_contrastive": ["rule", "rule", "labels", "labels"],
    "local_expansion": ["rule", "rule", "nothing", "labels"],
    "exchange_clustering": ["rule", "rule", "labels", "labels"],
    "class_contrastive": ["rule"] * 3 + ["labels"],
}


@pytest.mark.parametrize("name", BY)
def test_what_trains_a_layer_is_what_gives_it_gradients(name):
    """With labels and without."""
    rule = from_settings(name)
    assert rule.trained_by == BY[name]
    for labels in (True, False) if rule.supervision != "labels" else (True,):
        rule = from_settings(name, f"--data.labels={str(labels).lower()}")
        with torch.no_grad():
            found = rule.updates(rule.compute(rule.data.train_batch(0)))
            alone = rule.layer_updates(rule.compute(rule.data.train_batch(0))).layers
        learns = [bool(update) for update in found.layers]
        assert len(alone) == rule.trained_by.count("rule")
        if name != "exchange_clustering":  # which has no gradients
            assert learns == [by != "nothing" for by in rule.trained_by]
        assert labels or "labels" not in rule.trained_by
