"""Several experts, one answer: plan (route) -> run (orchestrator) -> decide (strategies) -> answer (report)."""
