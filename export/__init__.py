"""Checkpoint to bundle: the ONNX graph, quantization, judgement, manifest, model card."""
