"""Direct feedback of the error's signs.

Shape suffixes: R replica, B batch, N classes.
"""

from __future__ import annotations

from torch import Tensor

from rules.base.contract import Locality, Step
from rules.base.direct_feedback import DirectFeedback


class SignDirectFeedbackAlignment(DirectFeedback):
    """Direct feedback of the error's signs (sDFA): ``delta_l = D_l B_l sign(e)``.

    Fixed: ``B_l``, random, see :class:`DirectFeedback`. The update does not shrink as the error does.

    With a softmax, as with the authors' sigmoid outputs, an error is negative for the class and positive for all others:
    ``sign(e) = 1 - 2 y*`` is the signal of :class:`rules.drtp.DirectRandomTargetProjection` twice, and a part that is the
    same for all strings, which costs: .49 in place of DRTP's .77 at 1,408 strings with the same settings. Tried: normalised
    layers, rates 1e-2 and 3e-2, weight decay .1, .3 and 1 (docs/rules-at-their-best.md).
    """

    source = "Frenkel, Lefebvre, Bol 2021, arXiv 1909.01311 (sDFA); Nokland 2016, arXiv 1609.01596"
    locality = Locality(error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN.sign()
