"""Makes a bundle from a checkpoint: the ONNX graph, quantization, checks, manifest, model card."""

import runtimes as runtimes  # before onnxruntime: it turns telemetry off
