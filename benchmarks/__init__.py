"""Measurements: every runner in one run, in turn, with medians and spread."""
