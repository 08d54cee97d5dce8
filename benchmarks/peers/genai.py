"""onnxruntime-genai on the graph of a bundle. Its loop is in C++.

Its configuration is that of the bundle with an end token that no text has, so it does not stop.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import onnxruntime_genai as genai

from benchmarks.report.record import Round
from export.interop.genai import write_folder
from runtimes.bundle.store import Bundle


def prepare(checkpoint: Path, bundle: Path, folder: Path, variant: str) -> None:
    """Writes a variant of a bundle and its configuration; SlmxError if the bundle does not have the variant."""
    write_folder(Bundle.open(bundle), variant, folder)


class GenAI:
    """One model and one sequence. Every run starts it from the beginning."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = genai.Config(str(folder))
        session_options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session_options}}}))
        self._model = genai.Model(config)
        self._generator = genai.Generator(self._model, genai.GeneratorParams(self._model))

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Writes exactly `new_tokens` ids after a prompt; see `Peer`."""
        generator, clock = self._generator, time.perf_counter
        generator.rewind_to(0)
        stamps: list[float] = []
        started = clock()
        generator.append_tokens(prompt)
        for _ in range(new_tokens):
            generator.generate_next_token()
            stamps.append(clock())
        ids = generator.get_sequence(0).tolist()[len(prompt) :]
        return Round.from_stamps([ids], started, stamps)


def open_peer(folder: Path, threads: int) -> GenAI:
    """Loads a prepared folder."""
    return GenAI(folder, threads)
