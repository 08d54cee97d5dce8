"""The readers of data sets, runs, reports, evaluations and prompts, with small whole files of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.judge.journal import Journal
from benchmarks.evaluation.rating.answers import measure, read_raters
from benchmarks.evaluation.rating.questions import DIGEST, KEY, Key, _digest
from benchmarks.evaluation.run import HASH, RESULT, Evaluation, _hash, load_result, save
from benchmarks.report.compare import compare_reports
from benchmarks.report.printers import to_csv, to_markdown
from benchmarks.report.reader import read_report
from runtimes.hub.record import Record as PulledRecord
from runtimes.hub.record import read_record, record_path, write_record
from runtimes.prompts_file.lines import read_line
from runtimes.prompts_file.reader import PromptsReader
from runtimes.prompts_file.record import Position, encode_settings
from runtimes.prompts_file.record import Record as RunRecord
from slm.data.dataset import Dataset
from slm.data.sources import find_sources, read_stories
from slm.storage.file_names import DATASET_FILE, JSON_FILE, MANIFEST_FILE, RANKS_FILE, RUN_FILE
from slm.storage.hashing import sha256_of
from slm.train.plan import TrainSettings
from slm.train.run_folder import METRICS_FILE, RunFolder
from tests.benchmarks.evaluation.rating.sheets import PAIRS, endings, saved
from tests.reliability.model_readers import small_tokenizer
from tests.reliability.reader import Make, Reader, at
from tests.report_samples import report, result
from tests.runtimes.pack.synthetic import synthetic_bundle


def _data_set(home: Path) -> tuple[Path, dict[str, Any]]:
    """A data set of a few tokens; returns its folder and its record."""
    home.mkdir(parents=True, exist_ok=True)
    small_tokenizer().save(home, [("t", "h")])
    splits = {}
    for split in ("train", "valid"):
        np.save(home / f"{split}-00000.npy", np.arange(200, dtype=np.uint16))
        splits[split] = {"stories": 2, "tokens": 200, "text_bytes": 300, "shards": [f"{split}-00000.npy"]}
    files = {
        name: {"bytes": (home / name).stat().st_size, "sha256": sha256_of(home / name)}
        for name in (RANKS_FILE, JSON_FILE, "train-00000.npy", "valid-00000.npy")
    }
    record: dict[str, Any] = {
        "format_version": 2,
        "licence": "none",
        "settings": {"licence": "none"},
        "splits": splits,
        "sources": [{"split": "train", "name": "a.txt"}],
        "cleaning": {"train": {"kept": 2}, "valid": {"kept": 2}},
        "files": files,
    }
    (home / DATASET_FILE).write_text(json.dumps(record), "utf-8")
    return home, record


def _use(folder: Path) -> object:
    data = Dataset.open(folder)
    data.train.windows(8)
    return data.valid.bytes_per_token, data.valid.ids[:], data.merges


def _dataset(home: Path) -> Reader:
    folder, record = _data_set(home / "data")
    names = {"train": "training", "valid": "validation"}
    old = {key: value for key, value in record.items() if key != "splits"} | {
        "format_version": 1,
        "sides": record["splits"],
        "sources": [{"side": "training", "name": "a.txt"}],
        "cleaning": {names[split]: {"kept": 2} for split in names},
    }
    path = folder / DATASET_FILE
    return Reader([path.read_bytes(), json.dumps(old).encode()], at(path, lambda: _use(folder)), True)


def _shard(home: Path) -> Reader:
    folder, record = _data_set(home / "data")
    shard, listing = folder / "train-00000.npy", folder / DATASET_FILE

    def read(content: bytes) -> object:
        shard.write_bytes(content)
        files = {**record["files"], shard.name: {"bytes": len(content), "sha256": sha256_of(shard)}}
        listing.write_text(json.dumps({**record, "files": files}), "utf-8")
        return _use(folder)

    return Reader([shard.read_bytes()], read)


def _corpus(suffix: str, content: str) -> Make:
    def make(home: Path) -> Reader:
        path = home / f"stories{suffix}"

        def read() -> int:
            return sum(map(len, read_stories(find_sources([path]))))

        return Reader([content.encode()], at(path, read), is_json=suffix == ".jsonl")

    return make


def _metrics(home: Path) -> Reader:
    run = RunFolder(home)
    for step in range(1, 4):
        run.log({"step": step, "loss": 2.5 / step, "valid_loss": 2.6 / step, "bits_per_byte": 1.5})

    def read() -> object:
        run.forget_after(2)
        return [f"{value:.3f}" for record in run.metrics() for value in record.values()]

    path = home / METRICS_FILE
    return Reader([path.read_bytes()], at(path, read), True)


def _run_record(home: Path) -> Reader:
    run, settings = RunFolder(home / "run"), TrainSettings(text=("a",), out=home / "run")
    data, _ = _data_set(home / "data")
    run.path.mkdir()
    run.remember(data, settings)

    def read() -> object:
        run.remembered(settings)
        return run.dataset_path()

    path = run.path / RUN_FILE
    return Reader([path.read_bytes()], at(path, read), True)


def _report(home: Path) -> Reader:
    whole = report([result("int8"), result("torch eager"), result("llama.cpp Q4_0")])
    path = home / "report.json"

    def read() -> object:
        found = read_report(path)
        if found.results:
            compare_reports(whole, found)
        return to_csv(found), to_markdown(found)

    old = {**json.loads(whole.to_json()), "format_version": 1}
    return Reader([whole.to_json().encode(), json.dumps(old).encode()], at(path, read), True)


def _evaluation(home: Path) -> Reader:
    settings = {"model": "a", "suites": ["loss"], "count": 3}
    whole = Evaluation(
        settings,
        results={"a": {"bytes": 9, "loss": {"by tokens": {"tokens": 4}}}},
        endings={"a": [{"opening": "Once", "text": " a cat", "ended": True}]},
    )
    save(home, whole)
    path = home / RESULT

    def read(content: bytes) -> object:
        try:
            values = json.loads(content)
            values = values | {HASH: _hash({key: value for key, value in values.items() if key != HASH})}
            content = json.dumps(values).encode()
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass  # there is no hash for what is no object
        path.write_bytes(content)
        return load_result(home, settings)

    return Reader([path.read_bytes()], read, True)


def _rating_key(home: Path) -> Reader:
    key = Key.make(endings(3), PAIRS)
    key.save(home)
    answers = saved(home / "answers.json", key, {key.questions[0].id: "a"})
    path = home / KEY

    def read(content: bytes) -> object:
        try:
            values = {name: value for name, value in json.loads(content).items() if name != DIGEST}
            content = json.dumps(values | {DIGEST: _digest(values)}).encode()
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass  # there is no digest for what is no object
        path.write_bytes(content)
        found = Key.read(home)
        return measure(found, read_raters([answers], found))

    return Reader([path.read_bytes()], read, True)


def _answers(home: Path) -> Reader:
    key = Key.make(endings(3), PAIRS)
    path = saved(home / "answers.json", key, {question.id: "same" for question in key.questions})
    return Reader([path.read_bytes()], at(path, lambda: measure(key, read_raters([path], key))), True)


def _journal(home: Path) -> Reader:
    path, settings = home / "judge.jsonl", {"model": "a"}
    with Journal(path, settings) as journal:
        journal.add("1", "{}", None, "nonsense", (3, 4))

    def read() -> None:
        with Journal(path, settings):
            pass

    return Reader([path.read_bytes()], at(path, read), True)


def _pulled(home: Path) -> Reader:
    bundle = synthetic_bundle(home / "bundle", {})
    manifest = sha256_of(bundle / MANIFEST_FILE)
    write_record(bundle, PulledRecord("https://hub", "a/b", "main", "1", "2026-11-30T12:00:00+00:00", manifest))
    path = record_path(bundle)
    return Reader([path.read_bytes()], at(path, lambda: read_record(bundle, manifest)), True)


def _prompts(home: Path) -> Reader:
    path = home / "prompts.jsonl"

    def read() -> None:
        reader = PromptsReader(path, None, home)
        try:
            while (line := reader.take()) is not None:
                assert line.is_blank or "\n" not in read_line(line, reader.is_json, {}).error
        finally:
            reader.close()

    lines = [{"id": "a", "prompt": "Once", "n": 2, "temperature": 0.5, "stop": ["."]}, {"prompt": "A", "seed": 3}]
    return Reader(["\n".join(map(json.dumps, lines)).encode() + b"\n"], at(path, read), True)


def _prompts_record(home: Path) -> Reader:
    path = home / "stories.jsonl.run"
    path.write_bytes(encode_settings({"seed": 1, "n": 2}) + Position(3, "0" * 64).encode())
    return Reader([path.read_bytes()], at(path, lambda: RunRecord.read(path)), True)


ROWS = [{"text": "Once there was a cat. It sat.", "id": 1}, {"text": "A dog ran.\nThe end.", "id": 2}]
DATA_READERS: dict[str, Make] = {
    "data-set": _dataset,
    "shard": _shard,
    "corpus-jsonl": _corpus(".jsonl", "\n".join(map(json.dumps, ROWS))),
    "corpus-csv": _corpus(".csv", 'text,id\n"Once there was, a cat.",1\n"A ""dog"" ran.",2\n'),
    "corpus-text": _corpus(".txt", "Once there was a cat.\n<|endoftext|>\nA dog ran.\n"),
    "metrics": _metrics,
    "run": _run_record,
    "report": _report,
    "evaluation": _evaluation,
    "rating-key": _rating_key,
    "answers": _answers,
    "journal": _journal,
    "pulled": _pulled,
    "prompts": _prompts,
    "prompts-record": _prompts_record,
}
