"""Measurements: every side in one run, alternating, medians with spread."""
