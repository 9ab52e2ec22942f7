"""Sign-symmetric feedback: the way down knows the signs of the weights, not their sizes.

Shape suffixes: R replica; the matrices have the shapes of the parameters that they stand for.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rhm.hashing import fold, normal
from rules.feedback_alignment import FeedbackAlignment


class SignFeedback(FeedbackAlignment):
    """``delta_l = D_l B_{l+1} delta_{l+1}`` with ``B = M * sign(W^T)``: feedback alignment with the right signs.

    Fixed or random: the sizes ``M > 0``; a subclass says which. Transported: the signs of the weights, at every step.
    Their mean square is that of the weights at the start, times ``feedback_scale**2``; BioTorch takes Xavier's standard
    deviation. Liao et al. need batch normalisation or the gradient's sign to train deep networks with it;
    here Adam takes that part.

    Args:
        network, optimizer, clip, form, feedback_scale: see :class:`rules.feedback_alignment.FeedbackAlignment`.
    """

    @abstractmethod
    def magnitude(self, k: int, name: str) -> Tensor:
        """``M`` for parameter ``name`` of part ``k``; broadcasts against it."""

    def feedback(self, k: int, name: str) -> Tensor:
        return self.magnitude(k, name) * self.parts[k - 1].get_parameter(name).sign()


class UniformSignFeedback(SignFeedback):
    """Uniform sign feedback (uSF): ``B = c sign(W^T)``, one size ``c`` for a whole matrix.

    Fixed: ``c``, the root mean square of the weights at the start times ``feedback_scale``. See :class:`SignFeedback`.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            dims = tuple(range(1, matrix.dim()))
            rms = matrix.detach().square().mean(dims, keepdim=True).sqrt()
            self.register_buffer(f"magnitude_{k}_{name}", rms * self.feedback_scale)

    def magnitude(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"magnitude_{k}_{name}")


class FixedRandomSignFeedback(SignFeedback):
    """Fixed random magnitude sign feedback (frSF): ``B = |M| * sign(W^T)``.

    Fixed: ``M``, a normal random matrix. See :class:`SignFeedback`. An early version of BioTorch left out the ``| |``, so that
    its signs did not agree with the weights'.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"

    def magnitude(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"feedback_{k}_{name}").abs()


class BatchwiseRandomSignFeedback(UniformSignFeedback):
    """Batchwise random magnitude sign feedback (brSF): ``B = |M_t| * sign(W^T)``.

    Random: ``M_t``, a normal random matrix drawn afresh at each step, the same on every rank. See :class:`SignFeedback`.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"
    key_R: Tensor

    def build(self) -> None:
        super().build()
        self.register_buffer("key_R", self.keys_R("magnitude"))

    def magnitude(self, k: int, name: str) -> Tensor:
        size = super().magnitude(k, name)
        fresh = normal(fold(self.key_R, k, name), tuple(self.parts[k - 1].get_parameter(name).shape[1:]))
        return fresh.abs().to(size.dtype) * size

    @torch.no_grad()
    def after_step(self) -> None:
        self.key_R.copy_(fold(self.key_R, "next step"))
