"""Reads the frozen files of every format that slmx has written. tests/frozen/README.md describes how each was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.evaluation.run import RESULT, load_result
from benchmarks.report.reader import read_report
from runtimes import load
from runtimes.bundle.store import Bundle
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.dataset import Dataset
from slm.model import generate_greedy

FROZEN = Path(__file__).resolve().parents[1] / "frozen"
PROMPT, NEW_TOKENS = "Once", 20
STORY = "Once upon a time, there was a shon re"  # what the checkpoint and both bundles write in float32
STORIES = {"train": 30, "valid": 2}
BATCHES = [1, 8]


def _checkpoint(path: Path) -> str:
    found = load_checkpoint(path)
    tokenizer = found.tokenizer
    prompt = tokenizer.encode(PROMPT)
    return PROMPT + tokenizer.decode(generate_greedy(found.model, [tokenizer.begin, *prompt], NEW_TOKENS))


def _bundle(path: Path) -> str:
    Bundle.open(path).check_listed_files()
    with load(path, "fp32") as generator:
        return generator.generate(PROMPT, max_tokens=NEW_TOKENS, temperature=0.0).full_text


def _dataset(path: Path) -> dict[str, int]:
    found = Dataset.open(path)
    assert set(found.record["cleaning"]) == {source["split"] for source in found.record["sources"]} | {"valid"}
    return {"train": found.train.stories, "valid": found.valid.stories}


def _report(path: Path) -> list[int]:
    results = read_report(path).results
    assert all(result.case.runner == "int8" and result.bpb_increase for result in results)
    return [result.case.batch for result in results]


def _evaluation(path: Path) -> list[str]:
    assert path.name == RESULT
    found = load_result(path.parent, json.loads(path.read_text("utf-8"))["settings"])
    return list(found.results)


# What reads each frozen file, and what it must give.
READERS: Mapping[str, tuple[Callable[[Path], object], object]] = {
    "checkpoint-1": (_checkpoint, STORY),
    "bundle-2": (_bundle, STORY),
    "bundle-3": (_bundle, STORY),
    "dataset-1": (_dataset, STORIES),
    "dataset-2": (_dataset, STORIES),
    "report-1.json": (_report, BATCHES),
    "report-2.json": (_report, BATCHES),
    "evaluation.json": (_evaluation, ["bundle-3 int8"]),
}


def read(name: str) -> str | None:
    """Reads a frozen file; returns what is wrong, or None."""
    reader, expected = READERS[name]
    try:
        found = reader(FROZEN / name)
    except (SlmxError, AssertionError) as error:
        return f"tests/frozen/{name}: {error or 'not what it was'}"
    return None if found == expected else f"tests/frozen/{name}: gives {found!r}, not {expected!r}"
