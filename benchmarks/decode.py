"""Greedy decoding of every preset: int8 and fp32 against PyTorch and llama.cpp, same weights, in one run.

    python -m benchmarks.decode --preset nano --preset micro --json docs/decode.json

A preset without a shipped checkpoint is measured on random weights, which decode as fast. llama.cpp is skipped when it
is not installed (pip install llama-cpp-python gguf). Before it is timed, each side's logits behind the prompt are held
against PyTorch's, so that nobody is timed on a wrong answer.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from export.graph import export_onnx
from export.quantize import DEFAULT_RECIPE, get_recipe, quantize_int8
from export.torch_cache import float_session
from runtimes.cache import FloatArray
from runtimes.machine import describe_machine
from runtimes.sampler import Sampling
from runtimes.session import Session
from runtimes.timing import Samples, alternate, decode_seconds
from slm.checkpoint import PRETRAINED, Checkpoint, load_checkpoint
from slm.errors import SlmxError
from slm.untrained import untrained_checkpoint

PROMPT = "Once upon a time"
TOKENS = 200
# Least correlation of logits with PyTorch's; a wrong graph has about 0, 4 bits on random weights 0.97.
ALIKE = 0.95
LLAMA_TYPES = ("Q8_0", "Q4_0", "F32")


def torch_seconds(session: Session, prompt: list[int], tokens: int) -> float:
    """Seconds for greedy steps of the float model in eager PyTorch with its own KV cache."""
    torch.set_num_threads(session.threads)
    return decode_seconds(session, prompt, Sampling(temperature=0), tokens)


def _check(name: str, logits: FloatArray, expected: FloatArray) -> None:
    alike = float(np.corrcoef(logits, expected)[0, 1])
    if not alike >= ALIKE:
        raise SlmxError(f"{name}: its logits are not PyTorch's (correlation {alike:.3f}); not timed")


def measure(checkpoint: Checkpoint, folder: Path, rounds: int, counts: list[int]) -> dict[str, Samples]:
    """Seconds for the same greedy steps by every side and number of threads, all in turn."""
    model, config = checkpoint.model, checkpoint.model.config
    prompt = [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode(PROMPT)]
    tokens = min(TOKENS, config.block_size - len(prompt) - 1)
    with torch.inference_mode():
        expected = model(torch.tensor([prompt]))[0, -1].numpy()
    export_onnx(model, folder / "fp32.onnx")
    quantize_int8(folder / "fp32.onnx", folder / "int8.onnx", get_recipe(DEFAULT_RECIPE))
    sides: dict[str, Callable[[], float]] = {}
    for count in counts:
        sides[f"torch eager|{count}"] = partial(torch_seconds, float_session(model, count), prompt, tokens)
        for variant in ("fp32", "int8"):
            session = Session.open(folder / f"{variant}.onnx", config, count)
            _check(variant, session.prefill(prompt), expected)
            sides[f"{variant}|{count}"] = partial(decode_seconds, session, prompt, Sampling(temperature=0), tokens)
    if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("gguf"):
        from benchmarks.peers.llama_cpp import LlamaCpp, write_gguf

        for kind in LLAMA_TYPES:
            write_gguf(checkpoint, folder / f"{kind}.gguf", kind)
            for count in counts:
                peer = LlamaCpp(folder / f"{kind}.gguf", config.block_size, count)
                _check(f"llama.cpp {kind}", peer.logits(prompt), expected)
                sides[f"llama.cpp {kind}|{count}"] = partial(peer.greedy_seconds, prompt, tokens)
    else:
        typer.echo("llama.cpp: skipped (pip install llama-cpp-python gguf)", err=True)
    taken = alternate(sides, rounds)
    return {name: Samples([value / tokens for value in samples.values]) for name, samples in taken.items()}


def main(
    preset: Annotated[list[str] | None, typer.Option(help="Repeat for more; default: nano to medium.")] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Of every side, in turn.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the raw samples here.")] = None,
) -> None:
    """Measure and print a row for each side, and the ratios of int8."""
    machine = describe_machine()
    counts = sorted({1, int(machine["cores"])})
    record: dict[str, Any] = {"machine": machine, "prompt": PROMPT, "seconds_per_token": {}}
    for name in preset or ("nano", "micro", "small", "medium"):
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            (folder / "checkpoint").mkdir()
            shipped = PRETRAINED / name
            source = shipped if shipped.is_dir() else untrained_checkpoint(name, folder / "checkpoint")
            samples = measure(load_checkpoint(source), folder, rounds, counts)
        record["seconds_per_token"][name] = {side: values.values for side, values in samples.items()}
        best: dict[str, float] = {}
        for side, values in samples.items():
            kind = side.split("|")[0]
            best[kind] = min(best.get(kind, values.median), values.median)
            typer.echo(f"{name:<8} {side:<18} {1 / values.median:>8,.0f} tokens/s  +-{values.spread:.0%}")
        ratios = {kind: seconds / best["int8"] for kind, seconds in best.items() if kind != "int8"}
        typer.echo(f"{name:<8} int8 is " + ", ".join(f"{ratio:.2f}x {kind}" for kind, ratio in ratios.items()))
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
