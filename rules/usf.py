"""Uniform sign feedback: the signs of the weights, one size for a whole matrix.

The matrices have the shapes of the parameters that they stand for.
"""

from __future__ import annotations

from torch import Tensor

from rules.sign_feedback import SignFeedback


class UniformSignFeedback(SignFeedback):
    """Uniform sign feedback (uSF): ``B = c sign(W^T)``, one size ``c`` for a whole matrix.

    Fixed: ``c``, the root mean square of the weights at the start times ``feedback_scale``. See
    :class:`rules.sign_feedback.SignFeedback`.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            dims = tuple(range(1, matrix.dim()))
            rms = matrix.detach().square().mean(dims, keepdim=True).sqrt()
            self.register_buffer(f"magnitude_{k}_{name}", rms * self.feedback_scale)

    def magnitude(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"magnitude_{k}_{name}")
