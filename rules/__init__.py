"""Local learning rules. A rule is one file here and one YAML in ``configs/rules``; the command line finds its class."""

from rules.local_rule import Locality, LocalRule, Step

__all__ = ["LocalRule", "Locality", "Step"]
