"""Local learning rules. A rule is one file here and one YAML in ``configs/rules``; the command line finds it by its class name."""

from rules.local_rule import LocalRule, Locality, Step

__all__ = ["LocalRule", "Locality", "Step"]
