"""The judge is asked blind, each ending once, and goes on after a stop at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="needs the package openai")

from benchmarks.evaluation.judge.endpoint import FORMS, Judge
from benchmarks.evaluation.judge.journal import JOURNAL, Journal
from benchmarks.evaluation.judge.rubric import AXES, INSTRUCTIONS
from benchmarks.evaluation.judge.suite import REFUSALS, ask, cost_of, figures, waiting
from benchmarks.evaluation.judge.table import judge_table
from benchmarks.evaluation.stories import Ending
from slm.console.errors import SlmxError
from slm.storage.disk import WriteError
from tests.benchmarks.evaluation.judge.endpoints import SCORES, Server, serving

SETTINGS = {"url": "http://a", "model": "critic", "rubric": "1"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def endings(name: str, count: int = 6) -> list[Ending]:
    return [Ending(f"Story {number} begins.", f" {name} ends number {number}.", True) for number in range(count)]


BOTH = {"nano int8": endings("One"), "true stories": endings("Two")}


def judged(server: Server, path: Path, seed: int = 1) -> None:
    with Journal(path, SETTINGS) as journal, Judge(server.endpoint(retries=0), print) as judge:
        ask(waiting(BOTH, journal, seed), judge, journal, lambda _: None)


def test_every_ending_is_asked_once_in_a_mixed_order_and_without_a_name(server: Server, tmp_path: Path) -> None:
    judged(server, tmp_path / JOURNAL)
    asked = server.endings()
    assert sorted(asked) == sorted(ending.text.strip() for model in BOTH.values() for ending in model)
    firsts = [text.split()[0] for text in asked]
    assert firsts != sorted(firsts)
    sent = json.dumps(server.requests) + (tmp_path / JOURNAL).read_text("utf-8")
    assert "nano" not in sent
    assert "true stories" not in sent
    server.requests.clear()
    judged(server, tmp_path / "other.jsonl", seed=2)
    assert server.endings() != asked
    assert sorted(server.endings()) == sorted(asked)


def test_equal_endings_of_two_models_are_asked_about_once(server: Server, tmp_path: Path) -> None:
    same = {"fp32": endings("One"), "int8": endings("One")}
    with Journal(tmp_path / JOURNAL, SETTINGS) as journal, Judge(server.endpoint(), print) as judge:
        ask(waiting(same, journal, 1), judge, journal, lambda _: None)
        assert figures(same["fp32"], journal, "critic") == figures(same["int8"], journal, "critic")
    assert len(server.requests) == 6


@pytest.mark.parametrize("kept", [0, 3, 40, 900, -1])
def test_a_run_that_was_stopped_anywhere_goes_on(server: Server, tmp_path: Path, kept: int) -> None:
    path = tmp_path / JOURNAL
    judged(server, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    lines = path.read_bytes().count(b"\n")
    server.requests.clear()
    judged(server, path)
    assert len(server.requests) == 12 - max(0, lines - 1)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_an_endpoint_that_stops_in_the_middle_loses_no_answer(server: Server, tmp_path: Path) -> None:
    server.script = ["good"] * 4 + ["cut off"]
    with pytest.raises(SlmxError, match="the same command goes on"):
        judged(server, tmp_path / JOURNAL)
    assert len(server.requests) == 5
    judged(server, tmp_path / JOURNAL)
    assert len(server.requests) == 5 + 8
    server.requests.clear()
    judged(server, tmp_path / JOURNAL)
    assert server.requests == []


def test_a_story_that_the_endpoint_refuses_has_no_scores_and_stops_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    server.script = ["400"] * len(FORMS) + ["good", "500", "400"]
    judged(server, path)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    refused = [line["wrong"] for line in lines if line["scores"] is None]
    assert len(lines) == 12
    assert ["refuses every form" in why for why in refused] == [True, False, True]
    server.requests.clear()
    server.script = ["400"] * len(FORMS)
    judged(server, path)
    assert len(server.endings()) == len(FORMS) + 2, "each is asked about once more"
    with Journal(path, SETTINGS) as journal:
        assert sum(figures(model, journal, "critic")["no scores"] for model in BOTH.values()) == 1
    server.requests.clear()
    judged(server, path)
    assert server.requests == []


@pytest.mark.parametrize("before", [0, 4])
def test_an_endpoint_that_refuses_story_after_story_is_given_up(server: Server, tmp_path: Path, before: int) -> None:
    server.script = ["good"] * before + ["500"] * 10
    with pytest.raises(SlmxError, match="status 500, 1 times"):
        judged(server, tmp_path / JOURNAL)
    assert len(server.requests) == before + REFUSALS
    server.script = []
    judged(server, tmp_path / JOURNAL)
    with Journal(tmp_path / JOURNAL, SETTINGS) as journal:
        assert sum(figures(model, journal, "critic")["no scores"] for model in BOTH.values()) == 0


def test_a_disk_that_fails_names_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / JOURNAL, SETTINGS) as journal:
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(WriteError, match=rf"{JOURNAL}: cannot write \(No space left on device\); free space there"):
            journal.add("key", "raw", None, "nonsense", (1, 1))


def test_nonsense_is_asked_again_once_and_then_counted(server: Server, tmp_path: Path) -> None:
    server.script = ["says seven", "good", 'says {"grammar": 7}', "no content"]
    path = tmp_path / JOURNAL
    judged(server, path)
    assert len(server.requests) == 14
    reminded = ["Your last answer" in request["messages"][0]["content"] for request in server.requests]
    assert reminded == [False, True, False, True, *[False] * 10]
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    assert [line["scores"] for line in lines[:4]] == [None, SCORES, None, None]
    assert "creativity is missing" in lines[2]["wrong"]
    assert "seven" in lines[0]["raw"]
    with Journal(path, SETTINGS) as journal:
        found = [figures(model, journal, "critic") for model in BOTH.values()]
        assert journal.tokens == [14 * 300, 14 * 40]
    assert sum(each["no scores"] for each in found) == 1
    assert sorted(each["grammar"]["clusters"] for each in found) == [5, 6]
    judged(server, path)
    assert len(server.requests) == 14


def test_a_stop_after_the_first_nonsense_leaves_one_more_try(server: Server, tmp_path: Path) -> None:
    server.script = ["says seven", "cut off"]
    with pytest.raises(SlmxError):
        judged(server, tmp_path / JOURNAL)
    server.requests.clear()
    server.script = ["says eight"]
    judged(server, tmp_path / JOURNAL)
    assert len(server.requests) == 12


@pytest.mark.parametrize("name", list(SETTINGS))
def test_answers_to_another_question_are_not_mixed(tmp_path: Path, name: str) -> None:
    with Journal(tmp_path / JOURNAL, SETTINGS | {"url": "wrong"}):
        pass
    with Journal(tmp_path / JOURNAL, SETTINGS) as journal:  # one without answers is bound to nothing
        journal.add("one", "{}", None, None, (1, 1))
    with pytest.raises(SlmxError, match=f"made with another {name}; give another --out"):
        Journal(tmp_path / JOURNAL, SETTINGS | {name: "other"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello\n", "line 1: Expecting value"),
        (b"[]\n", "line 1: the whole is not an object"),
        (b'{"settings": {"url": 3}}\n{}\n', "line 1: settings.url"),
        (b"my own notes", "not the answers of a judge"),
        (None, "line 2: ending is missing"),
    ],
)
def test_another_file_of_that_name_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / JOURNAL
    path.write_bytes(json.dumps({"settings": SETTINGS}).encode() + b"\n{}\n" if content is None else content)
    before = path.read_bytes()
    with pytest.raises(SlmxError, match=said):
        Journal(path, SETTINGS)
    assert path.read_bytes() == before


def test_the_cost_counts_what_is_sent_and_the_price() -> None:
    cost = cost_of(endings("One", 10), (2.0, 10.0))
    assert cost.requests == 10
    assert cost.tokens_in >= 10 * len(INSTRUCTIONS) // 4
    assert cost.money == pytest.approx((2 * cost.tokens_in + 10 * cost.tokens_out) / 1e6)
    assert "10 requests" in str(cost)
    assert "price" not in str(cost_of(endings("One", 10), None))


def test_a_judge_that_tells_nothing_apart_is_shown_as_blind(server: Server, tmp_path: Path) -> None:
    judged(server, tmp_path / "blind.jsonl")
    server.script = [f"says {json.dumps(SCORES | {'plot': 2})}"]
    judged(server, tmp_path / "seeing.jsonl")
    notes = []
    for name in ("blind", "seeing"):
        with Journal(tmp_path / f"{name}.jsonl", SETTINGS) as journal:
            results = {name: {"judge": figures(model, journal, "critic")} for name, model in BOTH.items()}
        notes.append("gave every ending the same scores" in judge_table(results)[0].note)
    assert notes == [True, False]


def test_the_table_says_who_gave_each_score(server: Server, tmp_path: Path) -> None:
    judged(server, tmp_path / JOURNAL)
    with Journal(tmp_path / JOURNAL, SETTINGS) as journal:
        results = {name: {"judge": figures(model, journal, "critic")} for name, model in BOTH.items()}
    (table,) = judge_table(results)
    assert table.heading == "Judge"
    assert table.columns == ("axis", "nano int8", "true stories", "literature")
    assert table.rows[0] == ("scored by", "critic", "critic", "people")
    cells = {row[0]: row[1:] for row in table.rows[1:]}
    assert [cells[axis][2] for axis in AXES] == ["9.1", "7.8", "8.2", "6.9", "8.5", "-"]
    assert cells["grammar"][0] == "7.00 ± 0.00"
    assert cells["stories"] == ("6", "6", "100")
    assert judge_table({"nano": {"loss": {}}}) == []


def test_a_journal_that_cannot_be_read_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(SlmxError, match=r"judge.jsonl: cannot read \(Is a directory\); "):
        Journal(tmp_path / JOURNAL, SETTINGS)
