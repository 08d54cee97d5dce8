"""The list of cases. Each case fits its context, and each differs from the base case in one thing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.registry import PEERS
from benchmarks.report.record import Case
from benchmarks.run.cases import (
    BATCH,
    FEWEST_NEW,
    LONG_PROMPT,
    NEW_TOKENS,
    QUICK_RUNNERS,
    RUNNERS,
    VARIED_PEERS,
    VARIED_RUNNERS,
    base_cases,
    chosen_peers,
    chosen_runners,
    chosen_threads,
    skipped,
    variations,
)
from runtimes.bundle.pin import MAX_THREADS
from slm.console.errors import SlmxError
from slm.presets import PRESETS, GPTConfig, get_preset
from tests.benchmarks.peers.kinds import peer
from tests.shapes import ARCHITECTURES, LLAMA

CASE = Case("nano", "int8", 1, 16, 0, 3)


PLAIN = get_preset("nano").config


def shape(block_size: int) -> GPTConfig:
    return GPTConfig(block_size, 300, 1, 2, 16)


@given(block=st.integers(8, 2048), threads=st.sets(st.integers(1, 64), min_size=1), new=st.integers(2, 256))
def test_every_base_case_fits_the_context(block: int, threads: set[int], new: int) -> None:
    found = base_cases("any", shape(block), RUNNERS, sorted(threads), new)
    assert len(set(found)) == len(RUNNERS) * len(threads)
    assert {(case.runner, case.threads) for case in found} == {
        (runner, count) for runner in RUNNERS for count in threads
    }
    assert len({(case.prompt_tokens, case.depth, case.new_tokens, case.batch) for case in found}) == 1
    assert all(case.prompt_tokens + case.new_tokens <= block and case.new_tokens > 1 for case in found)


@given(block=st.integers(8, 2048), new=st.integers(2, 256), quick=st.booleans())
def test_every_variation_fits_and_differs_from_the_base_in_one_thing(block: int, new: int, quick: bool) -> None:
    (base, *_) = base_cases("any", shape(block), RUNNERS, [1], new)
    for group in variations("any", shape(block), RUNNERS, (1, 3), quick, new):
        assert group
        assert {case.threads for case in group} == ({3} if quick else {1, 3})
        assert len({replace(case, runner="", threads=1) for case in group}) == 1
        case = group[0]
        assert case.depth + case.prompt_tokens + case.new_tokens <= block
        varied = [case.prompt_tokens != base.prompt_tokens, case.depth != base.depth, case.batch != base.batch]
        assert sum(varied) == 1


def test_the_shipped_shapes_have_every_variation() -> None:
    for name in ("nano", "micro", "small", "medium"):
        groups = variations(name, PRESETS[name].config, RUNNERS, (1, 2), quick=False, new_tokens=NEW_TOKENS)
        settings = [(group[0].prompt_tokens, group[0].depth, group[0].batch) for group in groups]
        block = PRESETS[name].config.block_size
        assert settings == [
            (LONG_PROMPT, 0, 1),
            (block - FEWEST_NEW, 0, 1),
            (16, block * 3 // 4, 1),
            (16, 0, BATCH),
        ]
        assert not {"torch compiled", "torchscript", "pt2"} & {case.runner for group in groups for case in group}


@pytest.mark.parametrize(("block", "prompts"), [(215, []), (235, [200]), (236, [200, 220]), (1024, [200, 1008])])
def test_a_prompt_that_fills_the_context_is_measured_if_it_is_clearly_longer(block: int, prompts: list[int]) -> None:
    groups = variations("any", shape(block), ("int8",), (1,), quick=False, new_tokens=NEW_TOKENS)
    assert [group[0].prompt_tokens for group in groups if group[0].prompt_tokens > 16] == prompts
    assert [group[0].new_tokens for group in groups if group[0].prompt_tokens > LONG_PROMPT] == [FEWEST_NEW] * (
        len(prompts) - 1
    )


def test_some_peers_are_varied_too() -> None:
    runners = ("int8", *PEERS)
    for group in variations("nano", PRESETS["nano"].config, runners, (1,), quick=False, new_tokens=NEW_TOKENS):
        assert [case.runner for case in group] == ["int8", *VARIED_PEERS]
    assert all(PEERS[name].writes_rows for name in VARIED_PEERS)


def test_a_quick_run_varies_the_batch_of_int8_only() -> None:
    ((case,),) = variations("nano", PRESETS["nano"].config, QUICK_RUNNERS, (1, 2), quick=True, new_tokens=NEW_TOKENS)
    assert (case.runner, case.batch, case.threads) == ("int8", BATCH, 2)
    assert variations("nano", PRESETS["nano"].config, ("fp32",), (1, 2), quick=True, new_tokens=NEW_TOKENS) == []


def test_every_runner_is_varied_with_every_number_of_threads() -> None:
    for group in variations("nano", PRESETS["nano"].config, RUNNERS, (1, 2, 4), quick=False, new_tokens=NEW_TOKENS):
        assert {(case.runner, case.threads) for case in group} == {
            (runner, count) for runner in VARIED_RUNNERS if runner in RUNNERS for count in (1, 2, 4)
        }


def test_runners_come_in_the_order_of_the_table() -> None:
    everyone, quick = chosen_runners(None, quick=False), chosen_runners(None, quick=True)
    assert everyone[:3] == ("torch eager", "torch compiled", "fp32")
    assert set(quick) < set(everyone)
    assert chosen_runners(("pt2", *reversed(everyone)), quick=False) == everyone
    assert chosen_runners(("int8", "torch eager"), quick=True) == ("torch eager", "int8")


def test_a_context_that_is_too_short_is_refused() -> None:
    with pytest.raises(SlmxError, match="any: a context of 7 tokens is too short; 8 are needed"):
        base_cases("any", shape(7), RUNNERS, [1], NEW_TOKENS)


@pytest.mark.parametrize(("text", "counts"), [(None, (1, 4)), ("2", (2,)), ("4, 1,4", (1, 4))])
def test_thread_counts(text: str | None, counts: tuple[int, ...]) -> None:
    assert chosen_threads(text, cores=4) == counts


def test_no_more_threads_are_measured_than_a_session_takes() -> None:
    assert chosen_threads(None, cores=384) == (1, MAX_THREADS)
    with pytest.raises(SlmxError, match="give 1 to 256"):
        chosen_threads("257", cores=384)


@pytest.mark.parametrize("text", ["", "two", "1,,2", "0", "-1,2", "5", "1.5"])
def test_nonsense_thread_counts_are_refused(text: str) -> None:
    with pytest.raises(SlmxError, match="--threads"):
        chosen_threads(text, cores=4)


def test_peers_by_name_by_runtime_and_none() -> None:
    assert [kind.name for kind in chosen_peers(["llama.cpp"], quick=False)][:2] == ["llama.cpp F32", "llama.cpp Q8_0"]
    assert [kind.name for kind in chosen_peers(["llama.cpp Q4_0", "llama.cpp Q4_0"], quick=True)] == ["llama.cpp Q4_0"]
    assert chosen_peers(["none"], quick=False) == []
    assert len(chosen_peers(None, quick=False)) > len(chosen_peers(None, quick=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_peer_is_measured_on_plain_gpt2_and_llama_shapes(name: str) -> None:
    case, config = Case("nano", "other", 1, 16, 0, 8), ARCHITECTURES[name]
    words = f"is measured on plain GPT-2 and Llama shapes only, and this is a {config.family} with other parts"
    assert skipped(case, peer(), config) == (None if name in ("gpt2", "llama") else words)
    assert skipped(case, peer(any_shape=True), config) is None
    grouped = replace(LLAMA, n_kv_head=2, n_inner=96, norm_eps=1e-6, rope_theta=5e4)
    assert skipped(case, peer(), grouped) is None


def test_what_is_skipped_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("nano", "fp32", 1, 16, 0, 8)
    assert skipped(case, None, PLAIN) is None
    assert skipped(case, peer(), PLAIN) is None
    assert (
        skipped(case, peer(modules=("json", "no_such_module")), PLAIN)
        == "no_such_module not installed: pip install other"
    )
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "C++ compiler" in str(skipped(replace(case, runner="torch compiled"), None, PLAIN))
    assert "runs one sequence at a time" in str(skipped(replace(case, runner="portable", batch=8), None, PLAIN))
