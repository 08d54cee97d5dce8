"""OpenVINO on its own conversion of the PyTorch model. The runtime keeps the cache. All values are float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov

from benchmarks.peers import run_steps
from benchmarks.report.record import Round

MODEL_FILE = "model.xml"


def prepare(checkpoint: Path, bundle: Path, folder: Path) -> None:
    """Writes the model in the format of OpenVINO."""
    from benchmarks.peers.openvino_file import write_openvino
    from slm.checkpoint import load_checkpoint

    write_openvino(load_checkpoint(checkpoint).model, folder / MODEL_FILE)


class OpenVino:
    """One compiled model and one sequence."""

    def __init__(self, folder: Path, threads: int) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
        }
        self._request = ov.Core().compile_model(folder / MODEL_FILE, "CPU", settings).create_infer_request()
        self._request.set_tensor("beam_idx", ov.Tensor(np.zeros(1, np.int32)))

    def _append(self, ids: list[int]) -> int:
        self._request.set_tensor("input_ids", ov.Tensor(np.array([ids], np.int64)))
        self._request.infer(share_outputs=True)
        return int(self._request.get_output_tensor().data[0, -1].argmax())

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Writes exactly `new_tokens` ids after a prompt; see `Peer`."""
        self._request.reset_state()
        return run_steps(lambda: [self._append(prompt)], lambda ids: [self._append(ids)], new_tokens)


def open_peer(folder: Path, threads: int) -> OpenVino:
    """Compiles a prepared model."""
    return OpenVino(folder, threads)
