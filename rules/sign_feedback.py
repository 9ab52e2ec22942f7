"""Feedback that knows the signs of the weights but not their sizes.

Shape suffixes: R replica; matrices have the shape of the parameter that they stand for.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from rhm.hashing import fold, normal
from rules.feedback_alignment import LayeredFeedback, random_like, root_mean_square
from rules.local_rule import Step


class SignFeedback(LayeredFeedback):
    """``B = M sign(W)``, elementwise: sign-concordant feedback; a subclass gives the magnitudes ``M``.

    The signs follow the weights as they learn. ``M`` has the root mean square of the weights at the start.
    """

    @abstractmethod
    def magnitude(self, step: Step, k: int, name: str) -> Tensor:
        """``M >= 0``, of the parameter's shape or one that broadcasts to it."""

    def feedback(self, step: Step, k: int, name: str) -> Tensor:
        return self.magnitude(step, k, name) * self.parts[k - 1].get_parameter(name).sign()


class UniformSignFeedback(SignFeedback):
    """Uniform sign-concordant feedback, uSF (Liao, Leibo, Poggio 2016): ``B = c sign(W)``.

    Fixed: ``c``, one number for each matrix, the root mean square of the weights at the start.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            self.register_buffer(f"magnitude_{k}_{name}", root_mean_square(matrix))

    def magnitude(self, step: Step, k: int, name: str) -> Tensor:
        return self.get_buffer(f"magnitude_{k}_{name}")


class FreshSignFeedback(UniformSignFeedback):
    """Batchwise random sign-concordant feedback, brSF (Liao, Leibo, Poggio 2016): ``B = |M| sign(W)``, ``M`` drawn anew each
    step.

    Fixed: the standard deviation of the normal ``M``.
    """

    def magnitude(self, step: Step, k: int, name: str) -> Tensor:
        assert step.batch.key_RB is not None
        keys_R = fold(step.batch.key_RB[:, 0], k, name)  # the first string's place in the run: one key a step
        rms = super().magnitude(step, k, name)
        return rms * normal(keys_R, tuple(self.parts[k - 1].get_parameter(name).shape[1:])).to(rms.dtype).abs()


class FixedSignFeedback(SignFeedback):
    """Fixed random magnitude sign-concordant feedback, frSF (Liao, Leibo, Poggio 2016): ``B = |M| sign(W)``.

    Fixed: ``M``, normal, drawn once.
    """

    source = UniformSignFeedback.source

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            self.register_buffer(f"magnitude_{k}_{name}", random_like(matrix, self.keys_R(k, name)).abs())

    def magnitude(self, step: Step, k: int, name: str) -> Tensor:
        return self.get_buffer(f"magnitude_{k}_{name}")
