"""Every int8 recipe on one checkpoint: what it loses, and how fast it is. The table of docs/int8.md.

    python -m benchmarks.int8_recipes --eval-text FILE            quality and speed on this CPU
    python -m benchmarks.int8_recipes --eval-text FILE --avx2     quality on an AVX2 CPU without VNNI

U8xS8 products saturate 16-bit sums on AVX2 and do not with VNNI, so a loss measured on one says nothing of
the other. The second form runs the reading under valgrind, whose CPU has AVX2 and no AVX-512: the same
arithmetic, many times slower, no speed measured.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.machine import describe_machine
from export.quality import Reading, measure_quality
from runtimes.session import Session
from runtimes.timing import alternate
from slm.errors import SlmxError
from slm.presets import GPTConfig

FLOAT = "float"
ARRAYS = "reading.npz"
SHAPE = "shape.json"
STEPS = 200


def prepare(folder: Path, checkpoint: Path, eval_text: Path, windows: int, recipes: list[str]) -> None:
    """Write the recipes' models (all, if none is named) and the float model's reading of the text into a folder."""
    from export.graph import export_onnx
    from export.judge import Judge
    from export.judge import eval_text as read_eval_text
    from export.quantize import RECIPES, get_recipe, quantize_int8
    from slm.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    config = loaded.model.config
    judge = Judge(loaded.model, read_eval_text(loaded.model, loaded.tokenizer, eval_text), windows * config.block_size)
    reading = judge.reading
    np.savez(
        folder / ARRAYS,
        inputs=reading.inputs,
        targets=reading.targets,
        logits=np.stack([reading.reference(row) for row in range(len(reading.inputs))]),
        bytes_per_token=reading.bytes_per_token,
        bits_per_byte=judge.float_bits_per_byte,
    )
    (folder / SHAPE).write_text(json.dumps(asdict(config)), "utf-8")
    export_onnx(loaded.model, folder / f"{FLOAT}.onnx")
    for name in recipes or RECIPES:
        quantize_int8(folder / f"{FLOAT}.onnx", folder / f"{name}.onnx", get_recipe(name))


def _shape(folder: Path) -> GPTConfig:
    return GPTConfig.from_dict(json.loads((folder / SHAPE).read_text("utf-8")), SHAPE)


def read_models(folder: Path) -> dict[str, Any]:
    """Quality of every model in a prepared folder, both ways of reading, by numpy and onnxruntime alone."""
    arrays = np.load(folder / ARRAYS)
    logits = arrays["logits"]
    reading = Reading(arrays["inputs"], arrays["targets"], lambda row: logits[row], float(arrays["bytes_per_token"]))
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.onnx")):
        session = Session(path, _shape(folder), threads=1)
        windows, decode = (
            asdict(measure_quality(session, reading, float(arrays["bits_per_byte"]), decode))
            for decode in (False, True)
        )
        found[path.stem] = {"bytes": path.stat().st_size, "windows": windows, "decode": decode}
        print(path.stem, f"{windows['loss']:+.3%} {decode['loss']:+.3%}", file=sys.stderr, flush=True)
    return found


def read_models_under_avx2(folder: Path) -> dict[str, Any]:
    """`read_models` in a process whose CPU has AVX2 and no AVX-512; SlmxError without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SlmxError("--avx2 needs valgrind: apt-get install valgrind")
    command = [valgrind, "--tool=none", "-q", sys.executable, "-m", "benchmarks.int8_recipes", "--read", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_speed(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds for 200 greedy steps of every model on one thread, all in turn."""

    def side(session: Session) -> Callable[[], float]:
        from benchmarks.figures import GREEDY, decode_seconds

        return lambda: decode_seconds(session, [0], GREEDY, STEPS)

    config = _shape(folder)
    sides = {path.stem: side(Session(path, config, threads=1)) for path in sorted(folder.glob("*.onnx"))}
    return {name: samples.values for name, samples in alternate(sides, rounds).items()}


def main(
    eval_text: Annotated[Path | None, typer.Option(help="Stories the model never saw.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the shipped nano.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Only this one; repeat for more.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="Context windows to read.")] = 64,
    rounds: Annotated[int, typer.Option(min=2, help="Of the speed measurement.")] = 15,
    avx2: Annotated[bool, typer.Option("--avx2", help="Read on an AVX2 CPU, by valgrind; no speed.")] = False,
    read: Annotated[Path | None, typer.Option(hidden=True)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the raw figures here.")] = None,
) -> None:
    """Compare the int8 recipes."""
    if read is not None:
        typer.echo(json.dumps(read_models(read)))
        return
    if eval_text is None:
        raise typer.BadParameter("name a file with stories", param_hint="--eval-text")
    with tempfile.TemporaryDirectory() as name:
        from slm.checkpoint import PRETRAINED

        folder = Path(name)
        prepare(folder, checkpoint or PRETRAINED / "nano", eval_text, windows, recipe or [])
        found = read_models_under_avx2(folder) if avx2 else read_models(folder)
        seconds = {} if avx2 else measure_speed(folder, rounds)
    for model, samples in seconds.items():
        found[model]["seconds"] = samples
    typer.echo("| recipe | bytes | loss, windows | loss, decode | KL, decode | agreement | tokens/s |")
    typer.echo("|---|---|---|---|---|---|---|")
    for model, row in found.items():
        decode = row["decode"]
        speed = f"{STEPS / float(np.median(row['seconds'])):,.0f}" if "seconds" in row else "-"
        typer.echo(
            f"| {model} | {row['bytes']:,} | {row['windows']['loss']:+.3%} | {decode['loss']:+.3%} | "
            f"{decode['kl']:.1e} | {decode['greedy_agreement']:.2%} | {speed} |"
        )
    if json_file is not None:
        record = {"machine": describe_machine(), "avx2": avx2, "windows": windows, "models": found}
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
