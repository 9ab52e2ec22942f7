"""Fixed random magnitude sign feedback: the signs of the weights, random sizes that stay.

The matrices have the shapes of the parameters that they stand for.
"""

from __future__ import annotations

from torch import Tensor

from rules.sign_feedback import SignFeedback


class FixedRandomSignFeedback(SignFeedback):
    """Fixed random magnitude sign feedback (frSF): ``B = |M| * sign(W^T)``.

    Fixed: ``M``, a normal random matrix. See :class:`rules.sign_feedback.SignFeedback`. An early version of BioTorch left out
    the ``| |``, so that its signs did not agree with the weights'.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"

    def magnitude(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"feedback_{k}_{name}").abs()
