"""`slmx bench` from end to end on tiny models: its files, its behaviour on failures, and its refusals."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.report.reader import read_report, report_from_json
from benchmarks.report.record import FAILED, MEASURED, SKIPPED, Case
from benchmarks.run import bench, measure
from benchmarks.run.bench import Bench, in_parts, story_ids
from benchmarks.run.progress import Meter
from benchmarks.run.runners import Job, open_runner
from benchmarks.run.targets import target_of_bundle, target_of_preset
from runtimes.bundle.manifest import MadeFrom
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.presets import PRESETS, GPTConfig, Preset
from slm.storage.file_names import WEIGHTS_FILE
from tests import bundles
from tests.benchmarks.run.brief import ONE_RUNNER, brief, by_case, interrupt_after
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

# The real worker, except that one runner crashes and one writes wrong ids.
SABOTAGE = """
import os, signal
from benchmarks.run import runners, worker
opened = runners.open_runner
def open_runner(job):
    run = opened(job)
    if job.runner == "int8":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if job.runner == "portable":
        return lambda: runners.Round([[5] * job.new_tokens], 0.1, 0.1, [])
    return run
runners.open_runner = open_runner
worker.main()
"""


@pytest.mark.heavy
def test_every_runner_of_a_bundle_is_measured_and_its_answers_are_right(
    bundle: Path, tmp_path: Path, meter: Meter
) -> None:
    runners = ("torch eager", *VARIANTS)
    run = Bench(replace(brief(tmp_path / "out é 50%#", bundle, *runners), quick=True, trust=True), meter)
    run.run()
    report = report_from_json(json.loads(run.report().to_json()))
    found = by_case(report)
    assert {runner for runner, depth, batch in found if (depth, batch) == (0, 1)} == set(runners)
    for (runner, _, _), result in found.items():
        assert (result.status, result.note) == (MEASURED, "")
        assert (len(result.decode_seconds), len(result.first_token_seconds), len(result.token_seconds)) == (2, 2, 6)
        assert result.interpreter_bytes is not None
        assert result.imports_bytes is not None
        assert result.peak_bytes is not None
        assert result.interpreter_bytes < result.imports_bytes <= result.peak_bytes
        assert result.load_seconds is not None
        assert result.load_seconds > 0
        assert result.weight_bytes is not None
        assert result.disk_bytes is not None
        assert result.bpb_increase is not None
        assert report.ceiling_share(result) is not None
        if runner not in ("int8", "q8", "int4", "mobile"):
            assert result.agreement == 1
    assert {(depth, batch) for _, depth, batch in found} == {(0, 1), (0, 8)}
    (model,) = report.models.values()
    assert model.parameters == Bundle.open(bundle).config.parameters
    assert model.trained
    assert report.text is not None
    assert "sampled from the float model" in report.text
    assert report.bandwidth == {"1": 1e9}


def test_the_command_prints_writes_and_compares(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    options = (bundle, "--quick", *ONE_RUNNER, f"--out={tmp_path / 'out'}")
    ran = slmx("bench", *options)
    assert ran.code == 0, ran.stderr
    assert "int8" in ran.stdout
    written = tmp_path / "out" / "report" / "report.json"
    report = read_report(written)
    assert [(result.case.batch, len(result.decode_seconds)) for result in report.results] == [(1, 5), (8, 5)]
    assert report.command == shlex.join(["slmx", "bench", bundle.name, "--quick", *ONE_RUNNER, "--out=out"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report", "work"]
    again = slmx("bench", *options, "--against", written, "--fail-over", "100000%")
    assert again.code == 0, again.stderr
    assert "within the noise" in again.stdout


def test_workers_that_die_or_err_fail_alone(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "WORKER", (sys.executable, "-c", SABOTAGE))
    options = ("--threads", "1", "--rounds", "5", "--peers", "none", "--variants", "fp32,int8,portable")
    ran = slmx("bench", bundle, "--quick", *options, "--out", tmp_path / "out")
    assert ran.code == 1
    found = by_case(read_report(tmp_path / "out" / "report" / "report.json"))
    assert found["int8", 0, 1].note.startswith("killed (SIGKILL)")
    assert found["portable", 0, 1].note.startswith("not timed: ")
    assert found["int8", 0, 1].status == found["portable", 0, 1].status == FAILED
    assert len(found["fp32", 0, 1].decode_seconds) == 5
    assert len(found) == 3


def test_a_stopped_run_keeps_what_it_has_and_goes_on(
    bundle: Path, tmp_path: Path, meter: Meter, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = brief(tmp_path / "out", bundle, "fp32", "int8")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(6 + 5, patch)  # the base group of six turns, then all turns but one of the next group
        run = Bench(settings, meter)
        with pytest.raises(KeyboardInterrupt):
            run.run()
    stopped = run.report()
    assert [len(result.decode_seconds) for result in stopped.results] == [2, 2, 2, 1]
    with (tmp_path / "out" / "resume_log.jsonl").open("a") as file:
        file.write('{"key": "group nano, cut off')
    capfd.readouterr()
    run = Bench(settings, meter)
    run.run()
    assert "continues after 2 finished parts" in capfd.readouterr().err
    whole = run.report()
    assert whole.results[:2] == stopped.results[:2]
    assert [len(result.decode_seconds) for result in whole.results] == [2] * len(whole.results)
    assert [(result.case.depth, result.case.batch) for result in whole.results[::2]] == [(0, 1), (0, 8)]


def test_other_arguments_start_anew(
    bundle: Path, tmp_path: Path, meter: Meter, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = brief(tmp_path / "out", bundle, "fp32")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            Bench(settings, meter).run()
    Bench(replace(settings, rounds=3), meter).run()
    assert "made with other arguments, code or machine; starts from the beginning" in capfd.readouterr().err


def test_ctrl_c_reports_and_exits_with_130(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(8, monkeypatch)  # the base group of six turns, then the warm-up and the first round of the batch
    options = (*ONE_RUNNER, "--out", tmp_path / "out")
    ran = slmx("bench", bundle, "--quick", *options)
    assert ran.code == 130
    assert "stopped; the same command continues after what is finished" in ran.stderr
    report = read_report(tmp_path / "out" / "partial-report" / "report.json")
    assert [len(result.decode_seconds) for result in report.results] == [5, 1]
    assert report.warnings[-1] == "stopped before all cases were measured"
    assert not (tmp_path / "out" / "report").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert slmx("bench", bundle, "--quick", *options).code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report", "work"]


def test_a_preset_is_exported_once_with_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], meter: Meter
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", Preset("tiny", GPTConfig(32, 8000, 1, 2, 16), 1e-3, 8))
    settings = replace(brief(tmp_path / "out", tmp_path, "torch eager", "fp32"), bundles=(), presets=("tiny",))
    with bundles.brief_checks():
        first = Bench(settings, meter)
        first.run()
    assert "tiny: fp32: exporting the graph" in capfd.readouterr().err
    target = target_of_preset("tiny", ["fp32"], tmp_path / "out" / "work", log=pytest.fail)
    made_from = target.bundle.manifest.checkpoint
    assert made_from == MadeFrom(target.checkpoint.hashes[WEIGHTS_FILE], untrained=True)
    assert target.bundle.manifest.inputs is not None
    report = first.report()
    assert list(report.models) == ["tiny"]
    assert {result.case.preset for result in report.results} == {"tiny"}
    assert not report.models["tiny"].trained
    assert {result.status for result in report.results} == {MEASURED, SKIPPED}
    assert {result.bpb_increase for result in report.results} == {None}
    assert min(result.agreement for result in report.results if result.agreement is not None) == 1


@pytest.mark.heavy
def test_a_bundle_and_a_preset_that_are_named_twice_are_measured_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meter: Meter
) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    run = Bench(replace(brief(tmp_path / "out", bundle, "fp32"), bundles=(bundle, bundle, link), quick=True), meter)
    run.run()
    assert len(run.report().results) == len({result.case for result in run.report().results}) == 1
    monkeypatch.setitem(PRESETS, "tiny", Preset("tiny", GPTConfig(32, 8000, 1, 2, 16), 1e-3, 8))
    twice = replace(brief(tmp_path / "other", bundle, "torch eager"), bundles=(), presets=("tiny", "tiny"), quick=True)
    with bundles.brief_checks():
        run = Bench(twice, meter)
        run.run()
    assert [result.case.runner for result in run.report().results] == ["torch eager"]


def test_bad_input_is_one_line(
    slmx: Slmx, bundle: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misused = {
        (
            "--variants",
            "int9",
        ): "unknown variant 'int9' (did you mean int8?): choose one of torch eager, torch compiled",
        ("--variants", ","): "unknown variant ''",
        ("--threads", "0"): "--threads 0: this process may use",
        ("--threads", "many"): "--threads many: give whole numbers",
        ("--peers", "lama"): "unknown peer 'lama' (did you mean llama.cpp?): choose one of llama.cpp, optimum",
        ("--presets", "nano,pico"): "--presets: unknown preset 'pico' (did you mean micro?): choose one of nano",
    }
    for wrong, line in misused.items():
        assert slmx.refuses("bench", "--quick", *wrong, code=2).startswith(line)
    empty, damaged = tmp_path / "empty é.txt", tmp_path / "damaged.txt"
    empty.write_text(" \n\n")
    damaged.write_bytes(b"Once \xff\x81 upon")
    monkeypatch.setattr(bench, "target_of_preset", lambda *_: pytest.fail("a model is exported"))
    refused = {
        ("--text", str(empty)): f"{empty}: holds no story",
        ("--text", str(damaged)): f"{damaged}:1: not UTF-8",
        ("--text", "none.txt"): "none.txt: no such file",
        ("--text", str(tmp_path)): f"{tmp_path}: not a regular file; --text takes one file of stories",
        (str(tmp_path),): f"{tmp_path}: no bundle here",
    }
    for options, line in refused.items():
        assert slmx.refuses("bench", "--quick", *options).startswith(line)
    assert slmx.refuses("bench", "--fail-over", "10%", code=2).startswith("--fail-over needs --against")
    assert slmx.refuses("compare", "a", "b", "--fail-over", "ten", code=2).startswith(
        "--fail-over 'ten': not a percent"
    )
    small = bundles.tiny_bundle(tiny_checkpoint)
    assert slmx.refuses("bench", small, "--variants", "int4") == (
        f"{small}: no variant 'int4'; there are torch eager, torch compiled, fp32, int8"
    )


def test_a_spoilt_bundle_or_report_is_refused(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    spoilt = bundles.copy_of(bundle, tmp_path / "spoilt")
    (spoilt / VARIANTS["int8"].file).write_bytes(b"no model")
    assert "SHA-256 differs" in slmx.refuses("bench", spoilt)
    old = tmp_path / "old.json"
    old.write_text('{"format_version": 0}')
    assert "report format 0, this slmx reads 1 to 2" in slmx.refuses("bench", bundle, "--against", old)
    old.write_text("no JSON")
    assert "not a benchmark report" in slmx.refuses("bench", bundle, "--against", old)


def test_a_quick_run_of_a_bundle_without_the_quick_variants_takes_its_default(
    bundle: Path, tmp_path: Path, meter: Meter
) -> None:
    other = bundles.copy_of(bundle, tmp_path / "other")
    variants = json.loads((other / "manifest.json").read_text("utf-8"))["variants"]
    kept = {name: variants[name] for name in ("portable", "fp16")}
    bundles.edit_manifest(other, variants=kept, default="portable")
    run = Bench(replace(brief(tmp_path / "out", other), variants=None, quick=True), meter)
    assert run._held == [("torch eager", "portable")]


def test_prompts_are_a_story_and_depth_goes_before(bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = target_of_bundle(Bundle.open(bundle), "nano", tmp_path, trusted=False)
    history, prompt = story_ids(target, 500, 16)
    assert (len(history), len(prompt)) == (500, 16)
    tokenizer = load_checkpoint(tiny_checkpoint).tokenizer
    assert history[0] == tokenizer.end_of_text
    assert tokenizer.decode(history).startswith("Once upon a time")
    assert story_ids(target, 0, 20) == ([], history[:20])


def test_processes_that_do_not_fit_in_memory_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [measure.Entry(Case("nano", runner, n, 16, 0, 8), None) for runner in ("a", "b", "c") for n in (1, 2)]
    config = PRESETS["nano"].config
    monkeypatch.setattr(bench, "memory_bytes", lambda: None)
    assert in_parts(entries, config, 2) == [entries]
    monkeypatch.setattr(bench, "memory_bytes", lambda: 4 * 400 * 2**20)
    assert in_parts(entries, config, 2) == [entries[:4], entries[4:]]
    monkeypatch.setattr(bench, "memory_bytes", lambda: 2**20)
    assert in_parts(entries, config, 2) == [entries[:2], entries[2:4], entries[4:]]


def test_files_that_can_run_code_are_read_only_when_they_are_trusted(
    slmx: Slmx, bundle: Path, tmp_path: Path, meter: Meter, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = replace(brief(tmp_path / "out é 50%#", bundle, "torch eager", "fp32", "torchscript", "pt2"), quick=True)
    run = Bench(settings, meter)
    line = "torchscript and pt2 left out, because reading such a file can run code in it; --trust measures it"
    assert f"warning: {bundle}: {line}" in capfd.readouterr().err
    run.run()
    assert {result.case.runner for result in run.report().results} == {"torch eager", "fp32"}
    assert any(line in warning for warning in run.report().warnings)
    assert slmx.refuses("bench", bundle, "--variants", "pt2").startswith(
        f"{bundle}: nothing to measure without pt2, and reading such a file can run code in it; --trust measures it"
    )


@pytest.mark.parametrize("variant", ["torchscript", "pt2"])
def test_a_worker_reads_such_files_only_when_they_are_trusted(bundle: Path, variant: str) -> None:
    path = bundle / VARIANTS[variant].file
    shape = asdict(Bundle.open(bundle).config)
    job = Job(variant, False, str(path), True, shape, threads=1, batch=1, history=[], prompt=[1, 2], new_tokens=3)
    assert [len(row) for row in open_runner(job)().rows] == [3]
    with pytest.raises(SlmxError, match="--trust"):
        open_runner(replace(job, trusted=False))


@pytest.mark.heavy
def test_an_archive_is_measured_as_its_folder(bundle: Path, tmp_path: Path, meter: Meter, corpus_file: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "a bundle é 50%#"), "zip", bundle))
    found = []
    for path in (bundle, archive):
        settings = brief(tmp_path / f"out {path.suffix}", path, "int8", "torchscript")
        run = Bench(replace(settings, quick=True, trust=True, text=corpus_file), meter)
        run.run()
        results = run.report().results
        assert {(result.status, result.note) for result in results} == {(MEASURED, "")}
        known = [(r.case, r.disk_bytes, r.weight_bytes, r.bits_per_byte, r.bpb_increase, r.agreement) for r in results]
        found.append((known, [model.bleu for model in run.report().models.values()]))
    assert found[0] == found[1]
    assert not list(tmp_path.rglob("model_int8.onnx")), "nothing was unpacked"


def test_a_log_of_other_content_is_measured_again(bundle: Path, tmp_path: Path, meter: Meter) -> None:
    settings = replace(brief(tmp_path / "out", bundle, "int8"), quick=True)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(4, patch)
        run = Bench(settings, meter)
        with pytest.raises(KeyboardInterrupt):
            run.run()
    log = tmp_path / "out" / "resume_log.jsonl"
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    keys = ["bandwidth 1", f"group {Bundle.open(bundle).manifest.title}, prompt 16, depth 0, batch 1"]
    assert [line["key"] for line in lines[1:]] == keys
    lines[1]["value"] = {"bytes_per_second": "fast"}
    lines[2]["value"]["results"][0]["decode_seconds"] = ["fast"]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = Bench(settings, meter)
    run.run()
    assert run.report().bandwidth == {"1": 1e9}
    assert [len(result.decode_seconds) for result in run.report().results] == [2, 2]
