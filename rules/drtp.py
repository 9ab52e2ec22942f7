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
    signal does not shrink when the answer is right: ReLU units grow without bound, unless what they hand on is normalised,
    as in the settings file. The authors have tanh units instead, which normalised layers of ReLUs are ahead of (.77 against
    .50 at 1,408 strings). Tried as well: rate 3e-2, weight decay .1, .3 and 1, of which the least is best
    (docs/rules-at-their-best.md).
    """

    source = "Frenkel, Lefebvre, Bol 2021, arXiv 1909.01311"
    locality = Locality(label=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return -functional.one_hot(step.batch.y_RB.long(), self.data.task.n).to(step.readout.error_RBN.dtype)
