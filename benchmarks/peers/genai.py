"""onnxruntime-genai on slmx's own graph: its C++ loop in place of ours.

Its configuration is the bundle's, without the end and padding tokens: with them it stops there.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import onnxruntime_genai as genai

from benchmarks.peers import Run
from runtimes.bundle.store import Bundle

CONFIG_FILE = "genai_config.json"
MODEL_FILE = "model.onnx"


def prepare(checkpoint: Path, bundle: Path, folder: Path, variant: str) -> None:
    """Copy a variant of a bundle and say where it is; SlmxError if the bundle lacks it."""
    shutil.copyfile(Bundle.open(bundle).model_path(variant), folder / MODEL_FILE)
    told = json.loads((bundle / CONFIG_FILE).read_text("utf-8"))
    told["model"]["decoder"]["filename"] = MODEL_FILE
    del told["model"]["eos_token_id"], told["model"]["pad_token_id"]
    (folder / CONFIG_FILE).write_text(json.dumps(told, indent=1), "utf-8")


class GenAI:
    """One model and one sequence, which every run rewinds to its beginning."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = genai.Config(str(folder))
        session_options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session_options}}}))
        self._model = genai.Model(config)
        self._generator = genai.Generator(self._model, genai.GeneratorParams(self._model))

    def greedy(self, prompt: list[int], new_tokens: int) -> Run:
        """Write exactly `new_tokens` ids behind a prompt."""
        generator, clock = self._generator, time.perf_counter
        generator.rewind_to(0)
        stamps: list[float] = []
        started = clock()
        generator.append_tokens(prompt)
        for _ in range(new_tokens):
            generator.generate_next_token()
            stamps.append(clock())
        ids = generator.get_sequence(0).tolist()[len(prompt) :]
        return Run.from_stamps(ids, started, stamps)


def open_peer(folder: Path, threads: int) -> GenAI:
    """Load a prepared folder."""
    return GenAI(folder, threads)
