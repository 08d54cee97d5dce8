"""The figures a bundle must reach, against the PyTorch float model: python -m benchmarks.figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
import typer

from export.torch_cache import float_session
from runtimes.bundle import Bundle
from runtimes.machine import describe_machine
from runtimes.sampler import Sampling
from runtimes.session import Session
from runtimes.timing import Samples, alternate, decode_seconds
from slm.checkpoint import PRETRAINED, load_checkpoint
from slm.errors import SlmxError

PROMPT = "Once upon a time"
TOKENS = 200
GREEDY = Sampling(temperature=0)
SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=1)
# Runs the command as a user does, and reports its own peak: ru_maxrss would include the parent's.
CHILD = """
import atexit, sys
from pathlib import Path
def report():
    status = Path("/proc/self/status").read_text()
    heavy = [name for name in ("torch", "onnx", "transformers") if name in sys.modules]
    print("peak", status.split("VmHWM:")[1].split()[0], *heavy, file=sys.stderr)
atexit.register(report)
from slm.cli import main
main()
"""


def torch_seconds(session: Session, prompt: list[int], tokens: int) -> float:
    """Seconds for greedy steps of the float model in eager PyTorch with its own KV cache."""
    torch.set_num_threads(session.threads)
    return decode_seconds(session, prompt, GREEDY, tokens)


def cold_start(bundle: Path, variant: str) -> tuple[float, float, list[str]]:
    """Seconds from process start to the first generated text, peak MiB, heavy modules that were loaded."""
    command = [sys.executable, "-c", CHILD, "generate", PROMPT, "--bundle", str(bundle), "--variant", variant]
    started = time.perf_counter()
    with subprocess.Popen([*command, "--seed", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        seen = 0
        while seen <= len(PROMPT):
            chunk = os.read(child.stdout.fileno(), 4096)
            if not chunk:
                raise SlmxError(f"slmx generate failed: {child.stderr.read().decode(errors='replace').strip()}")
            seen += len(chunk)
        first = time.perf_counter() - started
        child.stdout.read()
        words = child.stderr.read().decode().splitlines()[-1].split()
    return first, int(words[1]) / 1024, words[2:]


def vocabulary_tables(path: Path, vocab_size: int) -> int:
    """Number of stored two-dimensional tensors with one side as long as the vocabulary."""
    tensors = onnx.load(path).graph.initializer
    return sum(len(tensor.dims) == 2 and vocab_size in tensor.dims for tensor in tensors)


def main(
    bundle: Annotated[Path, typer.Option(help="With fp32 and int8.")] = Path("bundles/nano"),
    checkpoint: Annotated[Path, typer.Option(help="The float model of that bundle.")] = PRETRAINED / "nano",
    rounds: Annotated[int, typer.Option(min=2, help="Of every side, in turn.")] = 11,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the raw samples here.")] = None,
) -> None:
    """Measure and print each figure beside its goal."""
    opened = Bundle.open(bundle)
    loaded = load_checkpoint(checkpoint)
    config = opened.config
    prompt = [loaded.tokenizer.end_of_text, *loaded.tokenizer.encode(PROMPT)]
    counts = sorted({1, int(describe_machine()["cores"])})
    sessions = {(v, n): Session.open(opened.model_path(v), config, n) for v in ("fp32", "int8") for n in counts}

    def run(session: Session, sampling: Sampling) -> Callable[[], float]:
        return lambda: decode_seconds(session, prompt, sampling, TOKENS)

    def run_torch(threads: int) -> Callable[[], float]:
        return lambda: torch_seconds(float_session(loaded.model, threads), prompt, TOKENS)

    sides = {f"torch eager, {n} thread(s)": run_torch(n) for n in counts}
    sides |= {f"{v}, {n} thread(s)": run(session, GREEDY) for (v, n), session in sessions.items()}
    speed = alternate(sides, rounds)
    quick = sessions["int8", 1]
    sampling = alternate({"greedy": run(quick, GREEDY), "sampled": run(quick, SAMPLED)}, 3 * rounds)
    starts = [cold_start(bundle, "int8") for _ in range(rounds)]

    for name, value in describe_machine().items():
        typer.echo(f"{name:<12} {value}")
    typer.echo(f"\n{TOKENS} tokens after {PROMPT!r}, greedy, {rounds} rounds in turn\n")
    for name, samples in speed.items():
        typer.echo(f"{name:<26} {TOKENS / samples.median:>8,.0f} tokens/s  +-{samples.spread:.1%}")

    def best(side: str) -> float:
        return min(samples.median for name, samples in speed.items() if name.startswith(side))

    manifest = opened.manifest
    sizes = {name: manifest["files"][entry["file"]]["bytes"] for name, entry in manifest["variants"].items()}
    quality = manifest["variants"]["int8"]["quality"]
    loss = max(quality["windows"]["loss"], quality["decode"]["loss"])
    extra = sampling["sampled"].median / sampling["greedy"].median - 1
    first = Samples([start[0] for start in starts])
    tables = [vocabulary_tables(opened.model_path(name), config.vocab_size) for name in ("fp32", "int8")]
    heavy = sorted({name for start in starts for name in start[2]})
    rows = [
        ("int8 decode / torch eager", f"{best('torch') / best('int8'):.1f}x", ">= 8x"),
        ("fp32 decode / torch eager", f"{best('torch') / best('fp32'):.1f}x", ">= 4x"),
        ("model.onnx / 4 bytes a parameter", f"{sizes['fp32'] / 4 / config.parameters:.3f}", "<= 1.03"),
        ("model_int8.onnx", f"{sizes['int8']:,} bytes", "<= 2.3 MB (nano)"),
        ("vocabulary-sized tables", f"{tables[0]} fp32, {tables[1]} int8", "1 each"),
        ("fp32 parity", f"{manifest['variants']['fp32']['parity']:.1e}", "<= 1e-4"),
        ("int8 loss in bits per byte", f"{loss:+.2%}", "<= 1 %"),
        ("top-k 40 + top-p 0.95 over greedy", f"{extra:+.1%}", "<= 15 %"),
        ("cold start to the first word", f"{first.median:.2f} s +-{first.spread:.0%}", "<= 0.6 s"),
        ("peak memory of the process", f"{max(start[1] for start in starts):.0f} MiB", "<= 90 MB"),
        ("torch, onnx, transformers loaded", ", ".join(heavy) or "none", "none"),
    ]
    typer.echo("")
    for label, value, goal in rows:
        typer.echo(f"{label:<36} {value:<20} goal {goal}")
    if json_file is not None:
        record: dict[str, Any] = {
            "machine": describe_machine(),
            "seconds": {name: samples.values for name, samples in (speed | sampling).items()},
            "cold_start": starts,
            "figures": {label: value for label, value, _ in rows},
        }
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
