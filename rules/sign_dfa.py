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
    """

    source = "Nokland 2016, arXiv 1609.01596 with the error's sign"
    locality = Locality(error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN.sign()
