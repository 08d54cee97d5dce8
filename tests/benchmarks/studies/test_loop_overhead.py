"""The figures of the loop: what they count. Stories do not leak memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report.record import Report, Result
from benchmarks.studies import loop_overhead
from benchmarks.studies.figures import at_least, at_most
from benchmarks.studies.loop_overhead import (
    GREEDY,
    SAMPLED,
    batch_seconds,
    decode_figures,
    outside_run,
    soak,
)
from tests import bundles
from tests.report_samples import report, result

pytestmark = pytest.mark.slow


def of_prompt(found: Result, prompt_tokens: int) -> Result:
    return replace(found, case=replace(found.case, prompt_tokens=prompt_tokens))


def test_a_figure_says_whether_it_reached_its_goal() -> None:
    assert at_most("a", 0.08, 0.08, "{:.1%}").reached is True
    assert at_most("a", 0.081, 0.08, "{:.1%}").reached is False
    assert at_least("a", 2.9, 3.0, "{:.1f}x").goal == ">= 3.0x"
    assert at_least("a", 2.9, None, "{:.1f}x").reached is None


def test_what_is_outside_the_run_is_counted_and_the_session_stays_whole(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.studies.loop_overhead.TOKENS", 50)
    session = bundles.session(bundles.tiny_bundle(tiny_checkpoint), "int8")
    bare = session._cache._session  # type: ignore[attr-defined]
    assert outside_run(session, [1, 2], GREEDY) > 0
    assert outside_run(session, [1, 2], SAMPLED) > 0
    assert session._cache._session is bare  # type: ignore[attr-defined]
    assert batch_seconds(session, [1, 2], SAMPLED, tokens=20, rows=3) > 0


def test_decoding_is_set_against_each_peer_at_its_best_and_what_is_missing_is_said() -> None:
    sides = [
        of_prompt(result(side, preset, threads), prompt)
        for preset in ("nano", "medium")
        for side in ("int8", "torch eager", "llama.cpp Q8_0")
        for threads in (1, 2)
        for prompt in (16, 200)
    ]
    sides.append(of_prompt(result("torch eager", "small"), 16))
    figures = {figure.name: figure for figure in decode_figures(report(sides))}
    assert figures["nano: 8 bits / llama.cpp Q8_0"].value == "1.67x"
    assert figures["nano: 8 bits / llama.cpp Q8_0"].reached is False
    assert figures["nano: 8 bits / onnxruntime-genai int8"].value == "not measured"
    assert figures["nano: 8 bits, prefill of 200 / torch eager"].value == "12.50x"
    assert figures["small: 8 bits / llama.cpp Q4_0"].value == "not measured"
    assert figures["medium: 8 stories, 8 bits / llama.cpp Q8_0"].goal == ">= 1.50x"


def test_a_prompt_is_read_with_the_threads_that_read_fastest_also_if_they_write_slower() -> None:
    reading = {("fp32", 1): 0.04, ("torch eager", 1): 0.08, ("torch eager", 2): 0.05}
    sides = [
        of_prompt(replace(result(side, threads=threads, speed=1000 / threads), first_token_seconds=[seconds] * 5), 200)
        for (side, threads), seconds in reading.items()
    ]
    figures = {figure.name: figure for figure in decode_figures(report(sides))}
    assert figures["nano: fp32, prefill of 200 / torch eager"].value == "1.25x"


def test_a_stop_after_the_measurements_of_the_bench_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Measured:
        def __init__(self, *_: object) -> None: ...

        def run(self) -> None: ...

        def report(self) -> Report:
            return report([result("int8")])

        def finish(self) -> None:
            pytest.fail("the measurements are deleted before the results are written")

    def stopped() -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop_overhead, "Bench", Measured)
    monkeypatch.setattr(loop_overhead, "import_seconds", stopped)
    with pytest.raises(KeyboardInterrupt):
        loop_overhead.main(tmp_path, ["nano"])


@pytest.mark.heavy
def test_memory_is_flat_over_many_stories(tiny_checkpoint: Path) -> None:
    seen = soak(bundles.tiny_bundle(tiny_checkpoint), stories=600, every=150)
    assert len(seen) == 4
    assert seen[-1] - seen[0] < 2_000_000
