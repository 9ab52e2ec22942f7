"""Many runs: studies, searches, comparisons, and the workers that make their runs."""
