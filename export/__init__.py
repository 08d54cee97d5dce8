"""Checkpoint to bundle: the ONNX graph, quantization, judgement, manifest, model card."""

import runtimes as runtimes  # before onnxruntime: it turns telemetry off
