"""One story from scripted logits: where it ends, and how bytes become characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.engine.arrays import FloatArray
from runtimes.engine.story import Story, slide
from runtimes.types import Completion, GenerationConfig, LogitsRules, SamplingParams
from slm.console.errors import SlmxError

GREEDY = SamplingParams(temperature=0.0)
BYTES = 256  # ids below are bytes, END is the end of the text
END = BYTES


def logits_for(token: int) -> FloatArray:
    logits = np.zeros(BYTES + 1, np.float32)
    logits[token] = 1
    return logits


def story(
    config: GenerationConfig | None = None, prompt: int = 1, block_size: int = 64, sampling: SamplingParams = GREEDY
) -> Story:
    """A story after a prompt of `prompt` ids, with a vocabulary of bytes."""
    ids = [END, *[0] * (prompt - 1)]
    return Story("p", ids, config or GenerationConfig(), sampling, END, lambda token: bytes([token]), block_size)


def pieces(one: Story, tokens: Sequence[int]) -> Iterator[str]:
    """What the story returns for each id in turn, until it ends."""
    for token in tokens:
        yield one.accept(logits_for(token))
        if one.finish_reason is not None:
            return


def written(one: Story, tokens: Sequence[int]) -> Completion:
    """The story after these ids. Its pieces must join to its text."""
    text = "".join(pieces(one, tokens))
    completion = one.completion()
    assert completion.completion_text == text
    assert completion.full_text == "p" + text
    return completion


def test_it_stops_at_the_end_of_the_text_which_is_not_part_of_it() -> None:
    found = written(story(), [*b"abc", END, *b"d"])
    assert (found.completion_text, found.ids) == ("abc", [*b"abc"])
    assert (found.stats.finish_reason, found.stats.stop, found.stats.stop_string) == ("stop", "end of text", None)
    assert (found.stats.tokens, found.stats.prompt_tokens) == (3, 1)


def test_it_may_end_at_once() -> None:
    found = written(story(), [END])
    assert (found.completion_text, found.ids, found.stats.finish_reason) == ("", [], "stop")
    assert found.stats.tokens_per_second == 0.0


@settings(max_examples=100, deadline=None)
@given(max_tokens=st.none() | st.integers(1, 20), before_end=st.integers(0, 20), prompt=st.integers(1, 16))
@example(max_tokens=5, before_end=5, prompt=1)
@example(max_tokens=16, before_end=20, prompt=1)
@example(max_tokens=17, before_end=20, prompt=1)
@example(max_tokens=None, before_end=20, prompt=16)
def test_whichever_limit_comes_first_stops_it(max_tokens: int | None, before_end: int, prompt: int) -> None:
    one = story(GenerationConfig(max_tokens), prompt, block_size=16)
    found = written(one, [*b"a" * before_end, *[END] * 20])
    room = 16 - prompt + 1
    limit = room if max_tokens is None else min(max_tokens, room)
    assert found.completion_text == "a" * min(limit, before_end)
    if before_end < limit:
        assert (found.stats.finish_reason, found.stats.stop) == ("stop", "end of text")
    else:
        stop = "max tokens" if limit == max_tokens else "context full"
        assert (found.stats.finish_reason, found.stats.stop) == ("length", stop)


@settings(max_examples=60, deadline=None)
@given(prompt=st.integers(1, 8), block_size=st.integers(8, 12), count=st.integers(1, 40))
def test_a_context_that_slides_never_overflows_and_keeps_beginning_and_end(
    prompt: int, block_size: int, count: int
) -> None:
    one = story(GenerationConfig(count, on_full="slide"), prompt, block_size)
    read = list(one.prompt_ids)  # what the model has read
    for number in range(count):
        one.accept(logits_for(97 + number % 7))
        if one.finish_reason is None:
            read = [*read, one.ids[-1]] if one.window is None else one.window
            assert len(read) <= block_size
            assert read[-1] == one.ids[-1]
            if one.window is not None:
                assert one.window == slide(one.prompt_ids, one.ids, block_size)
    assert (len(one.ids), one.completion().stats.stop) == (count, "max tokens")


def test_what_stays_of_a_full_context() -> None:
    assert slide([1, 2, 3, 4], [5, 6, 7, 8], 8) == [1, 2, 5, 6, 7, 8]
    assert slide([1], [2], 1) == [2]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=40))
@example(data="😀!".encode())
@example(data=b"a\xe2\x82b")
@example(data=b"\xf0\x9f\x98")
@example(data=b"\xed\xa0\x80")
def test_joined_pieces_are_the_whole_decoded(data: bytes) -> None:
    assert written(story(), [*data, END]).completion_text == data.decode("utf-8", errors="replace")


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=20))
def test_half_a_character_is_never_shown(text: str) -> None:
    shown = ""
    for piece in pieces(story(block_size=1000), [*text.encode(), END]):
        shown += piece
        assert text.startswith(shown)
    assert shown == text


@pytest.mark.parametrize(
    ("stop", "kept", "hit"),
    [
        ("The end.", "They played. ", "The end."),
        (["dog", "e e"], "They played. Th", "e e"),
        ("nothing", "They played. The end. And more", None),
        ("They", "", "They"),
    ],
)
def test_it_stops_before_a_stop_string_and_says_which(stop: str | list[str], kept: str, hit: str | None) -> None:
    found = written(story(GenerationConfig(stop=stop)), [*b"They played. The end. And more", END])
    assert found.completion_text == kept
    assert found.stats.finish_reason == "stop"
    assert (found.stats.stop, found.stats.stop_string) == ("stop string" if hit else "end of text", hit)


@settings(max_examples=200, deadline=None)
@given(text=st.text(" aé", max_size=12), drop=st.booleans())
@example(text="  a", drop=True)
def test_one_space_at_the_start_is_left_out_if_the_tokenizer_puts_it_there(text: str, drop: bool) -> None:
    one = Story("p", [END], GenerationConfig(), GREEDY, END, lambda token: bytes([token]), 64, drop_space=drop)
    assert written(one, [*text.encode(), END]).completion_text == (text.removeprefix(" ") if drop else text)


def test_an_id_without_text_does_not_count_as_the_start() -> None:
    tokens = {0: b"", 1: b" a", END: b""}
    one = Story("p", [END], GenerationConfig(), GREEDY, END, tokens.__getitem__, 64, drop_space=True)
    assert written(one, [0, 1, 1, END]).completion_text == "a a"


def test_half_a_character_after_a_stop_string_is_not_shown() -> None:
    tokens = {0: b"so.\xc3", END: b""}
    one = Story("p", [END], GenerationConfig(stop="."), GREEDY, END, tokens.__getitem__, 64)
    assert written(one, [0]).completion_text == "so"


def test_what_may_become_a_stop_string_comes_when_the_story_ends() -> None:
    for limits in (GenerationConfig(3, stop="c!"), GenerationConfig(stop="c!")):
        assert written(story(limits), [*b"abc", END]).completion_text == "abc"


def test_an_interrupted_story_keeps_what_was_held_back_and_ends_once() -> None:
    one = story(GenerationConfig(stop=["bcd"]))
    assert list(pieces(one, b"abc")) == ["a", "", ""]
    before = one.completion().stats
    assert (before.finish_reason, before.stop) == ("interrupted", "interrupted")
    assert one.interrupt() == "bc"
    assert one.interrupt() == ""
    assert (one.completion().completion_text, one.finish_reason) == ("abc", "interrupted")
    ended = story()
    list(pieces(ended, [END]))
    assert (ended.interrupt(), ended.finish_reason) == ("", "stop")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rules_that_forbid_every_token_end_the_story(temperature: float) -> None:
    rules = LogitsRules(no_repeat_ngram=1)
    one = story(block_size=1000, sampling=SamplingParams(temperature, 0, 1.0, seed=1, rules=rules))
    while one.finish_reason is None:
        one.accept(np.zeros(BYTES + 1, np.float32))
    assert sorted(one.ids) == list(range(BYTES))
    stats = one.completion().stats
    assert (stats.finish_reason, stats.stop) == ("exhausted", "rules that forbid every token")


def test_log_probabilities_are_the_models_own() -> None:
    one = story(GenerationConfig(2, logprobs=True), sampling=SamplingParams(0.0, rules=LogitsRules(1.5)))
    list(pieces(one, b"ab"))
    expected = 1 - np.log(np.e + BYTES)
    np.testing.assert_allclose(one.completion().logprobs, [expected, expected], atol=1e-6)
    assert written(story(GenerationConfig(2)), b"ab").logprobs == []


def test_the_most_likely_ids_are_recorded_with_their_log_probabilities() -> None:
    one = story(
        GenerationConfig(2, top_logprobs=3, logprobs=True), sampling=SamplingParams(0.0, rules=LogitsRules(1.5))
    )
    logits = logits_for(97)
    logits[[5, 40]] = 0.5
    one.accept(logits)
    one.accept(np.zeros(BYTES + 1, np.float32))
    total = np.log(np.e + 2 * np.exp(0.5) + BYTES - 2)
    first, second = one.completion().top_logprobs
    assert list(first) == [97, 5, 40]
    np.testing.assert_allclose([*first.values()], [1 - total, 0.5 - total, 0.5 - total], atol=1e-6)
    assert first[97] == one.logprobs[0]
    np.testing.assert_allclose([*second.values()], [-np.log(BYTES + 1)] * 3, atol=1e-6)


def test_if_more_ids_are_asked_for_than_there_are_all_are_recorded() -> None:
    one = story(GenerationConfig(1, top_logprobs=1000))
    one.accept(logits_for(7))
    (found,) = one.completion().top_logprobs
    assert list(found) == [7, *[token for token in range(BYTES + 1) if token != 7]]
    assert one.completion().logprobs == []


def test_it_stops_before_an_id_that_ends_it() -> None:
    found = written(story(GenerationConfig(stop_token_ids=[98, 120], top_logprobs=1)), [*b"aab"])
    assert (found.completion_text, found.ids, len(found.top_logprobs)) == ("aa", [*b"aa"], 2)
    assert (found.stats.finish_reason, found.stats.stop) == ("stop", "stop token")
    assert written(story(GenerationConfig(stop_token_ids=[98])), [97, END]).stats.stop == "end of text"


def test_it_goes_on_after_the_end_of_the_text_if_that_is_ignored() -> None:
    tokens = {97: b"a", END: b""}
    for stop, said, ids in (((), "max tokens", [97, END, END, 97]), ((END,), "stop token", [97])):
        config = GenerationConfig(4, ignore_eos=True, stop_token_ids=stop)
        one = Story("p", [END], config, GREEDY, END, tokens.__getitem__, 64)
        found = written(one, [97, END, END, 97])
        assert (found.ids, found.stats.stop) == (ids, said)
        assert found.completion_text == "a" * ids.count(97)


def test_before_the_least_number_of_tokens_no_id_may_end_it() -> None:
    logits = np.zeros(BYTES + 1, np.float32)
    logits[[END, 98, 97]] = 3, 2, 1
    for ignore, first in ((False, 97), (True, END)):
        config = GenerationConfig(9, stop_token_ids=[98], ignore_eos=ignore)
        rules = LogitsRules(min_tokens=2)
        one = Story("p", [END], config, SamplingParams(0.0, rules=rules), END, lambda token: b"x", 64)
        one.accept(logits)
        one.accept(logits)
        assert one.ids == [first, first]
        one.accept(logits)
        assert (one.finish_reason, one.ids) == ((None, [END] * 3) if ignore else ("stop", [97] * 2))


def test_a_story_that_fails_keeps_what_it_has_and_the_error() -> None:
    one, error = story(GenerationConfig(stop=["bcd"])), SlmxError("no memory")
    list(pieces(one, b"abc"))
    assert one.fail(error) == "bc"
    assert (one.error, one.finish_reason, one.completion().completion_text) == (error, "interrupted", "abc")


def test_a_completion_does_not_change_when_the_story_goes_on() -> None:
    one = story()
    one.accept(logits_for(97))
    before = one.completion()
    one.accept(logits_for(98))
    assert (before.ids, before.completion_text) == ([97], "a")


def test_without_a_seed_each_story_takes_its_own_and_reports_it() -> None:
    sampling = SamplingParams(1.0)
    seeds = [story(sampling=sampling).completion().stats.seed for _ in range(4)]
    assert len(set(seeds)) == 4
    assert story(sampling=SamplingParams(seed=7)).completion().stats.seed == 7


def test_half_a_character_at_the_end_is_shown_as_such_with_stop_strings_too() -> None:
    found = written(story(GenerationConfig(stop="zz")), [*b"ab", 0xC3, END])
    assert found.completion_text == "ab\ufffd"


def test_ids_above_the_end_of_the_text_are_ordinary() -> None:
    one = Story("p", [5], GenerationConfig(3), GREEDY, 5, lambda token: bytes([token]), 64)
    assert written(one, [65, 66, 67]).completion_text == "ABC"


def test_times_are_from_the_start_to_the_first_id_and_from_there_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    one = story(GenerationConfig(max_tokens=3))
    clock = iter([10.0, 13.0, 17.0, 22.0])
    monkeypatch.setattr("runtimes.engine.story.time.perf_counter", lambda: next(clock))
    one.start()
    stats = written(one, [*b"abc"]).stats
    assert (stats.time_to_first_token, stats.decode_seconds) == (3.0, 9.0)
    assert stats.tokens_per_second == 2 / 9
