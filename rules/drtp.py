"""Direct random target projection: the class in the error's place.

Shape suffixes: R replica, B batch, N classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from rules.base.contract import Locality, Step
from rules.base.direct_feedback import DirectFeedback


class DirectRandomTargetProjection(DirectFeedback):
    """Direct random target projection (Frenkel et al. 2021): ``delta_l = -D_l B_l y*``.

    ``y*`` is the one-hot class: a layer learns before the network has answered. The minus is the one of ``e = p - y*``. The
    signal does not shrink when the answer is right: ReLU units grow without bound, saturating ones such as tanh do not.
    """

    source = "Frenkel, Lefebvre, Bol 2021, arXiv 1909.01311"
    locality = Locality(label=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return -functional.one_hot(step.batch.y_RB.long(), self.data.task.n).to(step.readout.error_RBN.dtype)
