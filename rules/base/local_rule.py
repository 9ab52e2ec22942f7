"""The wiring that all rules share: a subclass holds its equation and little else.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Self

import torch
from jsonargparse import lazy_instance
from pytorch_lightning import Callback
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules import Batch, Pairs, ReplicaDataModule
from datamodules.pairs import WITHOUT_GRAMMAR
from networks import (
    CodeNetwork,
    CompetitiveNetwork,
    HierarchicalNetwork,
    LayerState,
    LayerUpdate,
    NetworkConfig,
    VectorNetwork,
)
from rhm import InvalidInput
from rhm.errors import nearest
from rhm.hashing import fold, normal, seed_keys
from rules.base.backpropagation import backpropagate, weight_products
from rules.base.before_step import BeforeStep
from rules.base.contract import Locality, Step, Updates
from rules.base.evaluation import Evaluation
from rules.base.knowledge import Knowledge
from rules.base.metrics import ReplicaAccuracy
from rules.base.optimizers import check_optimizer, step_once
from rules.base.ranks import SharedBatch
from rules.base.restoring import COMPILED, Restorable, plain_network
from rules.base.trainer_settings import callbacks_of, check_datamodule, check_trainer

__all__ = ["LocalRule", "NetworkConfig", "OptimizerCallable", "default_network"]  # what a rule's constructor needs

default_network = lazy_instance(HierarchicalNetwork)
"""The network of a rule that is not told otherwise."""


TRACED_AUTOGRAD = "trace_autograd_ops"
"""A setting that newer versions of the compiler have."""
BUILT = ("network", "readout", "accuracy", "data")


class NotPrepared(InvalidInput, AttributeError):
    """What a rule has only once it knows its data."""


class LocalRule(SharedBatch, Evaluation, Restorable, Knowledge, ABC):
    """A learning rule for a layered network, with a readout on top.

    A training step computes the states of all layers without autograd, asks :meth:`layer_updates` for a gradient of each layer,
    adds the readout's own, and takes one optimizer step with one parameter group a layer. Losses are sums over replicas
    of means over the batch, so that a replica learns as it would alone.

    Layers above ``trained_layers`` belong to the readout: it learns from labels on the detached features below them.

    What a rule tracks over steps, such as learned feedback or running statistics, is a buffer: the batch's value of it is one
    of the step's estimates, and after the step ``buffer += rate (estimate - buffer)``; one of integers becomes what
    :meth:`tracked` makes of it.

    Args:
        network: its sizes follow the task unless they are given.
        optimizer: one for all layers.
        clip: largest norm of a layer's gradient in one replica; None does not clip.

    Attributes:
        locality: what an update may depend on.
        source, family: for ``rhm rules``.
        knowledge: what it learns from beyond strings and its pairs: ``none``, ``labels`` or ``grammar``. Each rule says it.
        uses_pairs, uses_label_slot: whether it needs pairs, or a place in the string for a class.
        takes_vectors, takes_codes, takes_competition: whether its layers may have vector units, hand on codes, or compete.
        steps_per_call: how many steps a call of :meth:`training_step` makes. A trainer counts calls, and its callbacks see one
            in so many steps; ``trainer.global_step`` counts steps.
        compares_strings: whether a string's part in an update depends on the other strings of the batch.
        upper_layers_learn: whether the layers above those that the rule trains learn with the readout, from labels.
        end_to_end_needs_labels: whether the loss that is propagated through all layers is the readout's.

    Raises:
        InvalidInput: a rule that does not say its knowledge; at the start of a run, if network, batches, trainer and rule do
            not fit together, or the rule learns from labels and says that it does not; in a step, if the rule names a
            parameter that a layer does not have, or gives a gradient of another shape or for another number of layers.
    """

    locality: Locality
    source: ClassVar[str]
    family: ClassVar[str]
    uses_pairs = False
    uses_label_slot: ClassVar[bool] = False
    takes_vectors: ClassVar[bool] = True
    takes_codes: ClassVar[bool] = False
    takes_competition: ClassVar[bool] = False
    compares_strings: ClassVar[bool] = False
    upper_layers_learn: bool = True
    end_to_end_needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
    ):
        super().__init__()
        self.check_said()
        if not isinstance(network, NetworkConfig):
            raise InvalidInput("model.network", network, "HierarchicalNetwork, LocallyConnectedNetwork or DenseNetwork")
        if clip is not None and clip <= 0:
            raise InvalidInput("model.clip", clip, "a norm above 0, or null")
        network.settle()
        self.automatic_optimization = False
        self.network_config, self.optimizer, self.clip = plain_network(network), optimizer, clip
        self.rate = 0.0
        self.steps_per_call = 1
        self._before_step: list[BeforeStep] = []

    # ---------------------------------------------------------------- what a rule says of itself

    @abstractmethod
    def layer_updates(self, step: Step) -> Updates:
        """Gradients of the layers ``1..trained_layers``, and what else the rule has to say of a step. Autograd is off."""

    @property
    def trained_layers(self) -> int:
        """How many layers, from the first, the rule trains; known once there are data."""
        return len(self.patches)

    @property
    def turns_end(self) -> int:
        """The step at which the last layer's turn is over, where layers learn one after another; else 0."""
        return 0

    @property
    def trained_by(self) -> list[str]:
        """What trains each layer and, last, the readout: the ``rule``, ``labels`` or ``nothing``; known once there are data."""
        readout = "labels" if self.data.labels else "nothing"
        above = readout if self.upper_layers_learn else "nothing"
        return ["rule"] * self.trained_layers + [above] * (len(self.patches) - self.trained_layers) + [readout]

    def build(self) -> None:
        """Make what the rule needs beside network and readout, such as feedback matrices (as buffers)."""

    def after_step(self) -> None:
        """Constrain weights, after the optimizer's step; nothing by default."""

    # ---------------------------------------------------------------- building

    def configure_callbacks(self) -> list[Callback]:
        """None. Of a module's hooks this is the first: callbacks that set up find a trainer that fits, and a network.

        Raises:
            InvalidInput: see :func:`rules.base.trainer_settings.check_trainer`; no datamodule, or not that of the network.
        """
        check_trainer(self.trainer)
        data = check_datamodule(self.trainer)
        if "network" not in self._modules:
            self.prepare(data)
        if data is not self.data:
            raise InvalidInput("data", "another datamodule", "rule.data, for which its network was built, or a new rule")
        return []

    def check(self) -> None:
        """Refuse what only asking tells, once there is a network.

        Raises:
            InvalidInput: the rule learns from what it says it does not know, or its optimizer mixes replicas.
        """
        self.check_knowledge()
        if self.data.replicas > 1:
            check_optimizer(self.optimizer)

    def on_fit_start(self) -> None:
        """See that the rule does what it says; what an earlier run has measured at a step is not that of this one."""
        self.measured_step = None
        with self.trainer.precision_plugin.train_step_context():
            self.check()

    def setup(self, stage: str | None = None) -> None:
        """Have weights in the trainer's precision."""
        self.trainer.precision_plugin.convert_module(self)  # Lightning does so only after it has loaded a checkpoint

    def prepare(self, data: ReplicaDataModule) -> Self:
        """Build the network for a datamodule's task and replicas; a trainer has it done before anything else."""
        self.__dict__["data"] = data  # not a submodule
        self.__dict__.pop("patches", None)  # of data before
        self.check_network()
        self.check_data()
        seeds_R = torch.tensor(data.replica_seeds)
        self.network = self.network_config.build(data.task, seeds_R)
        features = self.network.positions[-1] * self.network.layers[-1].out_channels
        self.readout = self.network.readout(seeds_R, features)
        self.accuracy = ReplicaAccuracy(data.replicas)
        self.build()
        self._refuse_strays()
        return self

    def _refuse_strays(self) -> None:
        """A parameter that belongs to no layer would be in no optimizer group and would never learn."""
        own = {id(parameter) for part in self.parts for parameter in part.parameters()}
        if strays := [name for name, parameter in self.named_parameters() if id(parameter) not in own]:
            allowed = "parameters of a layer or of the readout; what is tracked or fixed is a buffer"
            raise InvalidInput(f"{type(self).__name__}.build", ", ".join(strays), allowed)

    def stand_beside(self, rule: LocalRule) -> None:
        """Take another rule's data, network and readout, which stay its own, instead of building them."""
        self.__dict__["data"] = rule.data
        self.network, self.readout = rule.network, rule.readout
        self.build()

    def check_network(self) -> None:
        """Refuse a network that the rule cannot train.

        Raises:
            InvalidInput: a label slot, vector units, codes or a competition that the rule does not take.
        """
        name, network = type(self).__name__, self.network_config
        if network.label_slot and not self.uses_label_slot:
            raise InvalidInput("model.network.label_slot", True, f"false for {name}, which shows no class")
        if isinstance(network, VectorNetwork) and not self.takes_vectors:
            allowed = f"a network of scalar units for {name}, such as HierarchicalNetwork"
            raise InvalidInput("model.network", "VectorNetwork", allowed)
        if isinstance(network, CodeNetwork) and not self.takes_codes:
            allowed = f"a network without codes for {name}, such as HierarchicalNetwork"
            raise InvalidInput("model.network", "CodeNetwork", allowed)
        if isinstance(network, CompetitiveNetwork) and not self.takes_competition:
            allowed = f"a network without competition for {name}, such as HierarchicalNetwork"
            raise InvalidInput("model.network", "CompetitiveNetwork", allowed)

    def check_data(self) -> None:
        """Refuse data that do not have what the rule learns from.

        Raises:
            InvalidInput: no pairs, labels, grammar or second string of a batch where the rule needs them; a label size where
                its hidden layers learn from labels.
        """
        name, data = type(self).__name__, self.data
        if self.compares_strings and data.batch_size < 2:
            raise InvalidInput(
                "data.batch_size", data.batch_size, f"at least 2 for {name}, which compares the strings of a batch"
            )
        if self.uses_pairs and data.pairs is None:
            raise InvalidInput("data.pairs", None, f"one of {', '.join((*WITHOUT_GRAMMAR, 'SynonymPairs'))} for {name}")
        if data.grammar is None and self.supervision == "grammar":
            raise InvalidInput("data", type(data).__name__, f"RHMDataModule for {name}, which learns from the grammar")
        if not data.labels and self.supervision == "labels":
            learner = f"{name} with {type(data.pairs).__name__}" if self.uses_pairs else name
            raise InvalidInput("data.labels", False, f"true for {learner}, which learns from labels")
        if data.label_sizes_R is not None and self.supervision == "labels":
            allowed = f"null for {name}, whose hidden layers learn from labels; use data.train_size"
            raise InvalidInput("data.label_size", data.label_sizes_R.tolist(), allowed)

    @cached_property
    def patches(self) -> list[int]:
        """Positions that each layer merges; known once there are data, before the network is built."""
        config, task = self.network_config, self.data.task
        return [patch for _, patch in config.shapes(task, config.depth or task.L)]

    @property
    def pairs(self) -> Pairs:
        """The datamodule's pair scheme."""
        assert self.data.pairs is not None
        return self.data.pairs

    @property
    def diverged_R(self) -> Tensor:
        """Which replicas have a weight that is not finite, ``[R]``."""
        finite = [p.isfinite().flatten(1).all(1) for part in self.parts for p in part.parameters()]
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
        optimizer = self.optimizer(
            [{"params": list(m.parameters()), "name": name} for name, m in zip(names, self.parts, strict=True)]
        )
        step_once(optimizer)
        return optimizer

    @property
    def parts(self) -> list[nn.Module]:
        """The layers and, last, the readout: each is a parameter group."""
        return [*self.network.layers, self.readout]

    @cached_property
    def _named_parameters(self) -> list[dict[str, nn.Parameter]]:
        return [dict(module.named_parameters()) for module in self.parts]

    # ---------------------------------------------------------------- a step

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "network" in self._modules or not (name in BUILT or hasattr(type(self), name)):
                raise
            raise NotPrepared(
                type(self).__name__, "a rule without a network", "rule.prepare(data), or trainer.fit, before"
            ) from None

    def forward(self, x_RBD: Tensor) -> list[LayerState]:
        """One state a layer for tokens ``[R, B, s**L]``."""
        return self.network(x_RBD)

    @torch.no_grad()
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Updates of all layers and of the readout, and an optimizer step, ``steps_per_call`` times; the last losses."""
        first, optimizer = self.trainer.global_step, self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for step in range(first, self.end_of_call(first)):
            if step > first:
                batch = self.data.train_batch(step, self.data.rank, self.data.world)
            for callback in self._before_step:
                callback.before_step(self.trainer, self, step)
            updates = self.updates_of(batch)
            self.apply_updates(updates, optimizer)
        self.trainer.fit_loop.epoch_loop._batches_that_stepped += step - first  # where loggers put what is logged
        return {"losses": updates.losses}

    def end_of_call(self, step: int) -> int:
        """The step to which a call goes that starts at this one: the next multiple of ``steps_per_call``, or the run's end."""
        return min((step // self.steps_per_call + 1) * self.steps_per_call, max(self.trainer.max_steps, step + 1))

    def on_train_start(self) -> None:
        """Count calls as if each had made ``steps_per_call`` steps: validations then come in their turn after any resume."""
        self._before_step = [c for c in callbacks_of(self.trainer) if isinstance(c, BeforeStep)]
        progress, calls = self.trainer.fit_loop.epoch_loop.batch_progress, self.trainer.global_step // self.steps_per_call
        for count in progress.total, progress.current:
            vars(count).update(dict.fromkeys(vars(count), calls))

    def updates_of(self, batch: Batch) -> Updates:
        """What a step makes of a batch, before the optimizer."""
        return self.updates(self.compute(batch))

    def compile(self, *args: Any, **options: Any) -> None:
        """Have :meth:`updates_of` compiled, at its next call; a pickle or a copy of the rule is as it was before.

        Args:
            args, options: see :func:`torch.compile`; shapes do not change in a run.
        """
        torch.compiler.reset()  # a process trains one rule at a time, and each has its own code
        if hasattr(torch._dynamo.config, TRACED_AUTOGRAD):  # a step with autograd of a layer's loss is one graph
            setattr(torch._dynamo.config, TRACED_AUTOGRAD, True)
        assert self.patches  # known by now: the compiler cannot enter the lock of a property that is computed once
        self.__dict__[COMPILED] = torch.compile(type(self).updates_of.__get__(self), *args, dynamic=False, **options)

    def compute(self, batch: Batch) -> Step:
        """Run network and readout; a second view, or two copies, go through the network together with the strings."""
        network, size, first, views = self.network, batch.x_RBD.shape[1], None, None
        if self.uses_pairs and batch.view_RBD is not None:
            states, views = self._split(network(torch.cat([batch.x_RBD, batch.view_RBD], 1)), size)
        elif self.uses_pairs and batch.half_RBD is not None:
            h_RBDC, half_RBD1 = network.encode(batch.x_RBD), batch.half_RBD[..., None]
            copies = h_RBDC * half_RBD1, h_RBDC * ~half_RBD1
            states, rest = self._split(network.forward_from(0, torch.cat([h_RBDC, *copies], 1)), size)
            first, views = self._split(rest, size)
        else:
            states = network(batch.x_RBD)
        return Step(batch, states, views, self.readout(states[-1].out_RBDC, batch.y_RB), first_states=first)

    def _split(self, states: list[LayerState], size: int) -> tuple[list[LayerState], list[LayerState]]:
        """The states of the first ``size`` strings and of the rest."""
        parts = [layer.split(state, size) for layer, state in zip(self.network.layers, states, strict=True)]
        return [first for first, _ in parts], [rest for _, rest in parts]

    def updates(self, step: Step) -> Updates:
        """The rule's updates and those of the layers above it and, last, of the readout."""
        said = self.layer_updates(step)
        if len(said.layers) != self.trained_layers:
            got = f"updates of {len(said.layers)} layers"
            raise InvalidInput(
                f"{type(self).__name__}.layer_updates", got, f"one for each layer that it trains: {self.trained_layers}"
            )
        step = self.labelled(step)
        upper: list[LayerUpdate] = [{}] * (len(self.network) - len(said.layers))
        if upper and self.data.labels and self.upper_layers_learn:
            upper = self.backpropagate(step, down_to=len(said.layers))
        rest = [*upper, self.readout_update(step) if self.data.labels else {}]
        return Updates([*said.layers, *rest], said.estimates, {**said.losses, "loss/readout": step.readout.loss_R})

    @staticmethod
    def labelled(step: Step) -> Step:
        """The step with the readout's error and loss of the strings that have labels, where some have none."""
        weight_RB = step.batch.weight_RB
        return step if weight_RB is None else step._replace(readout=step.readout.weighted(weight_RB))

    def readout_update(self, step: Step) -> LayerUpdate:
        """Gradients of the readout: those of its own loss."""
        return self.readout.backward(step.readout)

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the tracked buffers move towards, by their names, from the estimates averaged over ranks: those themselves."""
        return estimates

    def apply_updates(self, updates: Updates, optimizer: Optimizer | LightningOptimizer) -> None:
        """Average over ranks, clip each layer, take one optimizer step and move the tracked buffers."""
        self.give_gradients(updates.layers)
        estimates = updates.estimates
        if self.data.world > 1:
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            means = iter(self.mean_over_ranks([*grads, *estimates.values()]))
            for grad in grads:
                grad.copy_(next(means))
            estimates = {name: next(means) for name in estimates}
        if self.clip is not None:
            for parameters in self._named_parameters:
                clip_by_replica([p.grad for p in parameters.values() if p.grad is not None], self.clip)
        targets = self._targets(self.tracked(estimates))
        optimizer.step()
        for buffer, target in targets:
            if buffer.is_floating_point():
                buffer.lerp_(target.to(buffer.dtype), self.rate)
            else:
                buffer.copy_(target)
        self.after_step()

    def _targets(self, tracked: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Each tracked buffer with what it moves towards."""
        if tracked and not self.rate:
            self._refuse("estimates with a rate of 0", "self.rate above 0, the step towards an estimate")
        targets = []
        for name, target in tracked.items():
            try:
                buffer = self.get_buffer(name)
            except AttributeError:
                self._refuse(f"an estimate of {name}", f"the name of a buffer{nearest(name, dict(self.named_buffers()))}")
            if buffer.shape != target.shape:
                got = f"an estimate of {name} of shape {list(target.shape)}"
                self._refuse(got, f"the buffer's shape, {list(buffer.shape)}")
            targets.append((buffer, target))
        return targets

    def give_gradients(self, updates: list[LayerUpdate]) -> None:
        """Every parameter's gradient, or None where the rule names none."""
        for k, (parameters, update) in enumerate(zip(self._named_parameters, updates, strict=True), 1):
            part = f"layer {k}" if k <= len(self.network) else "the readout"
            for name in update.keys() - parameters.keys():
                self._refuse(f"{name} of {part}", f"{', '.join(parameters)}{nearest(name, parameters)}")
            for name, parameter in parameters.items():
                grad = update.get(name)
                if grad is not None and grad.shape != parameter.shape:
                    got = f"a gradient of shape {list(grad.shape)} for {name} of {part}"
                    self._refuse(got, f"the parameter's shape, {list(parameter.shape)}")
                parameter.grad = None if grad is None else grad.to(parameter.dtype).contiguous()

    def _refuse(self, got: str, allowed: str) -> NoReturn:
        raise InvalidInput(f"{type(self).__name__}.layer_updates", got, allowed)

    # ---------------------------------------------------------------- what backpropagation would do

    def backpropagate(self, step: Step, down_to: int) -> list[LayerUpdate]:
        """Exact gradients of the readout's loss for the layers above the first ``down_to``."""
        return backpropagate(self.network, self.readout, step.states, step.readout, down_to)

    def end_to_end(self, step: Step) -> Updates:
        """What backpropagation makes of the batch, to compare with: gradients of the readout's loss for all layers."""
        return Updates(self.backpropagate(step, down_to=0))

    def top_errors(self, step: Step) -> list[tuple[list[LayerState], Tensor]]:
        """The error ``[R, B, F]`` from which :meth:`end_to_end` starts, with the states that it goes down through."""
        return [(step.states, step.readout.error_RBN / step.readout.error_RBN.shape[1])]

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The matrices that carry an error to each layer's output (``layer1``; ``layer1_projection``: to its units), each with
        the weights in whose place it stands, in the same shape; none by default."""
        return {}

    def weight_products(self) -> list[Tensor]:
        """What would carry an error from the logits straight to each layer's output if nothing stood in its way: ``[R, N, F]``,
        one a layer."""
        return weight_products(self.network, self.readout)


def clip_by_replica(grads: list[Tensor], clip: float) -> None:
    """Scale a layer's gradients, in each replica by itself, so that their norm is at most ``clip``."""
    if grads:
        wide = torch.promote_types(grads[0].dtype, torch.float32)
        square_R = torch.stack([grad.to(wide).square().flatten(1).sum(1) for grad in grads]).sum(0)
        scale_R = (clip / square_R.sqrt().clamp_min(1e-30)).clamp_max(1.0)
        for grad in grads:
            grad.mul_(scale_R.view(-1, *[1] * (grad.dim() - 1)))
