"""The table of published and measured figures, and the rules that find impossible figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.report import claims
from benchmarks.report.claims import (
    Row,
    impossible,
    literature_table,
    measured,
    note,
)
from benchmarks.report.record import Model, Report, Result
from tests.report_samples import MIB, report, result

# Published figures of four models that do not exist.
FICTION = {
    "nano": Row(1.25, 68.5, None, 3.2, 12, 3600 * 7, 0.5, 1.6, 2150),
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
    assert table.columns[2:] == list(FICTION)
    for first, kind, *shown in table.rows:
        cells = [cell.removesuffix(claims.MARK) for cell in shown]
        assert len(cells) == len(FICTION)
        name = first or name
        found[name, kind] = cells
    return found


def test_published_figures_are_in_the_row_and_the_column_of_their_own(rows: dict[tuple[str, str], list[str]]) -> None:
    none = "not given"
    assert {name: cells for (name, kind), cells in rows.items() if kind == "published"} == {
        "BLEU": ["1.25", "20", none, none],
        "perplexity per token": ["68.5", none, none, none],
        "bits per byte": [none, none, none, none],
        "ms per token": ["3.2", none, none, none],
        "memory, MB": ["12", none, none, none],
        "training time": ["7.0 h", none, none, none],
        "GPU memory in training, GB": ["0.5", none, none, none],
        "model size, MB": ["1.6", none, "300", none],
        "tokens/s": ["2,150", none, none, "12,345.6"],
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
        "GPU memory in training, GB": [none, none, none, none],
        "model size, MB": ["2.10", none, none, none],  # 2 MiB
        "tokens/s": ["7,500", none, none, none],
    }


def test_a_batch_takes_no_less_time_a_step() -> None:
    one = result("int8")
    four = replace(one, case=replace(one.case, batch=4))
    alone, together = measured(report([one]), "nano"), measured(report([four]), "nano")
    assert together.ms_per_token == alone.ms_per_token
    assert together.tokens_per_second == pytest.approx(4 * (alone.tokens_per_second or 0))


def found(monkeypatch: pytest.MonkeyPatch, claim: Row, *results: Result) -> dict[str, float]:
    """The figures of one claim about nano that cannot hold."""
    monkeypatch.setattr(claims, "CLAIMS", {"nano": claim})
    return {key: value for (_, key), value in impossible(report(results)).items()}


def test_tokens_a_second_and_time_a_token_must_be_one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, Row(ms_per_token=4, tokens_per_second=250)) == {}
    assert found(monkeypatch, Row(ms_per_token=4, tokens_per_second=240)) == {}
    assert found(monkeypatch, Row(ms_per_token=4)) == {}
    wrong = found(monkeypatch, Row(ms_per_token=28.7, tokens_per_second=890))
    assert wrong == {"tokens_per_second": pytest.approx(25.543)}


def test_less_than_four_bytes_a_parameter_is_not_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = 4 * 1_850_112 / 1e6
    assert found(monkeypatch, Row(size_mb=floats)) == {}
    assert found(monkeypatch, Row(size_mb=floats / 2)) == {"size_mb": pytest.approx(2)}


def test_no_process_is_smaller_than_the_empty_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    base = 55 * MIB / 1e6
    assert found(monkeypatch, Row(memory_mb=12), result("int8")) == {"memory_mb": pytest.approx(base)}
    assert found(monkeypatch, Row(memory_mb=base + 1), result("int8")) == {}
    assert found(monkeypatch, Row(memory_mb=12), result("torch eager")) == {}


def test_one_note_explains_every_mark() -> None:
    run = report([result("int8"), result("torch eager"), result("llama.cpp Q4_0")])
    assert note(run) == (
        "*: cannot hold: the tokens/s of nano, micro, small and medium are 6.88 to 25.5 times what the ms per token "
        "allow; the files of nano, micro, small and medium have 0.865 to 2.80 bytes per parameter, and float32 takes "
        "4; the memory of nano and micro is less than the 57.7 MB that Python with onnxruntime takes here alone. "
        "Perplexity is per token, and these presets have vocabularies of 8,000, 16,000 and 32,000 tokens, so their "
        "perplexities cannot be compared with each other. Bits per byte can."
    )
    marked = {
        (row[0] or name, place) for name, row in named_rows(run) for place, cell in enumerate(row[2:]) if "*" in cell
    }
    assert marked == {
        *(("tokens/s", place) for place in range(4)),
        *(("model size, MB", place) for place in range(4)),
        ("memory, MB", 0),
        ("memory, MB", 1),
    }


def named_rows(run: Report) -> list[tuple[str, Sequence[str]]]:
    """The rows of the table, each with the name of its figure."""
    rows, name = [], ""
    for row in literature_table(run).rows:
        name = row[0] or name
        rows.append((name, row))
    return rows


def test_the_published_figures_name_their_source_and_have_every_row() -> None:
    table = literature_table(report([]))
    assert "uayushdubey/Small_Language_Model_to_Generate_Short_Stories" in table.note
    assert '"Benchmark Results"' in table.note
    cells = {name: row[2:] for name, row in named_rows(report([])) if row[1] == "published"}
    assert cells["training time"] == ["0.8 h", "1.5 h", "4.2 h", "12.3 h"]
    assert cells["GPU memory in training, GB"] == ["0.5", "0.8", "1.2", "2.4"]
    ours = {name: row[2:] for name, row in named_rows(report([])) if row[1] == "measured"}
    assert ours["GPU memory in training, GB"] == ["not measured"] * 4


def test_random_weights_have_no_quality() -> None:
    row = measured(replace(report([result("int8")]), models={"nano": Model(10, False)}), "nano")
    assert (row.bleu, row.perplexity, row.bits_per_byte, row.training_seconds) == (None, None, None, None)
    assert row.tokens_per_second == pytest.approx(5000)
