"""Reads the models of benchmarks.studies.quantization, also on another processor: it needs no torch.

    python -m benchmarks.studies.quantization_reader FOLDER

It prints the figures of every model in the folder as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.program import run
from export.checks.fidelity import Reference, measure_fidelity
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.session import Session
from runtimes.system.timing import alternate
from runtimes.types import SamplingParams
from slm.presets import GPTConfig

ARRAYS = "reading.npz"
SHAPE = "shape.json"


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
    folder: Annotated[Path, typer.Argument(help="The folder of the models and of what the float model says.")],
    rounds: Annotated[int, typer.Option(help="Rounds of the speed measurement; 0: none.")],
    steps: Annotated[int, typer.Option(help="Tokens in a round.")],
) -> None:
    """Print the figures of every model as JSON."""
    found = read_models(folder, rounds, steps)
    typer.echo(json.dumps({"onnxruntime": version("onnxruntime"), "models": found}))


if __name__ == "__main__":
    run(main)
