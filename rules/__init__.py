"""Local learning rules. A rule is one file here and one YAML in ``configs/rules``; the command line finds its class.

``rules/base`` has what rules share, a family in each file; ``rules/maths`` plain functions of tensors.
"""

from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule
from rules.checking import check_rule

__all__ = ["LocalRule", "Locality", "Step", "Updates", "check_rule"]
