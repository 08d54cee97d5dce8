"""Text in, text out: where a story stops, what a prompt may be, and how bytes become characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.engine.batch import write_batch
from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import GenerationConfig, Generator, Stream, slide, whole_characters
from runtimes.engine.penalties import LogitsRules
from runtimes.engine.sampler import SamplingParams
from slm.errors import SlmxError
from slm.presets import GPTConfig
from slm.tokenizer import END_OF_TEXT
from tests import bundles

GREEDY = SamplingParams(temperature=0.0)


class Script:
    """Stands in for a session: whatever goes in, its logits ask for the next id of a list."""

    def __init__(self, config: GPTConfig, ids: Sequence[int]) -> None:
        self.config, self.threads, self.length = config, 1, 0
        self.ids = list(ids)
        self.given: list[int] = []

    def _logits(self) -> FloatArray:
        logits = np.zeros(self.config.vocab_size, np.float32)
        logits[self.ids.pop(0)] = 1
        return logits

    def prefill(self, ids: Sequence[int]) -> FloatArray:
        self.given += ids
        self.length += len(ids)
        return self._logits()

    def step(self, token: int) -> FloatArray:
        assert self.length < self.config.block_size
        self.given.append(token)
        self.length += 1
        return self._logits()

    def rewind(self, length: int) -> None:
        self.length = length

    def read(self, ids: Sequence[int]) -> FloatArray:
        assert self.length == 0
        return self.prefill(ids)

    def reset(self) -> None:
        self.length = 0


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture(scope="module")
def scripted(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


def script(generator: Generator, ids: Sequence[int]) -> Script:
    session = Script(generator.bundle.config, ids)
    generator.session = session  # type: ignore[assignment]
    return session


def prompt_of(generator: Generator, tokens: int) -> str:
    """A text of so many tokens."""
    prompt = "\x01" * tokens
    assert len(generator.tokenizer.encode(prompt)) == tokens
    return prompt


def test_stops_at_the_end_of_the_text_which_is_not_part_of_it(scripted: Generator) -> None:
    letters = scripted.tokenizer.encode("abc") + scripted.tokenizer.encode("d")
    session = script(scripted, [*letters, scripted.tokenizer.end_of_text])
    story = scripted.generate("x", temperature=0.0)
    assert (story.text, story.ids) == ("xabcd", letters)
    assert (story.summary.stop, story.summary.tokens, story.summary.prompt_tokens) == ("end of text", len(letters), 2)
    assert session.given == [scripted.tokenizer.end_of_text, *scripted.tokenizer.encode("x"), *letters]


def test_a_story_may_end_at_once(scripted: Generator) -> None:
    script(scripted, [scripted.tokenizer.end_of_text])
    story = scripted.generate("x", temperature=0.0)
    assert (story.text, story.ids, story.summary.stop) == ("x", [], "end of text")
    assert story.summary.tokens_per_second == 0.0


@settings(max_examples=30, deadline=None)
@given(max_tokens=st.none() | st.integers(1, 80), before_end=st.integers(0, 80), prompt=st.integers(0, 63))
@example(max_tokens=5, before_end=5, prompt=0)
@example(max_tokens=64, before_end=80, prompt=0)
@example(max_tokens=None, before_end=80, prompt=0)
def test_whichever_limit_comes_first_stops_it(
    scripted: Generator, max_tokens: int | None, before_end: int, prompt: int
) -> None:
    room = scripted.bundle.config.block_size - prompt
    letter = scripted.tokenizer.encode("a")[0]
    session = script(scripted, [letter] * before_end + [scripted.tokenizer.end_of_text] * 80)
    stream = scripted.stream(prompt_of(scripted, prompt), GenerationConfig(max_tokens), GREEDY)
    assert "".join(stream) == "a" * len(stream.ids)
    limit = room if max_tokens is None else min(max_tokens, room)
    assert len(stream.ids) == min(limit, before_end)
    if before_end < limit:
        assert stream.stop == "end of text"
    else:
        assert stream.stop == ("max tokens" if limit == max_tokens else "context full")
    assert len(session.given) <= scripted.bundle.config.block_size
    steps = len(session.given) - prompt - 1
    assert steps == (len(stream.ids) if stream.stop == "end of text" else len(stream.ids) - 1)


def test_a_prompt_of_exactly_the_context_gives_one_token(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    stream = generator.stream(prompt_of(generator, size - 1), sampling=GREEDY)
    list(stream)
    assert len(stream.ids) == 1
    assert stream.stop == "context full"
    assert generator.session.length == size


def test_a_prompt_longer_than_the_context_is_refused(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    with pytest.raises(SlmxError, match=rf"^the prompt is {size + 1} tokens long .* context holds {size}; shorten it$"):
        generator.stream(prompt_of(generator, size))


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_max_tokens_must_be_positive(generator: Generator, max_tokens: int) -> None:
    with pytest.raises(SlmxError, match=f"^max tokens must be at least 1, not {max_tokens}$"):
        generator.stream("a", GenerationConfig(max_tokens))


def test_bytes_that_are_no_text_are_refused(generator: Generator) -> None:
    with pytest.raises(SlmxError, match="not UTF-8 text"):
        generator.stream(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_an_empty_prompt_starts_from_nothing(generator: Generator) -> None:
    stream = generator.stream("", GenerationConfig(5), GREEDY)
    text = "".join(stream)
    assert stream._prompt_ids == [generator.tokenizer.end_of_text]
    assert stream.summary.prompt_tokens == 1
    assert text == generator.tokenizer.decode(stream.ids)


def test_special_tokens_written_in_a_prompt_are_plain_text(generator: Generator) -> None:
    prompt = f"a{END_OF_TEXT}b"
    ids = generator.stream(prompt)._prompt_ids
    assert ids[0] == generator.tokenizer.end_of_text
    assert generator.tokenizer.end_of_text not in ids[1:]
    assert generator.tokenizer.decode(ids[1:]) == prompt


def test_same_seed_same_story_whichever_was_written_before(generator: Generator) -> None:
    first = generator.generate("Once", max_tokens=20, seed=5)
    other = generator.generate("Twice upon", max_tokens=7, seed=6)
    again = generator.generate("Once", max_tokens=20, seed=5)
    assert (again.text, again.ids) == (first.text, first.ids)
    assert other.ids != first.ids[: len(other.ids)]
    assert first.summary.seed == 5


def test_a_story_without_a_seed_can_be_told_again_by_the_seed_it_reports(generator: Generator) -> None:
    stories = [generator.generate("Once", max_tokens=20) for _ in range(2)]
    assert stories[0].ids != stories[1].ids
    for story in stories:
        assert generator.generate("Once", max_tokens=20, seed=story.summary.seed).ids == story.ids


def test_sampling_settings_reach_the_sampler(generator: Generator) -> None:
    greedy = generator.generate("Once", max_tokens=12, temperature=0.0)
    assert generator.generate("Once", max_tokens=12, top_k=1, top_p=1.0, temperature=2.0).ids == greedy.ids
    assert generator.generate("Once", max_tokens=12, top_k=0, top_p=1e-6).ids == greedy.ids
    penalized = generator.generate("Once", max_tokens=12, temperature=0.0, repetition_penalty=1e6).ids
    assert len(set(penalized)) == len(penalized)
    assert not set(penalized) & set(generator.tokenizer.encode("Once"))


def test_a_stream_left_early_says_so_and_the_next_story_is_whole(generator: Generator) -> None:
    whole = generator.generate("Once", max_tokens=20, temperature=0.0)
    stream = generator.stream("Once", GenerationConfig(20), GREEDY)
    pieces = iter(stream)
    next(pieces)
    del pieces
    assert stream.stop == "interrupted"
    assert 0 < len(stream.ids) < 20
    assert generator.generate("Once", max_tokens=20, temperature=0.0).ids == whole.ids


def test_figures_of_a_story(generator: Generator) -> None:
    summary = generator.generate("Once", max_tokens=9, temperature=0.0).summary
    assert summary.tokens == 9
    assert summary.time_to_first_token > 0
    assert summary.decode_seconds > 0
    assert summary.tokens_per_second == pytest.approx(8 / summary.decode_seconds)


@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.binary(max_size=5)))
@example(chunks=[b"\xf0", b"\x9f", b"\x98", b"\x80", b"!"])
@example(chunks=[b"a\xe2\x82", b"", b"b"])
@example(chunks=[b"\xf0\x9f\x98"])
@example(chunks=[b"\xed\xa0", b"\x80"])
def test_joined_pieces_are_the_whole_decoded(chunks: list[bytes]) -> None:
    pieces = list(whole_characters(chunks))
    assert "".join(pieces) == b"".join(chunks).decode("utf-8", errors="replace")
    assert all(pieces)


@settings(max_examples=100, deadline=None)
@given(text=st.text(), cuts=st.sets(st.integers(0, 200)))
def test_text_cut_anywhere_never_shows_half_a_character(text: str, cuts: set[int]) -> None:
    data = text.encode("utf-8")
    borders = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(borders)]
    shown = ""
    for piece in whole_characters(chunks):
        shown += piece
        assert text.startswith(shown)
    assert shown == text


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_is_the_decoded_ids(scripted: Generator, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, scripted.tokenizer.end_of_text - 1), min_size=1, max_size=60))
    script(scripted, ids)
    stream = scripted.stream("", GenerationConfig(len(ids)), GREEDY)
    assert "".join(stream) == scripted.tokenizer.decode(ids)
    assert stream.ids == ids


def test_the_targets_variant_is_the_default_and_an_unknown_one_is_refused(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    assert Generator(bundle).variant == "int8"
    assert Generator(bundle, "fp32").variant == "fp32"
    with pytest.raises(SlmxError, match=r"no variant 'int4'; it holds int8, fp32$"):
        Generator(bundle, "int4")


def test_threads_reach_the_session(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    assert Generator(bundle, threads=2).session.threads == 2


def test_a_stream_can_be_read_before_it_begins(generator: Generator) -> None:
    stream: Stream = generator.stream("Once", GenerationConfig(3), SamplingParams(seed=4))
    assert (stream.summary.tokens, stream.summary.seed, stream.summary.stop) == (0, 4, "interrupted")


def test_a_story_stops_before_a_stop_string_however_its_tokens_divide_it(scripted: Generator) -> None:
    text = "They played. The end. And more"
    ids = scripted.tokenizer.encode(text)
    for stop, kept in (("The end.", "They played. "), ("e e", "They played. Th"), ("nothing", text), ("They", "")):
        script(scripted, [*ids, scripted.tokenizer.end_of_text])
        stream = scripted.stream("", GenerationConfig(stop=(stop,)), GREEDY)
        assert "".join(stream) == kept
        assert stream.stop == ("end of text" if kept == text else "stop string")


def test_a_stop_string_in_the_prompt_is_none(scripted: Generator) -> None:
    ids = scripted.tokenizer.encode(" and so on")
    script(scripted, [*ids, scripted.tokenizer.end_of_text])
    assert "".join(scripted.stream("The end.", GenerationConfig(stop=("The end.",)), GREEDY)) == " and so on"


@pytest.mark.parametrize(
    ("limits", "said"), [({"stop": ("",)}, "must not be empty"), ({"on_full": "shift"}, "stop, slide")]
)
def test_limits_outside_their_range_are_refused(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(SlmxError, match=said):
        GenerationConfig(**limits)


def test_a_full_context_slides_and_goes_on(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    rules = LogitsRules(min_tokens=10 * size)
    stopped = generator.stream("One day", GenerationConfig(on_full="stop"), SamplingParams(0.0, rules=rules))
    first = "".join(stopped)
    assert stopped.stop == "context full"
    stream = generator.stream("One day", GenerationConfig(3 * size, on_full="slide"), SamplingParams(0.0, rules=rules))
    text = "".join(stream)
    assert text.startswith(first)
    assert (len(stream.ids), stream.stop) == (3 * size, "max tokens")
    prompt = generator.encode("One day")
    written = [*prompt, *stream.ids]
    # Where the context was full, the next id is the likeliest behind the prompt's beginning and the last half.
    window = slide(prompt, stream.ids[: size + 1 - len(prompt)], size)
    assert window == [*prompt[: size // 4], *written[size + 1 - size // 2 : size + 1]]
    session = generator.session.fork()
    assert written[size + 1] == int(session.read(window).argmax())


def test_a_prompt_longer_than_the_context_slides_too(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    prompt = prompt_of(generator, 2 * size)
    stream = generator.stream(prompt, GenerationConfig(4, on_full="slide"), GREEDY)
    assert len("".join(stream)) > 0
    ids = [generator.tokenizer.end_of_text, *generator.tokenizer.encode(prompt)]
    assert stream._prompt_ids == [*ids[: size // 4], *ids[-(size // 2) :]]


def test_log_probabilities_are_the_models_own(generator: Generator) -> None:
    stream = generator.stream("Once", GenerationConfig(6, logprobs=True), SamplingParams(2.0, 5, 0.5, seed=1))
    list(stream)
    ids = [*generator.encode("Once"), *stream.ids]
    session = generator.session
    session.rewind(0)
    logits = torch.from_numpy(session.score(ids[:-1]))[-len(stream.ids) :]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(stream.ids)[:, None])[:, 0]
    np.testing.assert_allclose(stream.logprobs, expected.numpy(), atol=1e-4)
    assert generator.stream("Once", GenerationConfig(6)).logprobs == []


def test_logits_that_are_no_numbers_name_the_variant(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    read = generator.session.read
    monkeypatch.setattr(generator.session, "read", lambda ids: read(ids) * np.float32("nan"))
    said = "^fp32: its logits are no numbers; .* or take another of int8, fp32$"
    with pytest.raises(SlmxError, match=said):
        generator.generate("Once")
    with pytest.raises(SlmxError, match=said):
        write_batch(generator, ["Once", "Lily"])


def test_a_special_token_in_a_prompt_is_one_only_when_allowed(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    end = Generator(bundle).tokenizer.end_of_text
    prompt = f"The end.{END_OF_TEXT}Once"
    assert Generator(bundle).encode(prompt).count(end) == 1
    assert Generator(bundle, allow_special=True).encode(prompt).count(end) == 2
    only = Generator(bundle, allow_special=True).generate(END_OF_TEXT, max_tokens=3, seed=0)
    assert len(only.ids) == 3
