"""Groups of workers: order, crashes, kills, missing or unreadable answers and wrong output, with fake workers."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.report.record import FAILED, MEASURED, SKIPPED, Case, Result
from benchmarks.run import measure
from benchmarks.run.measure import Entry, Group
from benchmarks.run.output_check import ExpectedOutput
from benchmarks.run.runners import Job
from export.checks.torch_session import float_session
from runtimes.system.busy import BusyWatch
from slm.model import GPT
from slm.presets import GPTConfig
from tests.bundles import random_model

CASE = Case("tiny", "fp32", 1, 4, 0, 6)
PROMPT = [1, 2, 3, 4]
# The name of the runner decides how it behaves. Its `shape` holds the ids to write.
ANSWERS = {
    "talks": b"a library prints this",
    "talks in Latin-1": b"caf\xe9",
    "answers a list": b"[]",
    "answers too deep": b"[" * 100_000,
    "answers text": b'{"round": {"rows": [["1"]], "first_token_seconds": 1, "decode_seconds": 1, "token_seconds": []}, '
    b'"peak_bytes": 3}',
    "answers too little": b'{"peak_bytes": 3}',
    "answers no row": b'{"round": {"rows": [], "first_token_seconds": 1, "decode_seconds": 1, "token_seconds": []}, '
    b'"peak_bytes": -3}',
}
PRETENDER = (
    f"""
ANSWERS = {ANSWERS}
"""
    + """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
behaviour, ids = job["runner"], job["shape"]["ids"]
log = open(job["path"], "a", encoding="utf-8")
if behaviour == "does not load":
    sys.exit("no such model")
print(json.dumps({"load_seconds": 0.5, "interpreter_bytes": 1, "imports_bytes": 2}), flush=True)
for number, line in enumerate(sys.stdin):
    log.write(f"{behaviour} {number}\\n"); log.flush()
    if number == 2:
        if behaviour == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if behaviour == "ends by a signal without a name":
            os.kill(os.getpid(), signal.SIGRTMIN + 5)
        if behaviour == "raises":
            print("talk", file=sys.stderr)
            sys.exit("out of luck")
        if behaviour == "hangs":
            time.sleep(60)
        if behaviour == "ends":
            sys.exit(0)
        if behaviour == "closes":
            os.close(1)
            time.sleep(60)
        if behaviour == "errs once":
            print(json.dumps({"round": {**round, "rows": [[-1] * 6]}, "peak_bytes": 9}), flush=True)
            continue
        if behaviour in ANSWERS:
            os.write(1, ANSWERS[behaviour] + b"\\n")
            continue
    seconds = 0.0 if behaviour == "no time" and number else 0.5
    round = {"rows": [ids], "first_token_seconds": 0.1, "decode_seconds": seconds, "token_seconds": [0.1] * 5}
    print(json.dumps({"round": round, "peak_bytes": 3}), flush=True)
"""
)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    return random_model(GPTConfig(32, 100, 1, 2, 16))


@pytest.fixture(scope="module")
def expected(model: GPT) -> ExpectedOutput:
    return ExpectedOutput.of(model, PROMPT, CASE.new_tokens, trained=True, float_runners=frozenset({"fp32", "wrong"}))


@pytest.fixture(autouse=True)
def pretenders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WORKER", (sys.executable, "-S", "-c", PRETENDER))
    monkeypatch.setattr(measure, "PATIENCE", 5.0)
    monkeypatch.setattr(measure, "ENDING", 1.0)
    monkeypatch.setattr(measure, "PAUSE", 0.0)


def group(behaviours: list[str], expected: ExpectedOutput, log: Path, rounds: int = 3) -> Group:
    def entry(behaviour: str) -> Entry:
        ids = [0] * 6 if behaviour == "wrong" else expected.ids[:5] if behaviour == "short" else expected.ids
        shape = {"ids": ids}
        job = Job(
            runner=behaviour,
            peer=False,
            path=str(log),
            trusted=False,
            shape=shape,  # type: ignore[arg-type]
            threads=1,
            batch=1,
            history=[],
            prompt=PROMPT,
            new_tokens=6,
        )
        return Entry(replace(CASE, runner=behaviour), job, {"disk_bytes": 7})

    return Group([entry(behaviour) for behaviour in behaviours], expected, rounds, lambda case: None)


def by_runner(running: Group) -> dict[str, Result]:
    return {result.case.runner: result for result in running.results}


def test_every_case_gives_a_sample_a_round_in_alternating_order(expected: ExpectedOutput, tmp_path: Path) -> None:
    running = group(["one", "two"], expected, tmp_path / "log")
    running.run()
    for result in running.results:
        assert (result.status, result.agreement, result.peak_bytes, result.disk_bytes) == (MEASURED, 1.0, 3, 7)
        assert (result.load_seconds, result.interpreter_bytes, result.imports_bytes) == (0.5, 1, 2)
        assert (len(result.first_token_seconds), len(result.decode_seconds), len(result.token_seconds)) == (3, 3, 15)
        assert result.decode is not None
        assert result.decode.median == pytest.approx(10)
    order = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [runner for runner, number in order if number == "0"] == ["one", "two"]
    assert [runner for runner, number in order if number == "1"] == ["two", "one"]
    assert [runner for runner, number in order if number == "2"] == ["one", "two"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "note"),
    [
        ("does not load", "no such model"),
        ("killed", "killed (SIGKILL), probably for memory: close other programs, or measure smaller presets"),
        ("crashes", "crashed (SIGSEGV): nothing on stderr"),
        pytest.param(
            "ends by a signal without a name",
            f"crashed (signal {getattr(signal, 'SIGRTMIN', 0) + 5}): nothing on stderr",
            marks=pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="real-time signals are of Linux"),
        ),
        ("raises", "out of luck"),
        ("ends", "ended with exit code 0: nothing on stderr"),
        ("closes", "its process closed its output and did not end"),
        ("talks", "its process gave an answer that cannot be read (Expecting value: line 1 column 1 (char 0))"),
        (
            "talks in Latin-1",
            "its process gave an answer that cannot be read "
            "('utf-8' codec can't decode byte 0xe9 in position 3: invalid continuation byte)",
        ),
        (
            "answers a list",
            "its process gave an answer that cannot be read (the file: expected an object, found [])",
        ),
        ("answers too deep", "its process gave an answer that cannot be read (more than 16 levels of brackets)"),
        (
            "answers text",
            "its process gave an answer that cannot be read (round.rows[0][0]: expected a whole number, found '1')",
        ),
        ("answers too little", "its process gave an answer that cannot be read (round: missing)"),
        ("answers no row", "its process gave an impossible figure: peak_bytes is -3"),
        ("no time", "its process gave an impossible figure: a sample is 0.0 seconds"),
    ],
)
def test_a_worker_that_fails_is_reported_and_the_others_continue(
    expected: ExpectedOutput, tmp_path: Path, behaviour: str, note: str
) -> None:
    running = group([behaviour, "fine"], expected, tmp_path / "log")
    running.run()
    found = by_runner(running)
    assert (found[behaviour].status, found[behaviour].note) == (FAILED, note)
    assert found[behaviour].decode is None
    assert len(found["fine"].decode_seconds) == 3


@pytest.mark.slow
def test_a_worker_that_gives_no_answer_is_ended(
    expected: ExpectedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PATIENCE", 1.5)
    running = group(["hangs", "fine"], expected, tmp_path / "log", rounds=2)
    running.run()
    assert by_runner(running)["hangs"].note == "its process gave no answer in 2 s and was ended"
    assert len(by_runner(running)["fine"].decode_seconds) == 2


@pytest.mark.parametrize(
    ("behaviour", "note"), [("wrong", "not timed: only"), ("short", "not timed: wrote 5 ids, not 6")]
)
def test_a_wrong_answer_is_not_timed(expected: ExpectedOutput, tmp_path: Path, behaviour: str, note: str) -> None:
    running = group([behaviour, "fine"], expected, tmp_path / "log")
    running.run()
    found = by_runner(running)
    assert found[behaviour].status == FAILED
    assert found[behaviour].note.startswith(note)
    assert f"{behaviour} 1" not in (tmp_path / "log").read_text()
    assert found["fine"].status == MEASURED


def test_the_worst_agreement_of_all_rounds_counts(expected: ExpectedOutput, tmp_path: Path) -> None:
    running = group(["errs once"], expected, tmp_path / "log")
    running.run()
    (result,) = running.results
    assert (result.status, result.agreement, result.peak_bytes) == (MEASURED, 0.0, 3)


@pytest.mark.parametrize(
    ("rank", "trained", "right"), [(0, True, True), (1, True, False), (9, False, True), (10, False, False)]
)
def test_an_id_is_likely_up_to_its_rank(model: GPT, rank: int, trained: bool, right: bool) -> None:
    with torch.inference_mode():
        ranked = model(torch.tensor([PROMPT]))[0, -1].argsort(descending=True).tolist()
    expected = ExpectedOutput.of(model, PROMPT, 2, trained, frozenset())
    assert (expected._likely([ranked[rank]], 1 if trained else 10) == 1) is right


def test_what_cannot_be_measured_is_skipped_with_its_note(expected: ExpectedOutput) -> None:
    running = Group([Entry(CASE, None, note="not installed")], expected, 2, lambda case: None)
    running.run()
    assert running.results == [Result(CASE, status=SKIPPED, note="not installed")]


def test_an_interrupted_group_keeps_what_has_a_round_and_ends_its_workers(
    expected: ExpectedOutput, tmp_path: Path
) -> None:
    turns = 0

    def step(case: Case) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            raise KeyboardInterrupt

    running = group(["one", "two"], expected, tmp_path / "log")
    running._step = step
    with pytest.raises(KeyboardInterrupt):
        running.run()
    (result,) = running.results
    assert (result.case.runner, len(result.decode_seconds)) == ("two", 1)
    assert all(worker._process.poll() is not None for worker in running._workers.values())


def test_quantized_runners_are_checked_by_what_the_float_model_thinks_of_their_ids(model: GPT) -> None:
    expected = ExpectedOutput.of(model, PROMPT, 6, trained=True, float_runners=frozenset({"fp32"}))
    with torch.inference_mode():
        likely = model(torch.tensor([PROMPT]))[0, -1].argsort(descending=True).tolist()
    other = ExpectedOutput.of(model, [*PROMPT, likely[5]], 5, trained=True, float_runners=frozenset())
    parted = [likely[5], *other.ids]  # the first id is almost as likely, and the rest is right after it
    int8 = replace(CASE, runner="int8")
    assert expected.agreement([parted]) == 0
    assert expected.wrong(int8, [parted]) is None
    assert "only the first 0%" in str(expected.wrong(CASE, [parted]))
    assert "of its ids the likeliest" in str(expected.wrong(int8, [[likely[-1]] * 6]))
    assert "of its ids the likeliest" in str(expected.wrong(replace(int8, batch=2), [expected.ids, [likely[-1]] * 6]))
    assert "wrote 6 ids, not 6 in each of 2 rows" in str(expected.wrong(replace(int8, batch=2), [expected.ids]))
    assert "wrote no ids" in str(expected.wrong(int8, []))
    assert "not in the vocabulary" in str(expected.wrong(int8, [[100] * 6]))
    near = replace(expected, trained=False)
    assert (
        near.wrong(int8, [[likely[8], *ExpectedOutput.of(model, [*PROMPT, likely[8]], 5, False, frozenset()).ids]])
        is None
    )
    assert "among the 10 likeliest" in str(near.wrong(int8, [[likely[-1]] * 6]))


def test_a_process_that_cannot_start_is_a_failed_case(
    expected: ExpectedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "WORKER", (str(tmp_path / "none"),))
    running = group(["fine"], expected, tmp_path / "log")
    running.run()
    assert by_runner(running)["fine"].note == "cannot start a process (No such file or directory); close other programs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_float_model_opens(model: GPT) -> None:
    assert float_session(model, 1, compiled=True).length == 0


def test_others_are_what_is_busy_and_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, ticks = [100.0], 100
    monkeypatch.setattr("runtimes.system.busy.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("runtimes.system.busy.os.times", lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr("runtimes.system.busy.os.cpu_count", lambda: 2)
    monkeypatch.setattr("runtimes.system.busy.os.sysconf", lambda name: ticks)
    (tmp_path / "7").mkdir()

    def at(seconds: float, busy: int, ours: int) -> None:
        now[0] = seconds
        (tmp_path / "stat").write_text(f"cpu  {busy} 0 0 999 0 0 0 0 0 0\ncpu0 1\n")
        (tmp_path / "7" / "stat").write_text(f"7 (a (b) c) S {' '.join('0' * 10)} {ours} 0 0 0 20 0\n")

    watch = BusyWatch(lambda: [7, 8], tmp_path)
    assert watch.others() is None
    at(100, busy=1000, ours=500)
    watch.start()
    at(110, busy=3000, ours=1500)
    assert watch.others() == pytest.approx(0.5)
    at(110, busy=3000, ours=2450)
    assert watch.others() is None
    at(100.1, busy=3000, ours=500)
    assert watch.others() is None
    assert BusyWatch(proc=tmp_path / "none").others() is None
