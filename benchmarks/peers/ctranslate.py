"""CTranslate2 on its own conversion of the GPT-2 folder, its whole loop in C++.

A callback at each id would slow its int8 loop by a tenth and more, so a run is two calls: one for all ids, and one
for the first alone, whose seconds stand for the first token; what the other took beyond them is the decode.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import ctranslate2

from benchmarks.peers import Run
from export.formats.quiet import quiet

# The converter writes it: one token a row, by id.
VOCABULARY_FILE = "vocabulary.json"


def prepare(checkpoint: Path, bundle: Path, folder: Path, quantization: str) -> None:
    """Convert the weights to "float32" or "int8"."""
    from ctranslate2.converters import TransformersConverter

    from benchmarks.peers.gpt2_folder import write_gpt2_folder
    from slm.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory() as work, quiet():
        write_gpt2_folder(load_checkpoint(checkpoint), Path(work))
        TransformersConverter(work).convert(str(folder), quantization=quantization, force=True)


class CTranslate2:
    """A generator, one sequence at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._generator = ctranslate2.Generator(str(folder), device="cpu", inter_threads=1, intra_threads=threads)
        self._tokens: list[str] = json.loads((folder / VOCABULARY_FILE).read_text("utf-8"))

    def _write(self, start: list[str], new_tokens: int) -> tuple[list[int], float]:
        """Ids behind the start tokens, and seconds."""
        started = time.perf_counter()
        (result,) = self._generator.generate_batch(
            [start], max_length=new_tokens, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return result.sequences_ids[0], time.perf_counter() - started

    def greedy(self, prompt: list[int], new_tokens: int) -> Run:
        """Write exactly `new_tokens` ids behind a prompt."""
        start = [self._tokens[i] for i in prompt]
        ids, whole = self._write(start, new_tokens)
        _, first = self._write(start, 1)
        return Run(ids, first, max(0.0, whole - first), [])


def open_peer(folder: Path, threads: int) -> CTranslate2:
    """Load a converted model."""
    return CTranslate2(folder, threads)
