"""The wiring that all rules share: a subclass holds its equation and little else.

Shape suffixes: R replica, B batch, D position, C channel, N classes, K layer.
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from jsonargparse import lazy_instance
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from datamodules import Batch, Pairs, RHMDataModule
from networks import (
    HierarchicalNetwork,
    LayeredNetwork,
    LayerState,
    LayerUpdate,
    NetworkConfig,
    Readout,
    ReadoutState,
    VectorNetwork,
)
from networks.layered import multiply
from rhm import InvalidInput
from rhm.hashing import fold, normal, seed_keys
from rules.metrics import ReplicaAccuracy

default_network = lazy_instance(HierarchicalNetwork)
"""The network of a rule that is not told otherwise."""


@dataclass(frozen=True)
class Locality:
    """What a layer's update may depend on beyond the layer's own activity and weights; the tests prove it.

    Attributes:
        pair: the layer's own activity for the positive partner, and for the other strings of the batch.
        label: the class.
        output_error: the error at the readout.
        other_layers: activity or weights of other layers.
    """

    pair: bool = False
    label: bool = False
    output_error: bool = False
    other_layers: bool = False


class Step(NamedTuple):
    """All that has been computed when a rule is asked for its updates.

    Attributes:
        batch: the strings.
        states: one state a layer for ``batch.x_RBD``.
        view_states: the same for ``batch.view_RBD``; None if there is none.
        readout: logits and error.
        view_readout: the same for a second pass that reaches the readout, in rules that make one.
    """

    batch: Batch
    states: list[LayerState]
    view_states: list[LayerState] | None
    readout: ReadoutState
    view_readout: ReadoutState | None = None


class LocalRule(pl.LightningModule, ABC):
    """A learning rule for a layered network, with a readout on top.

    A training step computes the states of all layers without autograd, asks :meth:`layer_updates` for a gradient of each layer,
    adds the readout's own, and takes one optimizer step with one parameter group a layer. Losses are sums over replicas
    of means over the batch, so that a replica learns as it would alone.

    Layers above ``trained_layers`` belong to the readout: it learns from labels on the detached features below them.

    What a rule tracks over steps, such as learned feedback or running statistics, is a buffer: :meth:`layer_updates` puts the
    batch's value into ``estimates`` under the buffer's name, and after the step ``buffer += rate (estimate - buffer)``.

    Args:
        network: its sizes follow the task unless they are given.
        optimizer: one for all layers.
        clip: largest norm of a layer's gradient in one replica; None does not clip.

    Attributes:
        locality: what an update may depend on.
        source, family: for ``rhm rules``.
        knowledge: what it learns from beyond strings, as in ``supervision``.
        uses_pairs, uses_label_slot: whether it needs pairs, or a place in the string for a class.
        takes_vectors, takes_codes: whether its layers may have vector units, or hand on codes.
        compares_strings: whether a string's part in an update depends on the other strings of the batch.
        end_to_end_needs_labels: whether the loss that is propagated through all layers is the readout's.

    Raises:
        InvalidInput: at the start of a run, if network, batches and rule do not fit together.
    """

    network: LayeredNetwork
    accuracy: ReplicaAccuracy
    readout: Readout
    data: RHMDataModule
    locality: Locality
    source: ClassVar[str]
    family: ClassVar[str]
    knowledge: ClassVar[str] = "none"
    uses_pairs: ClassVar[bool] = False
    uses_label_slot: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
    takes_codes: ClassVar[bool] = False
    compares_strings: ClassVar[bool] = False
    end_to_end_needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
    ):
        super().__init__()
        if not isinstance(network, NetworkConfig):
            raise InvalidInput("model.network", network, "HierarchicalNetwork, LocallyConnectedNetwork or DenseNetwork")
        if clip is not None and clip <= 0:
            raise InvalidInput("model.clip", clip, "a norm above 0, or null")
        network.settle()
        self.automatic_optimization = False
        self.network_config, self.optimizer, self.clip = network, optimizer, clip
        self.step_metrics: dict[str, Tensor] = {}
        self.estimates: dict[str, Tensor] = {}
        self.rate = 0.0
        self.measured_step: int | None = None

    # ---------------------------------------------------------------- what a rule says of itself

    @abstractmethod
    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        """Gradients of the layers ``1..trained_layers``, by parameter name. Autograd is off."""

    @property
    def trained_layers(self) -> int:
        """How many layers, from the first, the rule trains."""
        return len(self.network)

    def build(self) -> None:
        """Make what the rule needs beside network and readout, such as feedback matrices (as buffers)."""

    def after_step(self) -> None:
        """Constrain weights, after the optimizer's step; nothing by default."""

    @property
    def supervision(self) -> str:
        """What the hidden layers learn from beyond strings: ``labels``, ``grammar`` or ``none``."""
        return self.data.pairs.knowledge if self.uses_pairs and self.data.pairs is not None else self.knowledge

    # ---------------------------------------------------------------- building

    def setup(self, stage: str | None = None) -> None:
        """Build the network for the data's task and replicas, once."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, RHMDataModule):
            raise InvalidInput("data", type(data).__name__, "RHMDataModule")
        if not hasattr(self, "network"):
            self.prepare(data)
        if data is not self.data:
            raise InvalidInput("data", "another datamodule", "the one that the rule's network was built for")
        self.trainer.precision_plugin.convert_module(self)  # Lightning does so only after it has loaded a checkpoint

    def prepare(self, data: RHMDataModule) -> LocalRule:
        """Build the network for a datamodule's task and replicas; Lightning's ``setup`` calls it."""
        self.__dict__["data"] = data  # not a submodule
        seeds_R = torch.tensor(data.replica_seeds)
        if self.network_config.label_slot and not self.uses_label_slot:
            raise InvalidInput("model.network.label_slot", True, f"false for {type(self).__name__}, which shows no class")
        if isinstance(self.network_config, VectorNetwork) and not self.takes_vectors:
            allowed = f"a network of scalar units for {type(self).__name__}, such as HierarchicalNetwork"
            raise InvalidInput("model.network", "VectorNetwork", allowed)
        if self.network_config.codebooks is not None and not self.takes_codes:
            allowed = f"null for {type(self).__name__}, which cannot learn through codes"
            raise InvalidInput("model.network.codebooks", self.network_config.codebooks, allowed)
        if self.compares_strings and data.batch_size < 2:
            allowed = f"at least 2 for {type(self).__name__}, which compares the strings of a batch"
            raise InvalidInput("data.batch_size", data.batch_size, allowed)
        self.network = self.network_config.build(data.task, seeds_R)
        features = self.network.positions[-1] * self.network.layers[-1].out_channels
        self.readout = self.network.readout(seeds_R, features)
        self.accuracy = ReplicaAccuracy(data.replicas)
        if self.uses_pairs and data.pairs is None:
            raise InvalidInput(
                "data.pairs", None, f"one of SiblingPairs, ClassPairs, SynonymPairs, HalfPairs for {type(self).__name__}"
            )
        if not data.labels and self.supervision == "labels":
            learner = f"{type(self).__name__} with {type(data.pairs).__name__}" if self.uses_pairs else type(self).__name__
            raise InvalidInput("data.labels", False, f"true for {learner}, which learns from labels")
        if data.label_sizes_R is not None and self.supervision == "labels":
            allowed = f"null for {type(self).__name__}, whose hidden layers learn from labels; use data.train_size"
            raise InvalidInput("data.label_size", data.label_sizes_R.tolist(), allowed)
        self.build()
        return self

    @property
    def pairs(self) -> Pairs:
        """The datamodule's pair scheme."""
        assert self.data.pairs is not None
        return self.data.pairs

    @property
    def diverged_R(self) -> Tensor:
        """Which replicas have a weight that is not finite, ``[R]``."""
        finite = [p.isfinite().flatten(1).all(1) for p in self.parameters()]
        return ~torch.stack(finite).all(0).cpu()

    def keys_R(self, *names: str | int) -> Tensor:
        """Keys for a rule's own random matrices, one for each replica's seed; names keep matrices apart."""
        return seed_keys(torch.tensor(self.data.replica_seeds), type(self).__name__, *names)

    def noise(self, batch: Batch, name: str | int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise ``[R, B, *shape]``, a pure function of each string's place in the run."""
        assert batch.key_RB is not None
        noise = normal(fold(batch.key_RB.flatten(), name), shape).unflatten(0, batch.key_RB.shape)
        return noise.to(self.readout.bias_R1N.dtype)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer with a named parameter group for each layer and the readout."""
        names = [f"layer{k}" for k in range(1, len(self.network) + 1)] + ["readout"]
        return self.optimizer(
            [{"params": list(m.parameters()), "name": name} for name, m in zip(names, self.parts, strict=True)]
        )

    @property
    def parts(self) -> list[nn.Module]:
        """The layers and, last, the readout: each is a parameter group."""
        return [*self.network.layers, self.readout]

    @cached_property
    def _named_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        return [list(module.named_parameters()) for module in self.parts]

    # ---------------------------------------------------------------- a step

    def forward(self, x_RBD: Tensor) -> list[LayerState]:
        """One state a layer for tokens ``[R, B, s**L]``."""
        return self.network(x_RBD)

    @torch.no_grad()
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Updates of all layers and of the readout, and one optimizer step."""
        self.apply_updates(self.updates(self.compute(batch)))

    def compute(self, batch: Batch) -> Step:
        """Run network and readout; a second view goes through the network together with the first."""
        if batch.view_RBD is None or not self.uses_pairs:
            states = self.network(batch.x_RBD)
            return Step(batch, states, None, self.readout(states[-1].out_RBDC, batch.y_RB))
        size = batch.x_RBD.shape[1]
        both = self.network(torch.cat([batch.x_RBD, batch.view_RBD], 1))
        states, views = zip(
            *(layer.split(state, size) for layer, state in zip(self.network.layers, both, strict=True)), strict=True
        )
        return Step(batch, list(states), list(views), self.readout(states[-1].out_RBDC, batch.y_RB))

    def updates(self, step: Step) -> list[LayerUpdate]:
        """Gradients of all layers and, last, of the readout."""
        updates = self.layer_updates(step)
        step = self.labelled(step)
        self.step_metrics["loss/readout"] = step.readout.loss_R
        if not self.data.labels:
            return [*updates, *({} for _ in self.parts[len(updates) :])]
        upper = self.upper_updates(step, down_to=len(updates))
        return [*updates, *upper, self.readout.backward(step.readout)]

    @staticmethod
    def labelled(step: Step) -> Step:
        """The step with the readout's error and loss of the strings that have labels, where some have none."""
        weight_RB = step.batch.weight_RB
        return step if weight_RB is None else step._replace(readout=step.readout.weighted(weight_RB))

    def upper_updates(self, step: Step, down_to: int) -> list[LayerUpdate]:
        """Gradients of the layers above those that the rule trains: the readout's loss, propagated back."""
        return self.backpropagate(step, down_to)

    def backpropagate(self, step: Step, down_to: int) -> list[LayerUpdate]:
        """Exact gradients of the readout's loss for the layers above the first ``down_to``, from the output down."""
        updates: list[LayerUpdate] = []
        if down_to == len(self.network):
            return updates
        grad = self.readout.hand_down(step.readout, step.states[-1].out_RBDC.shape)
        for k in range(len(self.network) - 1, down_to - 1, -1):
            layer = self.network.layers[k]
            update, delta = layer.backward(step.states[k], grad)
            updates.insert(0, update)
            if k > down_to:
                grad = layer.hand_down(delta, grad.shape[1])
        return updates

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the tracked buffers move towards, by their names, from the estimates averaged over ranks: those themselves."""
        return estimates

    def apply_updates(self, updates: Iterable[LayerUpdate]) -> None:
        """Average over ranks, clip each layer, take one optimizer step and move the tracked buffers."""
        for parameters, update in zip(self._named_parameters, updates, strict=True):
            for name, parameter in parameters:
                grad = update.get(name)
                parameter.grad = None if grad is None else grad.to(parameter.dtype).contiguous()
        if self.data.world > 1:
            moved = [p.grad for p in self.parameters() if p.grad is not None] + list(self.estimates.values())
            for tensor, mean in zip(moved, self.mean_over_ranks(moved), strict=True):
                tensor.copy_(mean)
        if self.clip is not None:
            for parameters in self._named_parameters:
                self._clip([parameter.grad for _, parameter in parameters if parameter.grad is not None], self.clip)
        optimizer = self.optimizers()
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        optimizer.step()
        for name, estimate in self.tracked(self.estimates).items():
            buffer = self.get_buffer(name)
            buffer.lerp_(estimate.to(buffer.dtype), self.rate)
        self.after_step()

    @staticmethod
    def _clip(grads: list[Tensor], clip: float) -> None:
        """Scale a layer's gradients, in each replica by itself, so that their norm is at most ``clip``."""
        if grads:
            square_R = torch.stack([grad.float().square().flatten(1).sum(1) for grad in grads]).sum(0)
            scale_R = (clip / square_R.sqrt().clamp_min(1e-30)).clamp_max(1.0)
            for grad in grads:
                grad.mul_(scale_R.view(-1, *[1] * (grad.dim() - 1)))

    # ---------------------------------------------------------------- several ranks share a batch

    def mean_over_ranks(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the ranks, by one reduction; the tensors themselves where there is one rank."""
        if self.data.world == 1 or not tensors:
            return tensors
        flat = self.trainer.strategy.reduce(torch.cat([t.flatten() for t in tensors]), reduce_op="mean")
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]

    def strings_of_all_ranks(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each tensor ``[R, B, ...]`` with the strings of all ranks in the order of the batch, by one gather."""
        if self.data.world == 1 or not tensors:
            return tensors
        strings = [t.transpose(0, 1) for t in tensors]
        flat = self.trainer.strategy.all_gather(torch.cat([t.flatten(1) for t in strings], 1)).flatten(0, 1)
        parts = flat.split([t[0].numel() for t in strings], 1)
        return [p.unflatten(1, t.shape[1:]).transpose(0, 1).to(t.dtype) for p, t in zip(parts, strings, strict=True)]

    def batch_of_all_ranks(self, batch: Batch) -> Batch:
        """The step's strings on all ranks, which every rank can make."""
        return batch if self.data.world == 1 else self.data.train_batch(self.trainer.global_step)

    def share(self, signal_RBDC: Tensor) -> Tensor:
        """This rank's part of a signal ``[R, B, ...]`` for the strings of all ranks, as part of a mean over ranks."""
        if self.data.world == 1:
            return signal_RBDC
        return signal_RBDC.chunk(self.data.world, 1)[self.data.rank] * self.data.world

    # ---------------------------------------------------------------- what backpropagation would do

    def end_to_end(self, step: Step) -> list[LayerUpdate]:
        """What backpropagation makes of the batch, to compare with: gradients of the readout's loss for all layers."""
        return self.backpropagate(step, down_to=0)

    def top_errors(self, step: Step) -> list[tuple[list[LayerState], Tensor]]:
        """The error ``[R, B, F]`` from which :meth:`end_to_end` starts, with the states that it goes down through."""
        return [(step.states, step.readout.error_RBN / step.readout.error_RBN.shape[1])]

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The matrices that carry an error to each layer's output (``layer1``; ``layer1_projection``: to its units), each with
        the weights in whose place it stands, in the same shape; none by default."""
        return {}

    def weight_products(self) -> list[Tensor]:
        """``W_{l+1}^T ... W_L^T W_o^T``, which carry an error from the logits to each layer's output if no mask and no
        normalisation stands in its way: ``[R, N, D * C]``, one a layer."""
        network, weight = self.network, self.readout.weight_RFN
        R, N = len(weight), self.data.task.n
        eye = torch.eye(N, dtype=weight.dtype, device=weight.device).expand(R, N, N)
        unit_errors = ReadoutState(eye, eye, eye * N, eye[:, 0])  # one string a class; the mean over strings divides by N
        shape = torch.Size((R, N, network.positions[-1], network.layers[-1].out_channels))
        signal = self.readout.hand_down(unit_errors, shape)
        products = [signal.flatten(2)]
        for layer in reversed(list(network.layers)[1:]):
            grad = layer.by_group(signal)
            if layer.projection_RGEC is not None:
                grad = multiply(grad, layer.projection_RGEC.transpose(-1, -2))
            signal = layer.hand_down(grad, N)
            products.insert(0, signal.flatten(2))
        return products

    # ---------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[LayerState]]:
        """States of all layers, for callbacks; accuracy on the test strings, which are the second loader's."""
        states = self.network(batch.x_RBD)
        if dataloader_idx == 1:
            self.accuracy.update(self.readout(states[-1].out_RBDC, batch.y_RB).logits_RBN, batch.y_RB)
        return {"states": states}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[LayerState]]:
        """The same as in validation."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy on test strings: mean over replicas, and their standard deviation if there are several.

        A learning curve has the same for each of its training-set sizes, as ``test/accuracy_P{size}``.
        """
        self.test_accuracy_R = self.accuracy.compute().reshape(-1)  # torchmetrics squeezes a single number
        self.accuracy.reset()
        groups: dict[str, list[float]] = {"test/accuracy": self.test_accuracy_R.tolist()}
        if len(set(self.data.replica_sizes)) > 1:
            for size, accuracy in zip(self.data.replica_sizes, groups["test/accuracy"], strict=True):
                groups.setdefault(f"test/accuracy_P{size}", []).append(accuracy)
        values = {name: statistics.fmean(group) for name, group in groups.items()}
        values |= {f"{name}_std": statistics.stdev(group) for name, group in groups.items() if len(group) > 1}
        self.log_measured(values)
        self.measured_step = self.trainer.global_step

    def on_test_epoch_end(self) -> None:
        """The same as in validation."""
        self.on_validation_epoch_end()

    def log_measured(self, values: dict[str, float]) -> None:
        """Log what validation or test has measured.

        In a fit at the trainer's step, as Lightning's own is one behind. The test after a run's last validation measures the
        same again, and writes nothing. ``trainer.validate`` or ``trainer.test`` alone return the values, as in Lightning.
        """
        again = self.measured_step == self.trainer.global_step and bool(self.trainer.loggers)
        alone = self.trainer.state.fn != TrainerFn.FITTING and not again
        self.log_dict(values, logger=alone, rank_zero_only=True)  # else for callbacks that watch a number
        if not alone and not again and not self.trainer.sanity_checking:
            for logger in self.trainer.loggers:
                logger.log_metrics(values, self.trainer.global_step)
                logger.save()
