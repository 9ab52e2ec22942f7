"""Layers that predict their sibling's code, and code what they predict.

Shape suffixes: R replica, B batch, D position or pair, C channel, G groups of positions, M rows (strings times positions), E
units, S codebooks, K symbols of a codebook, J = 2 K predictions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional

from datamodules import SiblingPairs
from networks import CodeNetwork, Layer, LayerState, LayerUpdate
from networks.code import Code
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network


class Codes(NamedTuple):
    """What a layer predicts and codes in a step.

    Attributes:
        u_RME: units.
        q_RMSJ: predictions.
        t_RMSK: soft codes.
        winner_RMSK: winners, one-hot.
        strings: strings of the batch on this rank.
    """

    u_RME: Tensor
    q_RMSJ: Tensor
    t_RMSK: Tensor
    winner_RMSK: Tensor
    strings: int


class CodePrediction(LocalRule):
    """Predict the sibling's discrete code; similar predictions get the same code.

    In each of ``S`` codebooks of a layer, for the units ``u`` of a position and the code ``t`` of its sibling:

        q       = (u - mean u) U                               what the position tells of a sibling to its right and to its left
        k       = argmax_j cos(q, c_j) - a log(K p_j)          winner; ``p_j``: how often ``j`` won (DeSieno 1988)
        t       = softmax_j((cos(q, c_j) - a log(K p_j)) / T)  the soft code, which the sibling has to predict
        dU      = cov(u, t_sibling - q)                        delta rule, for the side on which the sibling lies
        c_j    += rate (mean t_j q / |q| - c_j)                competitive Hebbian learning
        joint  += rate (k_left k_right^T - joint)

    ``cov`` takes the means over all positions out, not those of left and right siblings by themselves. What is handed on is the
    nearest prototype, without the conscience, in the codebook with the largest mutual information of ``joint``, which counts
    winners with it. Synonyms tell the same of their siblings, so they get the same code; ``S`` codebooks with different initial
    weights, because one alone often splits a symbol and merges two others. With ``stagger`` a layer learns once the layer below
    it has settled.

    Sees: its own units and codes, for both siblings, and the batch's means. Fixed and random: the expansion ``phi(W x + b)``.
    Learned: ``U``, through the optimizer; ``c``, ``joint`` and ``mean u``, running averages. Layers above those that have
    siblings stay random under the readout. With ``stagger`` a run needs as many steps for each layer that has siblings. Akin to
    prototype prediction (Caron et al. 2020, 2021), without gradients through codes. Not known: an objective that all of this
    descends.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; the network needs ``codebooks``.
        rate: of the running averages.
        stagger: steps that each layer learns, one after another from the first; null lets all layers learn always.
        conscience: ``a``; 0 lets codes be as rare as they like.
        temperature: ``T``.

    Raises:
        InvalidInput: a value out of its range; a network without codebooks; pairs that are not siblings.
    """

    family = "self-supervised"
    source = "this project; conscience: DeSieno 1988; prototypes: Caron et al. 2020, arXiv 2006.09882"
    knowledge = "none"
    uses_pairs = True
    upper_layers_learn = False
    locality = Locality(partner=True, batch=True, lateral=True)
    takes_codes = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        rate: float = 0.05,
        stagger: int | None = 400,
        conscience: float = 0.1,
        temperature: float = 0.1,
    ):
        super().__init__(network, optimizer, clip)
        if network.codebooks is None:
            raise InvalidInput("model.network.codebooks", None, "an integer of at least 1 for CodePrediction")
        if isinstance(network, CodeNetwork):
            raise InvalidInput("model.network", "CodeNetwork", "HierarchicalNetwork with codebooks for CodePrediction")
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number above 0 and at most 1")
        if stagger is not None and stagger < 1:
            raise InvalidInput("model.stagger", stagger, "a number of steps, at least 1, or null")
        if conscience < 0:
            raise InvalidInput("model.conscience", conscience, "a number of at least 0")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.rate, self.stagger, self.conscience, self.temperature = rate, stagger, conscience, temperature

    def build(self) -> None:
        if not isinstance(self.pairs, SiblingPairs):
            raise InvalidInput("data.pairs", type(self.pairs).__name__, "SiblingPairs for CodePrediction")
        if self.trained_layers == 0:
            network = type(self.network_config).__name__
            raise InvalidInput(
                "data.pairs", f"SiblingPairs with a {network} of {len(self.network)} layers", "layers with siblings"
            )

    @property
    def trained_layers(self) -> int:
        return self.pairs.layers(self.patches)

    def on_fit_start(self) -> None:
        """Say so if a run is too short for all layers to have their turn."""
        super().on_fit_start()
        steps, needed = self.trainer.max_steps, (self.stagger or 0) * self.trained_layers
        if steps < needed:
            turns = f"{self.trained_layers} layers that learn one after another, model.stagger={self.stagger} steps each"
            rank_zero_warn(f"trainer.max_steps={steps} leaves layers untrained: {turns}, need {needed}")

    def learns(self, k: int) -> bool:
        """Whether it is the turn of layer ``k``, from 1."""
        steps = 0 if self._trainer is None else self.trainer.global_step
        return self.stagger is None or (k - 1) * self.stagger <= steps < k * self.stagger

    def layer_updates(self, step: Step) -> Updates:
        learning = [k for k in range(1, self.trained_layers + 1) if self.learns(k)]
        seen = {k: self.codes(self.network.layers[k - 1], step.states[k - 1]) for k in learning}
        tracked = [x for codes in seen.values() for x in (codes.u_RME, codes.q_RMSJ, codes.t_RMSK)]
        means = iter(self.mean_over_ranks([x.mean(1, keepdim=True) for x in tracked]))
        updates = Updates([{} for _ in range(self.trained_layers)])
        for k in learning:
            update, estimates, loss_R = self.layer_update(k, seen[k], next(means), next(means), next(means))
            updates.layers[k - 1].update(update)
            updates.estimates.update({f"network.layers.{k - 1}.code.{name}": value for name, value in estimates.items()})
            updates.losses[f"loss/layer{k}"] = loss_R
        return updates

    def codes(self, layer: Layer, state: LayerState) -> Codes:
        """What a layer predicts and codes."""
        code = layer.code
        assert isinstance(code, Code)
        u_RME = state.units_RGME[:, 0].to(code.mean_R1E.dtype)
        q_RMSJ = code.predict(u_RME)
        scores = code.scores(q_RMSJ) - self.conscience * (code.symbols * code.frequency_RSK).clamp_min(1e-4).log()[:, None]
        winner_RMSK = functional.one_hot(scores.argmax(-1), code.symbols).to(q_RMSJ.dtype)
        return Codes(u_RME, q_RMSJ, (scores / self.temperature).softmax(-1), winner_RMSK, state.out_RBDC.shape[1])

    def layer_update(
        self, k: int, codes: Codes, mean_u: Tensor, mean_q: Tensor, mean_t: Tensor
    ) -> tuple[LayerUpdate, LayerUpdate, Tensor]:
        """The predictor's gradient for layer ``k``, estimates of all that its code tracks by name, and the error's mean square
        ``[R]``. Means are those over the whole batch."""
        u_RME, q_RMSJ, t_RMSK, winner_RMSK, batch = codes
        patch = self.network.layers[k].patch

        def sides(x_RMSK: Tensor) -> tuple[Tensor, Tensor]:
            return self.pairs.positives(x_RMSK.flatten(2).unflatten(1, (batch, -1)), None, patch)

        def rows(first: Tensor, second: Tensor) -> Tensor:
            return self.pairs.hand_back(first, second, patch)[0].reshape(t_RMSK.shape)

        to_right, to_left = (q_RMSJ - mean_q).chunk(2, -1)
        left, right = sides(t_RMSK - mean_t)
        error1, error2 = right - sides(to_right)[0], left - sides(to_left)[1]
        none, pairs = torch.zeros_like(error1), error1.shape[1] * error1.shape[2]
        error_RMSJ = torch.cat([rows(error1, none), rows(none, error2)], -1)

        k_left, k_right = (w.flatten(1, 2).unflatten(-1, t_RMSK.shape[2:]) for w in sides(winner_RMSK))
        estimates = {
            "mean_R1E": mean_u,
            "prototypes_RSKJ": torch.einsum("rnsk,rnsj->rskj", t_RMSK, functional.normalize(q_RMSJ, dim=-1)) / t_RMSK.shape[1],
            "joint_RSKK": torch.einsum("rnsa,rnsb->rsab", k_left, k_right) / pairs,
        }
        gradient = -torch.bmm((u_RME - mean_u).transpose(1, 2), error_RMSJ.flatten(2)) / pairs
        return {"code.predictor_REP": gradient}, estimates, (error1.square() + error2.square()).mean((1, 2, 3))
