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

    Its settings file has what helped most of what was tried (docs/rules-at-their-best.md): normalised layers, of which its
    author has none, and weight decay .1, .3, 1 and 3 (1 is best) at rates of 1e-2 and 3e-2, falling. A bottleneck in their
    place is behind.
    """

    source = "Nokland 2016, arXiv 1609.01596"
    locality = Locality(error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN
