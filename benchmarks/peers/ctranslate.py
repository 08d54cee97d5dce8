"""CTranslate2 on its own conversion of the GPT-2 folder. Its loop is in C++.

A callback for each id would slow down its int8 loop by 10 % or more. Therefore a round has two calls: one that writes
all ids, and one that writes only the first. The second call gives the time to the first token. The difference between
the two calls is the decode time.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt

from benchmarks.report.record import Round
from export.formats.suppress_output import suppress_output

# The converter writes this file. It lists the tokens in the order of their ids.
VOCABULARY_FILE = "vocabulary.json"


def prepare(checkpoint: Path, bundle: Path, folder: Path, quantization: str) -> None:
    """Converts the weights to "float32" or "int8"."""
    from ctranslate2.converters import TransformersConverter

    from benchmarks.peers.hugging_face_folder import write_hugging_face_folder
    from slm.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory() as work, suppress_output():
        write_hugging_face_folder(load_checkpoint(checkpoint), Path(work))
        TransformersConverter(work).convert(str(folder), quantization=quantization, force=True)


class CTranslate2:
    """A generator, for one sequence at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._generator = ctranslate2.Generator(str(folder), device="cpu", inter_threads=1, intra_threads=threads)
        self._tokens: list[str] = json.loads((folder / VOCABULARY_FILE).read_text("utf-8"))

    def _write(self, start: list[str], new_tokens: int) -> tuple[list[int], float]:
        """Returns the ids after the start tokens, and the seconds."""
        started = time.perf_counter()
        (result,) = self._generator.generate_batch(
            [start], max_length=new_tokens, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        return result.sequences_ids[0], time.perf_counter() - started

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Writes exactly `new_tokens` ids after a prompt; see `Peer`."""
        start = [self._tokens[i] for i in prompt]
        ids, whole = self._write(start, new_tokens)
        _, first = self._write(start, 1)
        return Round([ids], first, max(0.0, whole - first), [])

    def read(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Returns the logits float32 [ids, vocab] after each of the ids; see `Reader`."""
        batch = self._generator.forward_batch([[self._tokens[i] for i in ids]])
        logits: npt.NDArray[np.float32] = np.array(batch, np.float32)[0]
        return logits


def open_peer(folder: Path, threads: int) -> CTranslate2:
    """Loads a converted model."""
    return CTranslate2(folder, threads)
