"""Reading report.json: earlier versions, damaged and hostile files, and what the commands do with the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.commands import compare
from benchmarks.report import reader
from benchmarks.report.compare import compare_reports
from benchmarks.report.html import to_html
from benchmarks.report.printers import to_csv, to_jsonl, to_markdown
from benchmarks.report.reader import read_report, report_from_json
from benchmarks.report.record import FORMAT_VERSION, Case, Model, Result
from slm.console.errors import SlmxError
from slm.console.plain_text import is_plain_text
from slm.storage.json_reader import parse_json
from tests.bundles import Slmx
from tests.report_samples import large_report, report, result

POSITIVE = st.floats(1e-9, 1e9)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
RESULTS = st.builds(
    Result,
    st.builds(Case, TEXT, TEXT, *[st.integers(1, 64)] * 3, st.integers(2, 64), st.integers(1, 64)),
    st.sampled_from(["measured", "failed", "skipped"]),
    TEXT,
    st.none() | POSITIVE,
    st.lists(POSITIVE, max_size=3),
    st.lists(POSITIVE, max_size=3),
    st.lists(POSITIVE, max_size=3),
    st.none() | st.integers(0, 2**40),
)
# Wrong values that a file may hold.
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**400, 1e-320])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
# The first report format calls a runner "side", and the increase of the bits per byte "loss".
VERSION_1 = {
    "created": "2026-01-02T03:04:05+00:00",
    "command": "slmx bench",
    "machine": {"cpu": "Test CPU"},
    "bandwidth": {"1": 1e10},
    "text": None,
    "models": {"nano": {"parameters": 1850112, "trained": True}},
    "warnings": [],
    "format_version": 1,
    "results": [
        {
            "case": {
                "preset": "nano",
                "side": "int8",
                "threads": 1,
                "prompt_tokens": 16,
                "depth": 0,
                "new_tokens": 128,
                "batch": 1,
            },
            "decode_seconds": [0.5],
            "loss": 0.0018,
        }
    ],
}


def test_a_report_reads_back_equal(tmp_path: Path) -> None:
    path, written = tmp_path / "a report é 50%#.json", large_report()
    path.write_text(written.to_json(), "utf-8")
    assert read_report(path) == written


@given(results=st.lists(RESULTS, max_size=3), warnings=st.lists(TEXT, max_size=2), name=TEXT)
def test_any_report_reads_back_equal(results: list[Result], warnings: list[str], name: str) -> None:
    written = replace(report(results, warnings), models={name: Model(3, False, bleu=1.5)})
    assert report_from_json(json.loads(written.to_json())) == written


def test_a_report_of_the_first_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(VERSION_1), "utf-8")
    found = read_report(path)
    assert found.format_version == FORMAT_VERSION
    assert found.results == [Result(Case("nano", "int8", 1, 16, 0, 128), decode_seconds=[0.5], bpb_increase=0.0018)]
    assert '"loss"' not in found.to_json()
    assert '"side"' not in found.to_json()
    path.write_text(found.to_json(), "utf-8")
    assert read_report(path) == found


@pytest.mark.parametrize("inside", ["report.json", "report/report.json"])
def test_a_report_is_found_in_its_folder_and_in_the_folder_of_its_run(inside: str, tmp_path: Path) -> None:
    file = tmp_path / "a run é" / inside
    file.parent.mkdir(parents=True)
    file.write_text(large_report().to_json(), "utf-8")
    assert read_report(tmp_path / "a run é") == large_report()


def test_an_unfinished_run_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "partial-report").mkdir()
    with pytest.raises(SlmxError) as error:
        read_report(tmp_path)
    expected = f"an unfinished run of slmx bench; its command continues it, or name {tmp_path / 'partial-report'}"
    assert str(error.value) == f"{tmp_path}: {expected}"


def test_the_published_report_is_read() -> None:
    found = read_report(Path(__file__).resolve().parents[3] / "docs" / "benchmarks.json")
    assert {"torch eager", "int8", "llama.cpp Q8_0"} <= {result.case.runner for result in found.results}
    assert any(result.bpb_increase for result in found.results)


def refused(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SlmxError) as error:
        read_report(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    "content",
    [
        "",
        "tokens",
        "[]",
        "{}",
        '{"format_version": "1"}',
        '{"format_version": true}',
        '{"results": []}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format_version": ' + "1" * 5000 + "}",
        b"\xff\xfe\x00",
        '{"format_version": NaN}',
        b'{"format_version": 2, "created": "\xff"}',
    ],
    ids=[
        "empty",
        "words",
        "list",
        "object",
        "version of text",
        "version of bool",
        "no version",
        "deep list",
        "deep object",
        "long number",
        "binary",
        "NaN",
        "not UTF-8",
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert "not a benchmark report" in refused(tmp_path, content)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "no file é", "cannot read (No such file or directory); name the report of a slmx bench run"),
        (tmp_path, "an empty folder, not a report of slmx bench; name the folder that it wrote"),
    ):
        with pytest.raises(SlmxError) as error:
            read_report(path)
        assert str(error.value) == f"{path}: {reason}"


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 2**20)
    assert "not a benchmark report (more than 1,048,576 bytes)" in refused(tmp_path, " " * 2**20 + "{}")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1])
def test_another_version_is_refused_by_number(tmp_path: Path, version: int) -> None:
    text = replace(report([]), format_version=version).to_json()
    assert f"report format {version}, this slmx reads 1 to {FORMAT_VERSION}; measure again" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("results", 0, "case", "threads"), "two", "results[0].case.threads: expected a whole number, found 'two'"),
        (("results", 0, "case", "threads"), 1.0, "results[0].case.threads: expected a whole number, found 1.0"),
        (("results", 0, "case", "threads"), True, "results[0].case.threads: expected a whole number, found True"),
        (("results", 0, "case", "batch"), 0, "results[0].case: batch of a case is 0"),
        (("results", 0, "case", "new_tokens"), 1, "results[0].case: new_tokens of a case is 1"),
        (("results", 0, "case", "depth"), 2**100, "results[0].case.depth: expected a whole number, found 12676"),
        (("results", 0, "case", "runner"), 3, "results[0].case.runner: expected text, found 3"),
        (("results", 0, "case", "colour"), "red", "results[0].case.colour: unknown field"),
        (("results", 0, "status"), "fine", "results[0]: status of a case is 'fine'"),
        (("results", 0, "decode_seconds"), [0.0], "results[0]: a sample is 0.0 seconds"),
        (("results", 0, "decode_seconds"), [-1], "results[0]: a sample is -1.0 seconds"),
        (("results", 0, "token_seconds"), [1, "fast"], "results[0].token_seconds[1]: expected a number, found 'fast'"),
        (("results", 0, "token_seconds"), [10**400], "results[0].token_seconds[0]: expected a number, found 1000"),
        (("results", 0, "first_token_seconds"), None, "results[0].first_token_seconds: expected a list, found None"),
        (("results", 0, "peak_bytes"), -1, "results[0]: peak_bytes is -1"),
        (("results", 0), [], "results[0]: expected an object, found []"),
        (("results",), {"a": 1}, "results: expected a list, found {'a': 1}"),
        (("machine",), [], "machine: expected an object, found []"),
        (("machine",), {"the cores": 2}, "machine.'the cores': expected text, found 2"),
        (("models",), {"nano": {"parameters": 1}}, "models.nano.trained: missing"),
        (("bandwidth",), {"1": 1e-300}, "bandwidth of 1 threads is 1e-300"),
        (("warnings",), ["a", None], "warnings[1]: expected text, found None"),
    ],
)
def test_a_damaged_report_is_refused_by_its_first_wrong_field(
    tmp_path: Path, where: tuple[str | int, ...], value: object, message: str
) -> None:
    found: Any = json.loads(report([result("int8")]).to_json())
    inner = found
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert f"not a valid benchmark report ({message}" in refused(tmp_path, json.dumps(found))


@pytest.mark.parametrize(
    "name", ["created", "command", "machine", "bandwidth", "text", "models", "results", "warnings"]
)
@pytest.mark.parametrize("version", [1, FORMAT_VERSION])
def test_a_report_that_lacks_a_part_is_refused(tmp_path: Path, name: str, version: int) -> None:
    found = json.loads(report([]).to_json()) | {"format_version": version}
    del found[name]
    assert f"({name}: " in refused(tmp_path, json.dumps(found))


def places(value: object, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value inside a JSON value."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [place for key, entry in inner for place in ((*where, key), *places(entry, (*where, key)))]


SOUND = report([replace(result("int8"), token_seconds=[0.1, 0.2]), result("torch eager"), result("llama.cpp Q4_0")])
PLACES = places(json.loads(SOUND.to_json()))


@settings(deadline=None)
@given(where=st.sampled_from(PLACES), value=JSON, old=st.booleans())
def test_a_report_with_any_one_value_changed_is_refused_or_can_be_used(
    where: tuple[str | int, ...], value: object, old: bool
) -> None:
    found = json.loads(SOUND.to_json())
    inner = found
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    if old and found.get("format_version") == FORMAT_VERSION:
        found["format_version"] = 1
    try:
        read = report_from_json(parse_json(json.dumps(found).encode()))
    except ValueError:
        return
    for printer in (to_csv, to_jsonl, to_markdown):
        assert isinstance(printer(read), str)
    for pair in ((SOUND, read), (read, SOUND)):
        if pair[0].results and pair[1].results:  # one value changes one case of three, so both have the other cases
            comparison = compare_reports(*pair)
            assert all(is_plain_text(line) for line in (*comparison.lines(), *comparison.regressions(0.1)))


@pytest.mark.parametrize("name", ["a\x1b[31mb", "two\nlines", "\ud800", "\x9b31m"])
def test_control_characters_in_names_do_not_reach_a_terminal(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = replace(result("int8").case, runner=name)
    path = tmp_path / "report é.json"
    path.write_text(report([replace(result("int8"), case=case)]).to_json(), "utf-8")
    faster = replace(result("int8", speed=9000), case=case)
    other = tmp_path / "other.json"
    other.write_text(report([faster]).to_json(), "utf-8")
    compare(path, other)
    out = capsys.readouterr().out
    assert name not in out
    assert all(is_plain_text(line) for line in out.splitlines())


def test_compare_refuses_a_damaged_report_in_one_line(slmx: Slmx, tmp_path: Path) -> None:
    good, bad = tmp_path / "good é 50%#.json", tmp_path / "bad é 50%#.json"
    good.write_text(SOUND.to_json(), "utf-8")
    found = json.loads(SOUND.to_json())
    found["results"][0]["decode_seconds"] = ["fast"]
    bad.write_text(json.dumps(found), "utf-8")
    line = "results[0].decode_seconds[0]: expected a number, found 'fast'"
    for pair in ((good, bad), (bad, good)):
        assert slmx.refuses("compare", *pair) == (
            f"{bad}: not a valid benchmark report ({line}); measure again with slmx bench"
        )


def test_a_page_of_a_report_of_the_first_format_shows_its_figures() -> None:
    page = to_html(report_from_json(VERSION_1))
    assert "99.8 %" in page
    assert "254" in page  # tokens per second
