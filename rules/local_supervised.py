"""Layerwise supervised controls: each layer has the labels, and nothing passes between layers.

Shape suffixes: R replica, B batch, D position, C channel, F all channels of a layer, N classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import LayerUpdate
from rhm import InvalidInput
from rhm.hashing import normal
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.losses import cross_entropy, similarity_matrix, supervised_contrastive


class LocalLabelLoss(LocalRule):
    """A loss of the layer's whole output and the labels, at every layer, through a linear head that is not handed on."""

    family = "supervised layerwise"
    knowledge = "labels"

    @abstractmethod
    def head_width(self) -> int:
        """Outputs of a layer's head."""

    @abstractmethod
    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        """A layer's loss ``[R]`` for the head's output, the layer's output and the classes; differentiable."""

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            inputs = self.network.positions[k - 1] * layer.out_channels
            matrix = normal(self.keys_R("head", k), (inputs, self.head_width())) / math.sqrt(inputs)
            layer.register_parameter("label_head_RFE", nn.Parameter(matrix.to(torch.get_default_dtype())))

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        updates, compares = [], self.locality.pair
        outs = [state.out_RBDC for state in step.states]
        outs = self.strings_of_all_ranks(outs) if compares else outs
        y_RB = self.batch_of_all_ranks(step.batch).y_RB if compares else step.batch.y_RB
        for k, (layer, state, seen) in enumerate(zip(self.network.layers, step.states, outs, strict=True), 1):
            head = layer.get_parameter("label_head_RFE")
            with torch.enable_grad():
                out = seen.detach().to(head.dtype).requires_grad_()
                flat = out.flatten(2)
                loss_R = self.label_loss(torch.bmm(flat, head).to(head.dtype), flat, y_RB)
                signal, grad = torch.autograd.grad(loss_R.sum(), [out, head])
            signal = self.share(signal) if compares else signal
            updates.append(layer.backward(state, signal.to(state.out_RBDC.dtype))[0] | {"label_head_RFE": grad})
            self.step_metrics[f"loss/layer{k}"] = loss_R.detach()
        return updates


class LocalCrossEntropy(LocalLabelLoss):
    """A linear classifier on every layer (Mostafa et al. 2018; Belilovsky et al. 2019): ``CE(U_l h_l, y)``.

    Learned: the weights and the classifier ``U_l``, which belongs to the layer.
    """

    source = "Mostafa, Ramesh, Cauwenberghs 2018, arXiv 1711.06756"
    locality = Locality(label=True)

    def head_width(self) -> int:
        return self.data.task.n

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        return cross_entropy(z_RBE, y_RB)


class SimilarityMatching(LocalCrossEntropy):
    """Local error signals (Nokland, Eidnes 2019, eq. 1 to 3): ``(1 - b) CE(U_l h_l, y) + b MSE(sim(h_l), sim(y))``.

    ``sim`` are the cosines between the strings of a batch, each with its own mean taken out; ``MSE`` is the mean over all
    ``B^2`` of them, as in the authors' code (the paper writes a sum). The authors pass ``h`` through a further layer before
    ``sim``, and convolutions through each channel's deviation over space; here it is the layer's output itself.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        similarity: ``b``.

    Raises:
        InvalidInput: ``similarity`` not in (0, 1].
    """

    source = "Nokland, Eidnes 2019, arXiv 1901.06656"
    locality = Locality(pair=True, label=True)
    compares_strings = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        similarity: float = 0.99,
    ):
        super().__init__(network, optimizer, clip)
        if not 0 < similarity <= 1:
            raise InvalidInput("model.similarity", similarity, "a number in (0, 1]; LocalCrossEntropy is without")
        self.similarity = similarity

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        target = similarity_matrix(functional.one_hot(y_RB.long(), self.data.task.n).to(out_RBF.dtype))
        difference = (similarity_matrix(out_RBF) - target).square().mean((1, 2))
        return (1 - self.similarity) * cross_entropy(z_RBE, y_RB) + self.similarity * difference


class SupervisedContrastive(LocalLabelLoss):
    """Supervised contrastive learning (Khosla et al. 2020, eq. 2) at every layer: all strings of a class are one another's
    positives, all others its negatives. A string that is alone in its class has no term of its own.

    ``-mean_p log exp(u_bp) / sum_{a != b} exp(u_ba)`` with ``u = cos(U_l h_l, U_l h_l') / t``. Learned: the weights and the
    head ``U_l``. The authors have one loss at the top of a deep network and ``t = .1``.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        head: width of ``U_l``.
        temperature: ``t``.

    Raises:
        InvalidInput: ``head`` under 1; a temperature not above 0.
    """

    source = "Khosla et al. 2020, arXiv 2004.11362"
    locality = Locality(pair=True, label=True)
    compares_strings = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        head: int = 32,
        temperature: float = 0.5,
    ):
        super().__init__(network, optimizer, clip)
        if head < 1:
            raise InvalidInput("model.head", head, "an integer of at least 1")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.head, self.temperature = head, temperature

    def head_width(self) -> int:
        return self.head

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        z = functional.normalize(z_RBE, dim=-1, eps=1e-6)
        return supervised_contrastive(torch.bmm(z, z.transpose(1, 2)).to(z.dtype) / self.temperature, y_RB)
