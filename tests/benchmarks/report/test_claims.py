"""The table of published figures: ours beside them, and the rules that find what cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

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


def rows() -> dict[tuple[str, str], list[str]]:
    found, name = {}, ""
    for first, runner, *cells in literature_table(report([result("int8"), result("int8", threads=2)])).rows:
        name = first or name
        found[name, runner] = cells
    return found


def test_every_figure_has_a_column_for_each_preset() -> None:
    table = literature_table(report([]))
    assert table.headings[2:] == ["nano", "micro", "small", "medium"]
    assert all(len(row) == 6 for row in table.rows)
    assert [row[0] for row in table.rows if row[0]] == [
        "BLEU",
        "perplexity per token",
        "bits per byte",
        "ms per token",
        "memory, MB",
        "training time",
        "model size, MB",
        "tokens/s",
    ]


def test_published_figures_are_as_they_were_published() -> None:
    found = rows()
    assert found["BLEU", "published"] == ["18.2", "21.7", "26.4", "29.1"]
    assert found["perplexity per token", "published"] == ["68.5", "52.3", "38.9", "32.4"]
    assert found["ms per token", "published"] == ["3.20", "5.80", "12.4", "28.7"]
    assert found["memory, MB", "published"] == ["12.0", "28.0", "89.0", "287"]
    assert found["model size, MB", "published"] == ["1.60", "4.80", "18.5", "95.2"]
    assert found["tokens/s", "published"] == ["2,150", "1,820", "1,240", "890"]
    assert found["training time", "published"] == ["not given"] * 4


def test_ours_are_int8_at_its_best_thread_count() -> None:
    found = rows()
    assert found["tokens/s", "measured"] == ["7,500"] + ["not measured"] * 3
    assert found["ms per token", "measured"][0] == "0.133"
    assert found["memory, MB", "measured"][0] == f"{75 * MIB / 1e6:.1f}"
    assert found["model size, MB", "measured"][0] == f"{2 * MIB / 1e6:.2f}"
    assert found["training time", "measured"] == ["1.5 h", "2.5 h", "not measured", "not measured"]
    assert found["perplexity per token", "measured"][:2] == ["5.40", "4.70"]


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
    assert "28.7 ms a token is 34.8 tokens/s; the 890 tokens/s published are 25.5 times that" in note


@pytest.mark.parametrize(
    ("size_mb", "told"),
    [
        (4.0, None),
        (3.9, "3.90 bytes each, room for float16 at most"),
        (1.9, "1.90 bytes each, room for int8 at most"),
        (0.9, "0.90 bytes each, room for 4 bits at most"),
        (0.1, "0.10 bytes each, room for no number format"),
    ],
)
def test_less_than_four_bytes_a_parameter_is_not_float32(size_mb: float, told: str | None) -> None:
    note = size_note("a", Row(size_mb=size_mb), 1_000_000)
    assert note is None if told is None else told in (note or "")


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
    assert found[-1].endswith("Bits per byte do: nano 0.7800, micro 0.7100.")


def test_without_a_measured_runtime_nothing_is_said_of_memory() -> None:
    assert not any("MB of memory" in note for note in notes(report([result("torch eager")])))


def test_random_weights_have_no_quality() -> None:
    row = measured(replace(report([result("int8")]), models={"nano": Model(10, False)}), "nano")
    assert (row.bleu, row.perplexity, row.bits_per_byte, row.training_seconds) == (None, None, None, None)
    assert row.tokens_per_second == pytest.approx(5000)


@pytest.mark.parametrize(("seconds", "told"), [(42, "42 s"), (420, "7 min"), (11_160, "3.1 h")])
def test_durations_are_for_people(seconds: float, told: str) -> None:
    assert duration(seconds) == told
