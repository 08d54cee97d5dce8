"""Benchmarks. All runners are measured in turn in one run, with medians and spread."""
