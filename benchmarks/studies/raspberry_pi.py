"""Counts instructions on emulated Raspberry Pis and estimates real boards: python -m benchmarks.studies.raspberry_pi.

qemu counts every instruction that `slmx generate` runs for a short and for a long greedy story. The difference, divided
by the tokens between them, is a token. Everything else is the start: Python, onnxruntime, the model and the prompt.
benchmarks/pi/boards.py has the formula of the estimates. A new count keeps the rows of --out that owners sent:

    slmx doctor --report --bundle BUNDLE | tail -n 1 > row.json                       # on the board
    python -m benchmarks.studies.raspberry_pi --add row.json --out docs/raspberry-pi.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.pi.boards import BOARDS, CORES, estimate
from benchmarks.pi.counter import Counter, build_counter
from benchmarks.pi.machine import CPUS, Cache, Cpus, Machine, answer, cache_folder, prepare
from benchmarks.program import run
from benchmarks.studies.results import Out, write_record, write_results
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.checks.report import FORMAT
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import log_line
from slm.storage.json_reader import Fields, read_json

PRESET = "nano"
PROMPT = "Once upon a time"
SHORT, LONG = 16, 80  # tokens of the two stories
# .ort holds the kernels of int8.
COUNTED = tuple(name for name, variant in VARIANTS.items() if variant.runner == "onnxruntime" and variant.is_onnx)
RECIPES = ("u8-channel", "s8-channel")  # other than u8-tensor, the recipe of the bundle's int8
SECONDS = 1800.0
MOST_ROW_BYTES = 2**20


def count_token(machine: Machine, counter: Counter, cpu: str, bundle: Path, variant: str) -> dict[str, float]:
    """Counts the instructions of a token and of everything before the first step.

    Args:
        machine: The emulated machine.
        counter: The emulator that counts.
        cpu: qemu's name of the processor.
        bundle: The bundle.
        variant: Its variant.

    Returns:
        `token` and `start`.
    """
    counts = {}
    for tokens in (SHORT, LONG):
        options = ("--bundle", str(bundle), "--variant", variant, "--threads", "1", "--max-tokens", str(tokens))
        program = machine.program("generate", PROMPT, "--json", "--temperature", "0", *options)
        counts[tokens], printed = counter.count(cpu, machine.root, program, machine.environment)
        if len(json.loads(printed)["ids"]) != tokens:
            raise SlmxError(f"{bundle} {variant}: the greedy story has fewer than {tokens} tokens")
    token = (counts[LONG] - counts[SHORT]) / (LONG - SHORT)
    return {"token": round(token), "start": round(counts[SHORT] - SHORT * token)}


def _warm_up(machine: Machine, cpu: str) -> None:
    """Runs a story, because Python compiles its modules in the first run."""
    done = answer(machine.slmx(cpu, "generate", PROMPT, "--json", "--max-tokens", "2"), machine.environment, SECONDS)
    if done.returncode:
        raise SlmxError(f"slmx generate on {cpu}: {done.stderr.strip()}")


def emulated_speed(machine: Machine, cpu: str, bundle: Path) -> dict[str, Any]:
    """Runs `slmx doctor --report` there. Its speeds are those of the emulator."""
    done = answer(machine.slmx(cpu, "doctor", "--report", "--bundle", str(bundle)), machine.environment, SECONDS)
    if done.returncode:
        raise SlmxError(f"slmx doctor on {cpu}: {done.stderr.strip()}")
    variants: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["variants"]
    return variants


def export_bundles(folder: Path) -> dict[str, tuple[Path, str]]:
    """Exports nano with every variant, and with other int8 recipes.

    Args:
        folder: An empty folder.

    Returns:
        Bundle and variant by name: the name of the variant, or "int8 " and the recipe.
    """
    from export.exporter import export_bundle
    from export.settings import ExportSettings

    export_bundle(ExportSettings(PRESET, folder / PRESET, variants=COUNTED), log_line)
    found = {variant: (folder / PRESET, variant) for variant in COUNTED}
    for recipe in RECIPES:
        export_bundle(ExportSettings(PRESET, folder / recipe, variants=("int8",), int8_recipe=recipe), log_line)
        found[f"int8 {recipe}"] = (folder / recipe, "int8")
    return found


def estimates(counted: dict[str, dict[str, dict[str, float]]], sizes: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Estimates every variant on every board."""
    return {
        board.name: {
            name: [round(value) for value in estimate(board, row["token"], sizes[name])]
            for name, row in counted[board.cpu].items()
        }
        for board in BOARDS
        if board.cpu in counted
    }


def count_table(results: Mapping[str, Any]) -> str:
    """Returns Markdown: thousands of instructions of a token."""
    names = list(results["bytes"])
    lines = ["| instructions of a token, thousands | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for cpu, row in results["counted"].items():
        lines.append(f"| {cpu} | " + " | ".join(f"{row[name]['token'] / 1e3:,.0f}" for name in names) + " |")
    return "\n".join(lines)


def speed_table(results: Mapping[str, Any]) -> str:
    """Returns Markdown: tokens per second of the boards, estimated or measured."""
    names = list(results["bytes"])
    lines = ["| tokens/s | " + " | ".join(names) + " | |", "|---|" + "---:|" * len(names) + "---|"]
    for board, row in results["estimates"].items():
        cells = (f"{row[name][0]:,} to {row[name][1]:,}" for name in names)
        lines.append(f"| {board} | " + " | ".join(cells) + " | estimated |")
    for sent in results["measured"]:
        cells = (_measured(sent["variants"].get(name)) for name in names)
        lines.append(f"| {sent['board'] or sent['cpu']} | " + " | ".join(cells) + " | measured |")
    return "\n".join(lines)


def _measured(figures: dict[str, float] | None) -> str:
    return "" if figures is None else f"{figures['tokens_per_second']:,.0f} +-{figures['spread']:.0%}"


def read_record(out: Path) -> dict[str, Any]:
    """Returns the record in a file that this command wrote. Raises SlmxError if it is none."""
    try:
        record: dict[str, Any] = json.loads(out.read_text("utf-8"))
        list(record["results"]["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlmxError(
            f"{out}: not a file of this command ({error}); a new file with --out and without --add makes one"
        ) from None
    return record


def add_rows(out: Path, rows: list[Path]) -> dict[str, Any]:
    """Adds rows of `slmx doctor --report` to the results in a file, and returns these. SlmxError if a file has none."""
    record = read_record(out)
    results: dict[str, Any] = record["results"]
    for path in rows:
        row = _read_row(path)
        if row in results["measured"]:
            raise SlmxError(f"{path}: {out} has this row already; leave it out")
        results["measured"].append(row)
    write_record(out, record)
    return results


def _read_row(path: Path) -> object:
    """Returns a row of `slmx doctor --report`; SlmxError if the file has none, or if a part that is shown is wrong."""
    try:
        row = read_json(path, MOST_ROW_BYTES)
        fields = Fields(row)
        if fields.integer("doctor") != FORMAT:
            raise ValueError("another format")
        fields.text("board")
        fields.text("cpu")
        variants = fields.object("variants")
        if not set(variants):
            raise ValueError("variants is empty")
        for name in variants:
            figures = variants.object(name)
            figures.number("tokens_per_second")
            figures.number("spread")
    except (OSError, ValueError) as error:
        raise SlmxError(
            f"{path}: not a row of slmx doctor --report ({error}); give the last line that it prints"
        ) from None
    return row


def measure(cpus: Sequence[str], cache: Path) -> dict[str, Any]:
    """Counts the instructions of a token on each processor, and estimates the speed of the boards.

    Args:
        cpus: qemu's names of the processors.
        cache: The folder of the emulated machine and its emulator.

    Returns:
        The results without `measured`, the rows that owners of boards sent.
    """
    counter = build_counter(cache)
    counted: dict[str, dict[str, dict[str, float]]] = {}
    emulated: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        machine, exported = prepare(cache, Path(name) / "site"), export_bundles(Path(name))
        sizes = {name: len(Bundle.open(path).model_bytes(of)) for name, (path, of) in exported.items()}
        sizes["fp16"] = sizes["fp32"]  # onnxruntime makes float32 of it when it loads the model
        for cpu in cpus:
            _warm_up(machine, cpu)
            counted[cpu] = {}
            for variant, (path, of) in exported.items():
                counted[cpu][variant] = count_token(machine, counter, cpu, path, of)
                typer.echo(f"{cpu} {variant}: {counted[cpu][variant]}", err=True)
            emulated[cpu] = emulated_speed(machine, cpu, exported["fp32"][0])
    return {
        "bytes": sizes,
        "counted": counted,
        "emulated": emulated,
        "estimates": estimates(counted, sizes),
    }


def main(
    add: Annotated[list[Path] | None, typer.Option(help="Add this row of slmx doctor --report; repeat.")] = None,
    cpu: Cpus = None,
    cache: Cache = None,
    out: Out = None,
) -> None:
    """Count the instructions of a token on each processor, and estimate the speed of the boards."""
    if add:
        if out is None:
            raise UsageError("--add needs --out FILE, the results to which the rows are added")
        results = add_rows(out, add)
    else:
        kept = read_record(out)["results"]["measured"] if out is not None and out.exists() else []
        results = measure(cpu or CPUS, cache or cache_folder()) | {"measured": kept}
        settings = {
            "prompt": PROMPT,
            "tokens": [SHORT, LONG],
            "cores": {cpu: vars(core) for cpu, core in CORES.items()},
            "boards": [vars(board) for board in BOARDS],
        }
        write_results(out, settings, results)
    typer.echo(f"{count_table(results)}\n\n{speed_table(results)}")


if __name__ == "__main__":
    run(main)
