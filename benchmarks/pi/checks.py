"""What an emulated Raspberry Pi must do: stories with every variant, a batch, doctor, and an answer of the server."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.pi.machine import DOT_PRODUCT, Machine, answer
from benchmarks.pi.server import ask_server
from runtimes.beginnings import shared_length
from runtimes.bundle.location import DEFAULT_BUNDLE, SHIPPED_BUNDLES
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.generator import Generator
from slm.console.errors import SlmxError
from slm.folder_kind import PACKED_SUFFIX

PROMPT = "Once upon a time"
TOKENS = 64
BATCH = 4
SECONDS = 600.0  # most time of one command
PASSED, FAILED = "passed", "FAILED"


@dataclass(frozen=True)
class Result:
    """The result of one check on one processor.

    Attributes:
        cpu: qemu's name of the processor.
        check: What was checked.
        outcome: PASSED or FAILED.
        seconds: How long it took under emulation.
        note: What was seen, in one line.
    """

    cpu: str
    check: str
    outcome: str
    seconds: float
    note: str


@dataclass(frozen=True)
class Expected:
    """What this machine writes, to compare with.

    Attributes:
        bundle: The folder of a bundle with fp32.
        ids: The greedy tokens of each variant that onnxruntime runs.
        shipped: The greedy tokens of the bundle inside the wheel.
    """

    bundle: Path
    ids: dict[str, list[int]]
    shipped: list[int]


def expect(bundle: Path) -> Expected:
    """Writes the greedy stories of a bundle on this machine."""
    opened = Bundle.open(bundle.absolute())
    if "fp32" not in opened.variants:
        raise SlmxError(f"{bundle}: no fp32, which is compared token by token: export the bundle with it")
    ids = {name: _greedy(opened, name) for name in opened.variants}
    return Expected(opened.path, ids, _greedy(Bundle.open(SHIPPED_BUNDLES / DEFAULT_BUNDLE), None))


def _greedy(bundle: Bundle, variant: str | None) -> list[int]:
    with Generator(bundle, variant) as generator:
        return generator.generate(PROMPT, max_tokens=TOKENS, temperature=0).ids


def check(machine: Machine, cpu: str, expected: Expected) -> Iterator[Result]:
    """Runs every check on one processor, one after another.

    Args:
        machine: The emulated machine.
        cpu: qemu's name of the processor.
        expected: The stories of this machine.

    Yields:
        The results.
    """
    folder = ("--bundle", str(expected.bundle))
    checks: dict[str, Callable[[], str]] = {
        "generate, shipped nano": partial(_story, machine, cpu, expected.shipped, must_agree=False, options=())
    }
    for variant, ids in expected.ids.items():
        options = (*folder, "--variant", variant)
        exact = VARIANTS[variant].is_float
        checks[f"generate, {variant}"] = partial(_story, machine, cpu, ids, must_agree=exact, options=options)
    checks[f"generate -n {BATCH}, fp32"] = partial(_batch, machine, cpu, expected)
    checks["pack, generate"] = partial(_packed, machine, cpu, expected)
    checks["doctor --report"] = partial(_doctor, machine, cpu, expected)
    checks["serve, one request"] = partial(ask_server, machine, cpu, expected.bundle, PROMPT)
    for name, run_check in checks.items():
        started = time.monotonic()
        try:
            outcome, note = PASSED, run_check()
        except (
            SlmxError,
            OSError,
            ValueError,
            KeyError,
        ) as error:  # also an answer that is not the JSON of our commands
            outcome, note = FAILED, str(error)
        yield Result(cpu, name, outcome, time.monotonic() - started, note)


def _run(machine: Machine, cpu: str, *arguments: str) -> str:
    """Runs `slmx` there and returns its output. SlmxError if it fails or writes a traceback."""
    done = answer(machine.slmx(cpu, *arguments), machine.environment, SECONDS)
    if done.returncode or "Traceback" in done.stderr:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SlmxError(f"slmx {' '.join(arguments)}: exit code {done.returncode}, {last}")
    return done.stdout


def _stories(machine: Machine, cpu: str, *options: str) -> list[list[int]]:
    """Writes greedy stories there and returns their tokens."""
    greedy = ("--temperature", "0", "--max-tokens", str(TOKENS), "--json")
    lines = _run(machine, cpu, "generate", PROMPT, *greedy, *options).splitlines()
    return [json.loads(line)["ids"] for line in lines]


def _story(machine: Machine, cpu: str, ids: list[int], must_agree: bool, options: tuple[str, ...]) -> str:
    (found,) = _stories(machine, cpu, *options)
    if found == ids:
        return f"the same {len(ids)} tokens as on this machine"
    if must_agree or not found:
        raise SlmxError(f"the tokens differ from token {shared_length(found, ids) + 1} on")
    return f"{len(found)} tokens; they differ from those of this machine from token {shared_length(found, ids) + 1} on"


def _batch(machine: Machine, cpu: str, expected: Expected) -> str:
    options = ("--bundle", str(expected.bundle), "--variant", "fp32", "-n", str(BATCH))
    found = _stories(machine, cpu, *options)
    if found != [expected.ids["fp32"]] * BATCH:
        raise SlmxError(f"{len(found)} stories, which are not {BATCH} times the greedy one")
    return f"{BATCH} stories, each with the tokens of one alone"


def _packed(machine: Machine, cpu: str, expected: Expected) -> str:
    """Packs the shipped bundle there, and writes a story from the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{DEFAULT_BUNDLE}{PACKED_SUFFIX}"
        _run(machine, cpu, "pack", DEFAULT_BUNDLE, "--out", str(file))
        note = _story(machine, cpu, expected.shipped, must_agree=False, options=("--bundle", str(file)))
        return f"{file.stat().st_size:,} bytes; {note}"


def _doctor(machine: Machine, cpu: str, expected: Expected) -> str:
    shown = _run(machine, cpu, "doctor", "--bundle", str(expected.bundle), "--report")
    report = json.loads(shown.splitlines()[-1])
    if set(report["variants"]) != set(expected.ids):
        raise SlmxError(f"doctor measured {', '.join(report['variants'])}")
    dot_product = "asimddp" in report["features"]
    if dot_product != (cpu in DOT_PRODUCT):
        raise SlmxError(f"doctor names the features {report['features']}")
    return f"{len(report['variants'])} variants; dot product instructions: {'yes' if dot_product else 'no'}"
