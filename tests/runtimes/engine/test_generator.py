"""The generator: which prompts are allowed, what the settings do, and how it is closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.engine.session import Session
from runtimes.engine.story import slide
from runtimes.engine.stream import Stream
from runtimes.types import Completion, GenerationConfig, LogitsRules, SamplingParams
from slm.console.errors import SlmxError
from slm.tokenizers.settings import END_OF_TEXT
from slm.tokenizers.tokenizer import Tokenizer
from tests import bundles

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture
def session(tiny_checkpoint: Path) -> Session:
    return bundles.session(bundles.tiny_bundle(tiny_checkpoint))


def prompt_of(generator: Generator, tokens: int) -> str:
    """A text of this many tokens."""
    prompt = "\x01" * tokens
    assert len(generator.tokenizer.encode(prompt)) == tokens
    return prompt


def test_a_story_is_the_likeliest_ids_of_the_session(generator: Generator, session: Session) -> None:
    story = generator.generate("Once", temperature=0.0, max_tokens=20)
    logits = session.prefill([generator.tokenizer.end_of_text, *generator.tokenizer.encode("Once")])
    ids: list[int] = []
    while len(ids) < 20:
        ids.append(int(logits.argmax()))
        logits = session.step(ids[-1])
    assert story.ids == ids
    assert story.completion_text == generator.tokenizer.decode(ids)
    assert story.full_text == "Once" + story.completion_text


def test_a_prompt_of_exactly_the_context_gives_one_token(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    stream = generator.stream(prompt_of(generator, size - 1), sampling=GREEDY)
    list(stream)
    assert len(stream.ids) == 1
    assert (stream.stats.finish_reason, stream.stats.stop) == ("length", "context full")


def test_a_prompt_longer_than_the_context_is_refused(generator: Generator) -> None:
    size = generator.bundle.config.block_size
    with pytest.raises(
        SlmxError, match=rf"^the prompt is {size + 1} tokens long .* context holds {size} tokens; shorten it"
    ):
        generator.stream(prompt_of(generator, size))


@pytest.mark.parametrize("text", [" " * 1_000_000, "a" * 1_000_000, "\n" * 1_000_000, "Zoë %# " * 200_000])
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_encoded(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    encoded: list[int] = []
    encode = Tokenizer.encode

    def counted(self: Tokenizer, text: str, allow_special: bool = False) -> list[int]:
        encoded.append(len(text))
        return encode(self, text, allow_special)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    size = len(text.encode())
    with pytest.raises(
        SlmxError, match=rf"^the prompt is far too long \({size:,} bytes\), the context holds 64 tokens; "
    ):
        generator.stream(text)
    assert encoded == []
    assert generator.stream(text, GenerationConfig(on_full="slide")).prompt_ids
    assert sum(encoded) < 10_000


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("ab Zoë.\n'é%#1"), max_size=40), times=st.integers(0, 150))
def test_a_prompt_that_slides_has_the_ids_of_the_whole(generator: Generator, text: str, times: int) -> None:
    prompt, size = text * times, generator.bundle.config.block_size
    ids = [generator.tokenizer.end_of_text, *generator.tokenizer.encode(prompt)]
    expected = slide(ids, [], size) if len(ids) > size else ids
    assert generator.encode(prompt, "slide") == expected


def test_the_bound_on_bytes_refuses_no_prompt_that_fits(generator: Generator) -> None:
    tokenizer, size = generator.tokenizer, generator.bundle.config.block_size
    longest = max(tokenizer.tokens, key=len).decode()
    assert len(generator.encode(longest * (size - 1))) == size
    with pytest.raises(SlmxError, match=f"^the prompt is {size + 1} tokens long"):
        generator.encode(longest * size)
    special = load(generator.bundle.path, allow_special=True)
    assert special.encode(END_OF_TEXT * (size - 1)) == [tokenizer.end_of_text] * size


def test_a_prompt_may_be_ids(generator: Generator) -> None:
    config, text = GenerationConfig(9), "Zoë saw 100% of #1"
    expected = generator.story(text, config, GREEDY)
    for ids in (generator.tokenize(text), generator.encode(text), tuple(generator.encode(text))):
        one = generator.story(ids, config, GREEDY)
        assert (one.prompt, one.prompt_ids) == (text, expected.prompt_ids)
    empty = generator.story([], config, GREEDY)
    assert (empty.prompt, empty.prompt_ids) == ("", [generator.tokenizer.begin])
    twice = [generator.tokenizer.begin] * 2
    assert generator.story(twice, config, GREEDY).prompt_ids == twice


def test_banned_words_know_the_text_of_a_prompt_of_ids(generator: Generator) -> None:
    sampling = SamplingParams(0.0, rules=LogitsRules(ban_words=["cat"], logit_bias={generator.tokenize("t")[0]: 100}))
    stories = [
        generator.story(prompt, GenerationConfig(1), sampling) for prompt in ("The ca", generator.tokenize("The ca"))
    ]
    logits = np.zeros(generator.tokenizer.vocab_size, np.float32)
    for one in stories:
        one.accept(logits)
    assert stories[0].ids == stories[1].ids != generator.tokenize("t")


def test_ids_that_slide_are_those_of_the_whole(generator: Generator) -> None:
    size, ids = generator.bundle.config.block_size, list(range(1, 100))
    begin = generator.tokenizer.begin
    assert generator.encode(ids, "slide") == slide([begin, *ids], [], size)
    assert generator.encode(ids[: size - 1]) == [begin, *ids[: size - 1]]
    with pytest.raises(SlmxError, match=f"^the prompt is {size + 1} tokens long .* context holds {size} tokens"):
        generator.encode(ids[:size])


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ([1, 400], "prompt: no token has the id 400; ids go from 0 to 399"),
        ([1, -1], "prompt: an id must lie from 0 to 2147483647, not -1"),
        ([1, True], "prompt: an id must be a whole number, not True"),
        ([[1]], "prompt: an id must be a whole number, not [1]"),
        ([1.0], "prompt: an id must be a whole number, not 1.0"),
    ],
)
def test_ids_that_are_none_are_refused(generator: Generator, prompt: list[int], line: str) -> None:
    with pytest.raises(SlmxError) as caught:
        generator.encode(prompt)
    assert str(caught.value) == line


def test_ids_that_the_vocabulary_lacks_are_refused_before_the_story_begins(generator: Generator) -> None:
    with pytest.raises(SlmxError, match=r"^stop token ids: no token has the id 400; ids go from 0 to 399$"):
        generator.story("", GenerationConfig(stop_token_ids=[3, 400]), GREEDY)
    with pytest.raises(SlmxError, match=r"^logit bias: no token has the id 400; ids go from 0 to 399$"):
        generator.story("", GenerationConfig(), SamplingParams(rules=LogitsRules(logit_bias={400: 1.0})))


def test_bytes_that_are_no_text_are_refused(generator: Generator) -> None:
    for take in (generator.stream, generator.tokenize):
        with pytest.raises(SlmxError, match="not UTF-8 text"):
            take(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_an_empty_prompt_starts_from_nothing(generator: Generator) -> None:
    stream = generator.stream("", GenerationConfig(5), GREEDY)
    text = "".join(stream)
    assert stream.prompt_ids == [generator.tokenizer.end_of_text]
    assert stream.stats.prompt_tokens == 1
    assert text == generator.tokenizer.decode(stream.ids)


def test_special_tokens_written_in_a_prompt_are_plain_text_unless_allowed(tiny_checkpoint: Path) -> None:
    folder, prompt = bundles.tiny_bundle(tiny_checkpoint), f"The end.{END_OF_TEXT}Once"
    plain, special = load(folder), load(folder, allow_special=True)
    end = plain.tokenizer.end_of_text
    assert plain.encode(prompt).count(end) == 1
    assert plain.tokenizer.decode(plain.encode(prompt)) == prompt
    assert special.encode(prompt) == [end, *plain.tokenize("The end."), end, *plain.tokenize("Once")]
    assert len(special.generate(END_OF_TEXT, max_tokens=3, seed=0).ids) == 3


def test_text_becomes_ids_and_ids_text(generator: Generator) -> None:
    text = "Zoë saw 100% of #1"
    ids = generator.tokenize(text)
    assert generator.tokenizer.end_of_text not in ids
    assert generator.detokenize(ids) == text
    assert generator.detokenize([generator.tokenizer.end_of_text, *ids]) == text
    for wrong in (-1, generator.tokenizer.vocab_size, 10**30):
        with pytest.raises(SlmxError, match=f"^no token has the id {wrong}; ids go from 0 to 399$"):
            generator.detokenize([1, wrong])


def test_same_seed_same_story_whichever_was_written_before(generator: Generator) -> None:
    first = generator.generate("Once", max_tokens=20, seed=5)
    other = generator.generate("Twice upon", max_tokens=7, seed=6)
    again = generator.generate("Once", max_tokens=20, seed=5)
    assert (again.full_text, again.ids) == (first.full_text, first.ids)
    assert other.ids != first.ids[: len(other.ids)]
    assert first.stats.seed == 5


def test_a_story_without_a_seed_can_be_written_again_by_the_seed_it_reports(generator: Generator) -> None:
    stories = [generator.generate("Once", max_tokens=20) for _ in range(2)]
    assert stories[0].ids != stories[1].ids
    for story in stories:
        assert generator.generate("Once", max_tokens=20, seed=story.stats.seed).ids == story.ids


def test_sampling_settings_reach_the_sampler(generator: Generator) -> None:
    greedy = generator.generate("Once", max_tokens=12, temperature=0.0)
    assert generator.generate("Once", max_tokens=12, top_k=1, top_p=1.0, temperature=2.0).ids == greedy.ids
    assert generator.generate("Once", max_tokens=12, top_k=0, top_p=1e-6).ids == greedy.ids
    assert generator.generate("Once", max_tokens=12, top_k=0, top_p=1.0, min_p=1.0).ids == greedy.ids
    penalized = generator.generate("Once", max_tokens=12, temperature=0.0, repetition_penalty=1e6).ids
    assert len(set(penalized)) == len(penalized)
    assert not set(penalized) & set(generator.tokenizer.encode("Once"))
    for rule in ({"presence_penalty": 100.0}, {"frequency_penalty": 100.0}):
        ids = generator.generate("Once", max_tokens=12, temperature=0.0, **rule).ids  # type: ignore[call-overload]
        assert len(set(ids)) == len(ids)
    assert len(generator.generate("Once", min_tokens=40, max_tokens=40, seed=1).ids) == 40
    first = greedy.ids[0]
    assert generator.generate("Once", temperature=0.0, max_tokens=1, logit_bias={first: -100}).ids != [first]
    assert generator.generate("Once", temperature=0.0, max_tokens=1, no_repeat_ngram=1).ids[
        0
    ] not in generator.tokenize("Once")


def test_one_method_takes_every_setting_and_returns_what_was_asked_for(generator: Generator) -> None:
    config, sampling = GenerationConfig(9, ("dog",), logprobs=True), SamplingParams(0.9, seed=3)
    story = generator.generate("Once", max_tokens=9, stop="dog", logprobs=True, temperature=0.9, seed=3)
    stream = generator.generate("Once", stream=True, max_tokens=9, stop="dog", logprobs=True, temperature=0.9, seed=3)
    several = generator.generate("Once", n=2, max_tokens=9, stop="dog", logprobs=True, temperature=0.9, seed=3)
    assert isinstance(story, Completion)
    assert isinstance(stream, Stream)
    assert "".join(stream) == story.completion_text
    assert len(story.logprobs) == len(story.ids) > 0
    expected = generator.batch(["Once"] * 2, config, sampling)
    assert [one.ids for one in several] == [one.ids for one in expected]
    assert several[0].ids == story.ids
    np.testing.assert_allclose(several[0].logprobs, story.logprobs, atol=1e-5)
    assert len(generator.generate("Once", on_full="slide", min_tokens=80, max_tokens=80).ids) == 80
    for wrong in ({"n": 0}, {"n": 10**20}, {"n": 2, "stream": True}):
        with pytest.raises(SlmxError, match=r"^n is the number of stories, 1 to 100,000, and they cannot be streamed$"):
            generator.generate("Once", **wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="temprature"):
        generator.generate("Once", temprature=1.0)  # type: ignore[call-overload]


def test_figures_of_a_story(generator: Generator) -> None:
    stats = generator.generate("Once", max_tokens=9, temperature=0.0).stats
    assert stats.tokens == 9
    assert stats.time_to_first_token > 0
    assert stats.decode_seconds > 0
    assert stats.tokens_per_second == pytest.approx(8 / stats.decode_seconds)


def test_the_targets_variant_is_the_default_and_an_unknown_one_is_refused(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    assert Generator(bundle).variant == "int8"
    assert Generator(bundle, "fp32").variant == "fp32"
    makes = "slmx export --checkpoint RUN --int4 --out NEW makes one"
    with pytest.raises(SlmxError, match=f"no variant int4 in it, which holds int8, fp32; {makes}$"):
        Generator(bundle, "int4")
    with pytest.raises(SlmxError, match=r"no variant 'int9' \(did you mean int8\?\); it holds int8, fp32$"):
        Generator(bundle, "int9")


def test_threads_reach_the_session_and_slots_are_checked(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    generator = Generator(bundle, threads=2)
    assert generator.threads == generator.take_session([0]).threads == 2
    with pytest.raises(SlmxError, match=r"^slots must be at least 1, not 0$"):
        Generator(bundle, slots=0)


def test_a_full_context_slides_and_goes_on(generator: Generator, session: Session) -> None:
    size = generator.bundle.config.block_size
    rules = LogitsRules(min_tokens=10 * size)
    stopped = generator.stream("One day", GenerationConfig(on_full="stop"), SamplingParams(0.0, rules=rules))
    first = "".join(stopped)
    assert stopped.stats.stop == "context full"
    stream = generator.stream("One day", GenerationConfig(3 * size, on_full="slide"), SamplingParams(0.0, rules=rules))
    text = "".join(stream)
    assert text.startswith(first)
    assert (len(stream.ids), stream.stats.stop) == (3 * size, "max tokens")
    prompt = generator.encode("One day")
    written = [*prompt, *stream.ids]
    # When the context is full, the next id is the most likely one after the prompt's beginning and the last half.
    window = slide(prompt, stream.ids[: size + 1 - len(prompt)], size)
    assert window == [*prompt[: size // 4], *written[size + 1 - size // 2 : size + 1]]
    assert written[size + 1] == int(session.read(window).argmax())


def test_log_probabilities_are_the_models_own(generator: Generator, session: Session) -> None:
    stream = generator.stream("Once", GenerationConfig(6, logprobs=True), SamplingParams(2.0, 5, 0.5, seed=1))
    list(stream)
    ids = [*generator.encode("Once"), *stream.ids]
    logits = torch.from_numpy(session.score(ids[:-1]))[-len(stream.ids) :]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(stream.ids)[:, None])[:, 0]
    np.testing.assert_allclose(stream.logprobs, expected.numpy(), atol=1e-4)


def test_logits_that_are_no_numbers_name_the_variant(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    monkeypatch.setattr("runtimes.engine.sampler.isfinite", lambda value: False)
    said = "^fp32: its logits are no numbers; .* or take --variant int8$"
    with pytest.raises(SlmxError, match=said):
        generator.generate("Once")
    with pytest.raises(SlmxError, match=said):
        generator.batch(["Once", "Lily"])


def test_a_closed_generator_is_one_line(tiny_checkpoint: Path) -> None:
    with load(bundles.tiny_bundle(tiny_checkpoint)) as generator:
        stream = generator.stream("Once", GenerationConfig(9))
        next(stream)
        fresh = generator.stream("Once")
        assert generator.generate("Once", max_tokens=2).ids
    generator.close()
    for use in (
        lambda: next(stream),
        lambda: next(fresh),
        lambda: generator.generate("Once"),
        lambda: generator.batch(["Once"]),
        lambda: generator.stream("Once"),
    ):
        with pytest.raises(SlmxError, match=r"^this generator is closed: load the bundle again$"):
            use()
    assert len(stream.ids) == 1


def test_the_python_interface_takes_no_bundle_from_the_working_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "bundles" / "nano")
    monkeypatch.chdir(tmp_path)
    assert load().bundle.config.vocab_size == 8000
    assert load("bundles/nano").bundle.config.vocab_size == 400
