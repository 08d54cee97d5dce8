"""Measures every way to quantize a checkpoint: quality and speed, on this processor or an emulated one.

    python -m benchmarks.studies.quantization --text FILE
    python -m benchmarks.studies.quantization --text FILE --reader "valgrind --tool=none -q python"
    python -m benchmarks.studies.quantization --text FILE --reader READER
    python -m benchmarks.studies.quantization --text FILE --rounds 0 --model q8-block-32 --model q8-block-64

READER is for example "qemu-aarch64 -cpu cortex-a72 -L ROOT ROOT/bin/python3".

The quality depends on the processor. With AVX2, products of U8 and S8 saturate 16-bit sums. With VNNI they do not. A
reader is a command that starts Python on another processor. valgrind emulates a processor with AVX2 and without
AVX-512, and qemu emulates an ARM core. A reader needs only numpy, onnxruntime and tiktoken. Compare speeds under
emulation only with each other. With --rounds 0, speed is not measured, as on a machine that is busy.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.studies.quantization_reader import ARRAYS, SHAPE
from benchmarks.studies.results import Out, write_results
from export.checks.float_model import FloatModel, eval_text
from export.formats.blockwise import quantize_blockwise
from export.formats.fused import export_onnx
from export.formats.gptq import Hessians, calibrate
from export.formats.quantize import quantize_int8
from export.formats.recipes import RECIPES, get_recipe
from slm.blocks import BLOCK_RECIPES
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.folder_kind import PRETRAINED
from slm.model import GPT

FLOAT = "fp32"
BLOCKS = (16, 32, 64, 128)


def prepare(folder: Path, checkpoint: Path, text: Path, windows: int, models: list[str]) -> None:
    """Writes models (all if none is named) and the float model's logits on the text into a folder."""
    loaded = load_checkpoint(checkpoint)
    config = loaded.model.config
    float_model = FloatModel(loaded.model, eval_text(loaded.model, loaded.tokenizer, text), windows * config.block_size)
    reading = float_model.reference
    np.savez(
        folder / ARRAYS,
        inputs=reading.inputs,
        targets=reading.targets,
        logits=np.stack([reading.logits(row) for row in range(len(reading.inputs))]),
        bytes_per_token=reading.bytes_per_token,
        bits_per_byte=float_model.float_bits_per_byte,
    )
    (folder / SHAPE).write_text(json.dumps(config.to_dict()), "utf-8", newline="\n")
    hessians = calibrate(loaded.model, loaded.tokenizer)
    write_models(loaded.model, folder, models or [*BLOCK_RECIPES, *RECIPES], hessians)


def write_models(model: GPT, folder: Path, names: Iterable[str], hessians: Hessians | None = None) -> None:
    """Writes `fp32.onnx` and a file for each name of a recipe, of q8 or int4, or of these with a size of blocks.

    Without `hessians`, the weights of int4 are rounded to the nearest numbers, which is as fast.
    """
    fp32 = folder / f"{FLOAT}.onnx"
    export_onnx(model, fp32)
    in_blocks = BLOCK_RECIPES | {
        f"{name}-block-{block}": replace(recipe, largest_block=block)
        for name, recipe in BLOCK_RECIPES.items()
        for block in BLOCKS
    }
    for name in names:
        if name in in_blocks:
            recipe = in_blocks[name]
            quantize_blockwise(fp32, folder / f"{name}.onnx", recipe, hessians if recipe.bits == 4 else None)
        else:
            quantize_int8(fp32, folder / f"{name}.onnx", get_recipe(name))


def table(models: Mapping[str, Any], with_speed: bool) -> str:
    """Returns the figures of the models as Markdown."""
    heading = "| model | bytes | bpb increase, windows | bpb increase, decode | KL, decode | agreement |"
    lines = [heading + " steps/s, fp32 = 1 |" * with_speed, "|---" * (6 + with_speed) + "|"]
    for name, row in models.items():
        windows, decode = row["windows"], row["decode"]
        cells = [name, f"{row['bytes']:,}", f"{windows['bpb_increase']:+.3%}", f"{decode['bpb_increase']:+.3%}"]
        cells += [f"{decode['kl']:.1e}", f"{decode['greedy_agreement']:.2%}"]
        if with_speed:
            cells.append(f"{np.median(models[FLOAT]['seconds']) / np.median(row['seconds']):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    text: Annotated[Path, typer.Option(help="Stories that the model was not trained on.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint.")] = PRETRAINED / "nano",
    model: Annotated[
        list[str] | None, typer.Option(help="A recipe, or q8, int4, q8-block-N, int4-block-N; default: all without N.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="The number of context windows to read.")] = 64,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the speed measurement, 2 or more; 0: none.")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="Tokens in a round.")] = 200,
    reader: Annotated[str | None, typer.Option(help="A command that starts Python on another processor.")] = None,
    out: Out = None,
) -> None:
    """Measure and print a table."""
    if rounds == 1:
        raise UsageError("--rounds 1: give 2 or more, or 0 for no speed")
    try:
        python = shlex.split(reader) if reader else [sys.executable]
    except ValueError as error:
        raise UsageError(f"--reader {reader}: not a command ({error})") from None
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), checkpoint, text, windows, model or [])
        command = [*python, "-m", "benchmarks.studies.quantization_reader", folder]
        settings = ["--rounds", str(rounds), "--steps", str(steps)]
        output = output_of([*command, *settings], "reading the models", shows_errors=True)
    try:
        results: dict[str, Any] = json.loads(output)
    except ValueError:
        raise SlmxError(f"--reader {reader}: it printed no figures; name a command that starts Python") from None
    typer.echo(table(results["models"], with_speed=bool(rounds)))
    write_results(out, {"reader": reader, "windows": windows, "rounds": rounds, "steps": steps}, results)


if __name__ == "__main__":
    run(main)
