"""Measurements: ours and another in turn in one run, medians, both sides printed. Never a timed test."""
