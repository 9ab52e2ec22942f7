"""A rule that breaks the contract in one way is found by the check of that name, and by no other.

Shape suffixes: R replica, B batch, N classes.
"""

from __future__ import annotations

import pytest
import torch

from datamodules import ClassPairs
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules import Locality, LocalRule, Updates, check_rule
from rules.backprop import Backprop
from rules.checking import ContractBroken
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment
from rules.forward_dfa import ForwardDirectFeedback
from rules.local_cross_entropy import LocalCrossEntropy

SMALL = {"network": HierarchicalNetwork(width=8)}
CHECKS = ["contract", "asking"]
CHECKS += [f"locality.{name}" for name in ("label", "error", "scalar_error", "other_layers", "lateral", "batch", "partner")]
CHECKS += ["knowledge", "replicas", "training", "resume", "copies"]


@pytest.mark.parametrize(
    ("rule", "more"),
    [(DirectFeedbackAlignment, {}), (LayerwiseContrastive, {"temperature": 0.5}), (ForwardDirectFeedback, {})],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_right_rule_passes_all_checks(rule, more):
    findings = check_rule(rule, {**SMALL, **more})
    assert [finding.check for finding in findings] == CHECKS and all(finding.ok for finding in findings)
    assert torch.get_default_dtype() == torch.float32


def times(updates: Updates, factor: float) -> Updates:
    layers = [{name: factor * grad for name, grad in layer.items()} for layer in updates.layers]
    return Updates(layers, updates.estimates, updates.losses)


class NoParameter(DirectFeedbackAlignment):
    def layer_updates(self, step):
        said = super().layer_updates(step)
        said.layers[1]["wieght"] = said.layers[1].pop("weight_RGFE")
        return said


class NoBuffer(DirectFeedbackAlignment):
    def layer_updates(self, step):
        return Updates(super().layer_updates(step).layers, {"mean_1": step.readout.error_RBN})


class Noisy(DirectFeedbackAlignment):
    def layer_updates(self, step):
        return times(super().layer_updates(step), 1 + torch.rand(()).item())


class LeavesSomething(DirectFeedbackAlignment):
    def layer_updates(self, step):
        self.feedback_1 += 1e-3
        return super().layer_updates(step)


class LooksAtLabels(DirectFeedbackAlignment):
    def layer_updates(self, step):
        share_R = (step.batch.y_RB[:, :3] == 0).double().mean(1).view(-1, 1, 1, 1)
        said = super().layer_updates(step)
        return Updates([{name: grad * (1 + share_R) for name, grad in layer.items()} for layer in said.layers])


class SaysNoError(DirectFeedbackAlignment):
    locality = Locality()


class SaysLoss(DirectFeedbackAlignment):
    locality = Locality(error=True, scalar_error=True)


class SaysNoOtherLayers(Backprop):
    locality = Locality(error=True)


class SaysNoLateral(LocalCrossEntropy):
    def __init__(self, network, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)):
        super().__init__(network, optimizer)
        self.locality = Locality(label=True, transport_within_layer=True)


class SaysNoBatch(LayerwiseContrastive):
    def __init__(self, network):
        super().__init__(network)
        self.locality = Locality(partner=True, lateral=True)


class SaysNoPartner(LayerwiseContrastive):
    def __init__(self, network):
        super().__init__(network)
        self.locality = Locality(batch=True, lateral=True)


class SaysNothingIsKnown(DirectFeedbackAlignment):
    knowledge = "none"


class MeanOverReplicas(DirectFeedbackAlignment):
    def layer_updates(self, step):
        return times(super().layer_updates(step), 1 / len(step.batch.y_RB))


class LeavesALayer(DirectFeedbackAlignment):
    def layer_updates(self, step):
        said = super().layer_updates(step)
        said.layers[1].clear()
        return said


class Counts(DirectFeedbackAlignment):
    """Steps are counted outside of what a checkpoint has."""

    steps = 0

    def layer_updates(self, step):
        return times(super().layer_updates(step), 1 / (1 + self.steps))

    def after_step(self):
        self.steps += 1


class HasNoPickle(DirectFeedbackAlignment):
    def build(self):
        super().build()
        self.own = lambda: None


WRONG = {
    NoParameter: ("contract", "wieght of layer 2"),
    NoBuffer: ("contract", "a rate of 0"),
    Noisy: ("asking", "two answers for layers 1, 2, 3"),
    LeavesSomething: ("asking", "it changes feedback_1"),
    LooksAtLabels: ("locality.label", "False, but updates depend on it"),
    SaysNoError: ("locality.error", "False, but updates of layers 1, 2, 3 depend on it"),
    SaysLoss: ("locality.scalar_error", "True, but updates of layers 1, 2, 3 do not depend on it"),
    SaysNoOtherLayers: ("locality.other_layers", "False, but updates depend on it"),
    SaysNoLateral: ("locality.lateral", "False, but updates depend on it"),
    SaysNoBatch: ("locality.batch", "False, but updates depend on it"),
    SaysNoPartner: ("locality.partner", "False, but updates depend on it"),
    SaysNothingIsKnown: ("knowledge", "is another with other labels"),
    MeanOverReplicas: ("replicas", "of seed 5 is another beside seeds (5, 0, 9) than alone"),
    LeavesALayer: ("training", "layer 2 is trained by rule, but nothing of it moves"),
    Counts: ("resume", "not as without a stop"),
    HasNoPickle: ("copies", "the trained rule has no pickle: "),
}
ALSO = {
    LooksAtLabels: {"locality.batch"},  # a share of the batch's first strings
    Noisy: {"replicas", "resume", "copies"},
    LeavesSomething: {"copies"},
    SaysNoLateral: {"locality.partner"},  # as positions share weights
}
"""What else a mistake breaks."""


@pytest.mark.parametrize("rule", WRONG, ids=lambda rule: rule.__name__)
def test_a_wrong_rule_is_found_by_the_check_of_its_mistake(rule):
    findings = {finding.check: finding.found for finding in check_rule(rule, SMALL, raises=False) if not finding.ok}
    check, text = WRONG[rule]
    assert findings.keys() == {check, *ALSO.get(rule, ())}, findings
    assert text in findings[check]


def test_all_that_is_found_is_raised_with_a_line_for_each_check():
    class Two(SaysNoError, LeavesALayer):
        pass

    with pytest.raises(ContractBroken) as broken:
        check_rule(Two, SMALL)
    assert isinstance(broken.value, AssertionError)
    first, *lines = str(broken.value).splitlines()
    assert first == f"Two fails {len(lines)} of 14 checks:"
    assert {"locality.error", "training"} <= {line.split(":")[0] for line in lines}


def test_an_error_in_a_step_is_told_with_its_place():
    class Raises(DirectFeedbackAlignment):
        def layer_updates(self, step):
            raise KeyError("depth")

    (only,) = check_rule(Raises, SMALL, raises=False)
    assert only.check == "contract" and only.found.startswith("KeyError: 'depth' (test_checking.py, line ")


def test_what_a_rule_refuses_is_no_finding():
    with pytest.raises(InvalidInput, match=r"model\.feedback_scale"):
        check_rule(DirectFeedbackAlignment, {"feedback_scale": -1.0})
    with pytest.raises(InvalidInput, match="data.labels: got False"):
        check_rule(LayerwiseContrastive, SMALL, data={"pairs": ClassPairs(), "labels": False})


def test_settings_and_data_are_those_that_are_given():
    seen = []

    class Looks(LocalRule):
        knowledge, locality, uses_pairs = "labels", Locality(), True

        def check_data(self):
            seen.append((type(self.data.pairs), self.data.task.L, self.network_config.width))
            raise InvalidInput("data", "enough", "nothing")

        def layer_updates(self, step):
            return Updates([])

    with pytest.raises(InvalidInput):
        check_rule(Looks, SMALL, data={"pairs": ClassPairs(), "L": 2, "m": 4})
    assert seen == [(ClassPairs, 2, 8)]
