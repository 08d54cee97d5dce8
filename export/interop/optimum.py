"""Hugging Face optimum on a bundle: `ORTModelForCausalLM`, with the `generate` method of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForCausalLM
from optimum.onnxruntime.modeling import SessionOptions

from export.interop.registry import FATAL_ONLY, CannotRunError, Greedy, fits_optimum
from runtimes.bundle.store import Bundle

CONFIG_FILES = ("config.json", "generation_config.json")


def open_variant(bundle: Bundle, variant: str, folder: Path) -> Greedy:
    """Opens a variant; see `OpenVariant`. optimum raises its own errors.

    Raises:
        CannotRunError: optimum cannot run a model of this shape.
    """
    shape = bundle.config
    if not fits_optimum(shape):
        raise CannotRunError(
            f"optimum takes {shape.n_embd} channels / {shape.n_head} heads for the width of a head, which is "
            f"{shape.head_dim} here"
        )
    for name in CONFIG_FILES:
        (folder / name).write_bytes(bundle.read(name))
    graph = folder / bundle.manifest.variants[variant].file
    graph.parent.mkdir(parents=True, exist_ok=True)
    graph.write_bytes(bundle.model_bytes(variant))
    options = SessionOptions()
    options.log_severity_level = FATAL_ONLY
    model = ORTModelForCausalLM.from_pretrained(
        folder,
        subfolder=graph.parent.relative_to(folder).as_posix(),
        file_name=graph.name,
        session_options=options,
        local_files_only=True,
    )

    def greedy(prompt: list[int], new_tokens: int) -> list[int]:
        row = torch.tensor([prompt])
        written = model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None
        )
        ids: list[int] = written[0, len(prompt) :].tolist()
        return ids

    return greedy
