"""Measures `slmx serve` and other servers on the same weights. `python -m benchmarks.studies.serving` runs it."""
