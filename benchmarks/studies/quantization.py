"""Measures every way to quantize a checkpoint: quality and speed, on this processor or an emulated one.

    python -m benchmarks.studies.quantization --eval-text FILE
    python -m benchmarks.studies.quantization --eval-text FILE --reader "valgrind --tool=none -q python"
    python -m benchmarks.studies.quantization --eval-text FILE --reader READER
    python -m benchmarks.studies.quantization --eval-text FILE --rounds 0 --model q8-block-32 --model q8-block-64

READER is for example "qemu-aarch64 -cpu cortex-a72 -L ROOT ROOT/bin/python3".

The quality depends on the processor. With AVX2, products of U8 and S8 saturate 16-bit sums. With VNNI they do not. A
reader is a command that starts Python on another processor. valgrind emulates a processor with AVX2 and without
AVX-512, and qemu emulates an ARM core. A reader needs only numpy, onnxruntime and tiktoken. Compare speeds under
emulation only with each other. With --rounds 0, speed is not measured, as on a machine that is busy.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from export.checks.fidelity import Reference, measure_fidelity
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.session import Session
from runtimes.system.machine import describe_machine
from runtimes.system.timing import alternate
from runtimes.types import SamplingParams
from slm.presets import GPTConfig

if TYPE_CHECKING:
    from export.formats.gptq import Products
    from slm.model import GPT

ARRAYS = "reading.npz"
SHAPE = "shape.json"
FLOAT = "fp32"
BLOCKS = (16, 32, 64, 128)


def prepare(folder: Path, checkpoint: Path, eval_text: Path, windows: int, models: list[str]) -> None:
    """Writes models (all if none is named) and the float model's logits on the text into a folder."""
    from export.checks.float_model import FloatModel
    from export.checks.float_model import eval_text as read_eval_text
    from export.formats.gptq import sample_products
    from export.formats.recipes import RECIPES
    from slm.blocks import BLOCK_RECIPES
    from slm.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    config = loaded.model.config
    float_model = FloatModel(
        loaded.model, read_eval_text(loaded.model, loaded.tokenizer, eval_text), windows * config.block_size
    )
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
    products = sample_products(loaded.model, loaded.tokenizer)
    write_models(loaded.model, folder, models or [*BLOCK_RECIPES, *RECIPES], products)


def write_models(model: GPT, folder: Path, names: Iterable[str], products: Products | None = None) -> None:
    """Writes `fp32.onnx` and a file for each name of a recipe, of q8 or int4, or of these with a size of blocks.

    Without `products`, the weights of int4 are rounded to the nearest numbers, which is as fast.
    """
    from export.formats.blockwise import quantize_blockwise
    from export.formats.fused import export_onnx
    from export.formats.quantize import quantize_int8
    from export.formats.recipes import get_recipe
    from slm.blocks import BLOCK_RECIPES

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
            quantize_blockwise(fp32, folder / f"{name}.onnx", recipe, products if recipe.bits == 4 else None)
        else:
            quantize_int8(fp32, folder / f"{name}.onnx", get_recipe(name))


def _shape(folder: Path) -> GPTConfig:
    return GPTConfig.from_dict(json.loads((folder / SHAPE).read_text("utf-8")), SHAPE)


def read_models(folder: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Returns quality and, with rounds, greedy speed on one thread of every model in a folder. It needs no torch."""
    arrays = np.load(folder / ARRAYS)
    logits = arrays["logits"]
    reading = Reference(arrays["inputs"], arrays["targets"], lambda row: logits[row], float(arrays["bytes_per_token"]))
    sessions = {path.stem: Session.open(path, _shape(folder), threads=1) for path in sorted(folder.glob("*.onnx"))}
    found: dict[str, Any] = {}
    for name, session in sessions.items():
        windows, decode = (
            asdict(measure_fidelity(session, reading, float(arrays["bits_per_byte"]), way)) for way in (False, True)
        )
        found[name] = {
            "bytes": (folder / f"{name}.onnx").stat().st_size,
            "windows": windows,
            "decode": decode,
        }
        print(name, f"{windows['bpb_increase']:+.3%} {decode['bpb_increase']:+.3%}", file=sys.stderr, flush=True)

    def timed(session: Session) -> Callable[[], float]:
        return lambda: decode_seconds(session, [0], SamplingParams(temperature=0), steps)

    if rounds:
        for name, samples in alternate({name: timed(session) for name, session in sessions.items()}, rounds).items():
            found[name]["seconds"] = samples.values
    return found


def main(
    eval_text: Annotated[Path | None, typer.Option(help="Stories that the model was not trained on.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The checkpoint; default: the shipped nano.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A recipe, or q8, int4, q8-block-N, int4-block-N; default: all without N.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="The number of context windows to read.")] = 64,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the speed measurement, 2 or more; 0: none.")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="Tokens in a round.")] = 200,
    reader: Annotated[str | None, typer.Option(help="A command that starts Python on another processor.")] = None,
    read: Annotated[Path | None, typer.Option(hidden=True)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the raw figures to this file.")] = None,
) -> None:
    """Measure and print a table."""
    if read is not None:
        found = read_models(read, rounds, steps)
        typer.echo(json.dumps({"onnxruntime": version("onnxruntime"), "models": found}))
        return
    if rounds == 1:
        raise typer.BadParameter("give 2 or more, or 0 for no speed", param_hint="--rounds")
    if eval_text is None:
        raise typer.BadParameter("give a file with stories", param_hint="--eval-text")
    with tempfile.TemporaryDirectory() as name:
        from slm.folder_kind import PRETRAINED

        folder = Path(name)
        prepare(folder, checkpoint or PRETRAINED / "nano", eval_text, windows, model or [])
        command = [*shlex.split(reader or sys.executable), "-m", "benchmarks.studies.quantization", "--read", name]
        settings = ["--rounds", str(rounds), "--steps", str(steps)]
        done = subprocess.run([*command, *settings], stdout=subprocess.PIPE, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
    heading = "| model | bytes | bpb increase, windows | bpb increase, decode | KL, decode | agreement |"
    typer.echo(heading + " steps/s, fp32 = 1 |" * bool(rounds))
    typer.echo("|---" * (7 if rounds else 6) + "|")
    for model_name, row in result["models"].items():
        windows_row, decode = row["windows"], row["decode"]
        line = (
            f"| {model_name} | {row['bytes']:,} | {windows_row['bpb_increase']:+.3%} | {decode['bpb_increase']:+.3%} | "
            f"{decode['kl']:.1e} | {decode['greedy_agreement']:.2%} |"
        )
        if rounds:
            line += f" {np.median(result['models'][FLOAT]['seconds']) / np.median(row['seconds']):.2f} |"
        typer.echo(line)
    if json_file is not None:
        record = {"machine": describe_machine(), "reader": reader, "windows": windows, "steps": steps, **result}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    typer.run(main)
