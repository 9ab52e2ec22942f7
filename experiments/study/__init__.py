"""Many runs: studies, their searches, and the workers that make their runs."""
