"""Tests of `slmx generate`."""
