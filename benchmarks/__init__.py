"""Benchmarks. All runners are measured in turn in one run, with medians and spread."""

import runtimes as runtimes  # before onnxruntime: it turns telemetry off
