"""The table of published and measured figures, and the rules that find impossible figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.report import claims
from benchmarks.report.claims import (
    CLAIMS,
    Row,
    duration,
    literature_table,
    measured,
    memory_note,
    notes,
    size_note,
    speed_note,
)
from benchmarks.report.record import Model
from tests.report_samples import MIB, report, result

# Published figures of four models that do not exist.
FICTION = {
    "nano": Row(1.25, 68.5, None, 3.2, 12, 3600 * 7, 1.6, 2150),
    "micro": Row(bleu=20),
    "small": Row(size_mb=300),
    "medium": Row(tokens_per_second=12345.6),
}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], list[str]]:
    """The table with int8 on one and on two threads and these published figures: cells by figure and kind."""
    monkeypatch.setattr(claims, "CLAIMS", FICTION)
    found, name = {}, ""
    table = literature_table(report([result("int8"), result("int8", threads=2)]))
    assert table.headings[2:] == list(FICTION)
    for first, kind, *cells in table.rows:
        assert len(cells) == len(FICTION)
        name = first or name
        found[name, kind] = cells
    return found


def test_published_figures_are_in_the_row_and_the_column_of_their_own(rows: dict[tuple[str, str], list[str]]) -> None:
    none = "not given"
    assert {name: cells for (name, kind), cells in rows.items() if kind == "published"} == {
        "BLEU": ["1.25", "20.0", none, none],
        "perplexity per token": ["68.5", none, none, none],
        "bits per byte": [none, none, none, none],
        "ms per token": ["3.20", none, none, none],
        "memory, MB": ["12.0", none, none, none],
        "training time": ["7.0 h", none, none, none],
        "model size, MB": ["1.60", none, "300", none],
        "tokens/s": ["2,150", none, none, "12,346"],
    }


def test_ours_are_int8_at_its_best_number_of_threads(rows: dict[tuple[str, str], list[str]]) -> None:
    none = "not measured"
    assert {name: cells for (name, kind), cells in rows.items() if kind == "measured"} == {
        "BLEU": ["12.3", "14.0", none, none],
        "perplexity per token": ["5.40", "4.70", none, none],
        "bits per byte": ["0.780", "0.710", none, none],
        "ms per token": ["0.133", none, none, none],  # 1000 / 7500
        "memory, MB": ["78.6", none, none, none],  # 75 MiB
        "training time": ["1.5 h", "2.5 h", none, none],
        "model size, MB": ["2.10", none, none, none],  # 2 MiB
        "tokens/s": ["7,500", none, none, none],
    }


def test_a_batch_takes_no_less_time_a_step() -> None:
    one = result("int8")
    four = replace(one, case=replace(one.case, batch=4))
    alone, together = measured(report([one]), "nano"), measured(report([four]), "nano")
    assert together.ms_per_token == alone.ms_per_token
    assert together.tokens_per_second == pytest.approx(4 * (alone.tokens_per_second or 0))


def test_tokens_a_second_and_time_a_token_must_be_one_figure() -> None:
    assert speed_note("a", Row(ms_per_token=4, tokens_per_second=250)) is None
    assert speed_note("a", Row(ms_per_token=4, tokens_per_second=240)) is None
    assert speed_note("a", Row(ms_per_token=4)) is None
    note = speed_note("medium", CLAIMS["medium"])
    assert note is not None
    assert "28.7 ms per token is 34.8 tokens/s; the 890 tokens/s published are 25.5 times that" in note


@pytest.mark.parametrize(
    ("size_mb", "expected"),
    [
        (4.0, None),
        (3.9, "3.90 bytes each, room for float16 at most"),
        (1.9, "1.90 bytes each, room for int8 at most"),
        (0.9, "0.90 bytes each, room for 4 bits at most"),
        (0.1, "0.10 bytes each, room for no number format"),
    ],
)
def test_less_than_four_bytes_a_parameter_is_not_float32(size_mb: float, expected: str | None) -> None:
    note = size_note("a", Row(size_mb=size_mb), 1_000_000)
    assert note is None if expected is None else expected in (note or "")


def test_no_process_is_smaller_than_the_empty_runtime() -> None:
    claim = Row(memory_mb=12)
    assert memory_note("a", claim, None) is None
    assert memory_note("a", claim, 12_000_000) is None
    assert "12 MB of memory is less than the 57 MB" in (memory_note("a", claim, 57_000_000) or "")


def test_notes_name_what_is_wrong_with_each_preset() -> None:
    found = notes(report([result("int8"), result("torch eager"), result("llama.cpp Q4_0")]))
    assert [sum(note.startswith(preset) for note in found) for preset in CLAIMS] == [3, 3, 2, 2]
    assert any("1.6 MB for 1,850,112 parameters is 0.86 bytes each, room for 4 bits" in note for note in found)
    assert any(f"less than the {55 * MIB / 1e6:.0f} MB" in note for note in found)
    assert "8000, 16000 and 32000 tokens" in found[-1]
    assert found[-1].endswith("Bits per byte can be compared: nano 0.7800, micro 0.7100.")


def test_without_a_measured_runtime_there_is_no_note_on_memory() -> None:
    assert not any("MB of memory" in note for note in notes(report([result("torch eager")])))


def test_random_weights_have_no_quality() -> None:
    row = measured(replace(report([result("int8")]), models={"nano": Model(10, False)}), "nano")
    assert (row.bleu, row.perplexity, row.bits_per_byte, row.training_seconds) == (None, None, None, None)
    assert row.tokens_per_second == pytest.approx(5000)


@pytest.mark.parametrize(("seconds", "expected"), [(42, "42 s"), (420, "7 min"), (11_160, "3.1 h")])
def test_durations_are_for_people(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
