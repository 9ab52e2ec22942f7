"""Direct feedback alignment: the output error through one random matrix a layer.

Shape suffixes: R replica, B batch, N classes.
"""

from __future__ import annotations

from torch import Tensor

from rules.base.contract import Locality, Step
from rules.base.direct_feedback import DirectFeedback


class DirectFeedbackAlignment(DirectFeedback):
    """Direct feedback alignment (Nokland 2016, eq. 7): ``delta_l = D_l B_l e``.

    Fixed: ``B_l``, random, see :class:`DirectFeedback`.
    """

    source = "Nokland 2016, arXiv 1609.01596"
    locality = Locality(error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN
