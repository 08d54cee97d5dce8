"""Hugging Face transformers on PyTorch: `generate` with its KV cache. The optimum peer uses the same loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.hugging_face_folder import write_hugging_face_folder
from benchmarks.report.record import Round
from export.formats.suppress_output import suppress_output
from slm.checkpoint import load_checkpoint


class _Stamps:
    """A streamer for `generate` that records the time of each id."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._prompt_came = False

    def put(self, ids: Tensor) -> None:
        """Receives the prompt first, then every new id."""
        if self._prompt_came:
            self.values.append(time.perf_counter())
        self._prompt_came = True

    def end(self) -> None:
        """Receives the end of the ids."""


class Generate:
    """A model with the `generate` method of Hugging Face transformers."""

    def __init__(self, model: Any, threads: int) -> None:  # noqa: ANN401 - one of two classes without types
        self._model, self._threads = model, threads

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Writes exactly `new_tokens` ids after a prompt; see `Peer`."""
        torch.set_num_threads(self._threads)
        row = torch.tensor([prompt])
        mask, stamps = torch.ones_like(row), _Stamps()
        started = time.perf_counter()
        written = self._model.generate(
            row,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            streamer=stamps,
        )
        ids = written[0, len(prompt) :].tolist()
        return Round.from_stamps([ids], started, stamps.values)


def prepare(checkpoint: Path, bundle: Path, folder: Path) -> None:
    """Writes the Hugging Face folder."""
    write_hugging_face_folder(load_checkpoint(checkpoint), folder)


def open_peer(folder: Path, threads: int) -> Generate:
    """Loads the folder into PyTorch."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    with suppress_output():
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        model.eval()  # type: ignore[no-untyped-call]
    return Generate(model, threads)
