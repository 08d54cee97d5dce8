"""Several streams of one generator have the same text as alone: in turn, in threads, and with a batch."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.generator import Generator
from runtimes.engine.stream import Stream
from runtimes.types import GenerationConfig, SamplingParams
from slm.console.errors import SlmxError
from tests import bundles

PROMPTS = ["Once upon a time", "Lily", "", "One day, Tom went to the park"]
SETTINGS = GenerationConfig(25), SamplingParams(1.0, seed=3)


@pytest.fixture(scope="module", params=["fp32", "int8", "portable"])
def generator(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle_of_all(tiny_checkpoint), request.param)


@pytest.fixture(scope="module")
def alone(generator: Generator) -> list[str]:
    """Each story, written alone by a separate generator."""
    return ["".join(load(generator.bundle.path, generator.variant).stream(prompt, *SETTINGS)) for prompt in PROMPTS]


def test_streams_that_are_read_in_turn_are_those_that_each_is_alone(generator: Generator, alone: list[str]) -> None:
    streams = [generator.stream(prompt, *SETTINGS) for prompt in PROMPTS]
    found = list(zip_longest(*streams, fillvalue=""))
    assert ["".join(pieces) for pieces in zip(*found, strict=True)] == alone


def test_whatever_is_written_while_a_stream_is_half_read_changes_nothing(
    generator: Generator, alone: list[str]
) -> None:
    stream = generator.stream(PROMPTS[0], *SETTINGS)
    text = next(stream) + next(stream)
    assert generator.generate(PROMPTS[1], max_tokens=25, temperature=1.0, seed=3).completion_text == alone[1]
    if generator.variant != "portable":
        stories = generator.batch([PROMPTS[2], PROMPTS[0]], *SETTINGS)
        assert stories[0].completion_text == alone[2] or generator.variant == "int8"
    assert text + "".join(stream) == alone[0]


def test_threads_write_what_each_writes_alone(generator: Generator, alone: list[str]) -> None:
    def write(number: int) -> str:
        return "".join(generator.stream(PROMPTS[number % 4], *SETTINGS))

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(write, range(24))) == alone * 6


def test_batches_in_threads_are_those_of_one(tiny_checkpoint: Path) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    expected = [story.full_text for story in generator.batch(PROMPTS, *SETTINGS)]
    with ThreadPoolExecutor(3) as threads:
        found = threads.map(lambda _: [story.full_text for story in generator.batch(PROMPTS, *SETTINGS)], range(6))
        assert list(found) == [expected] * 6


def test_a_stream_is_read_once_and_may_be_read_on(generator: Generator, alone: list[str]) -> None:
    stream = generator.stream(PROMPTS[0], GenerationConfig(5), SETTINGS[1])
    pieces = list(stream)
    assert list(stream) == []
    assert len(stream.ids) == stream.stats.tokens == 5
    assert alone[0].startswith("".join(pieces))
    half = generator.stream(PROMPTS[0], *SETTINGS)
    text = "".join(islice(half, 3))
    assert text + "".join(half) == alone[0]


def test_one_stream_in_two_threads_is_one_line(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    stream = generator.stream("Once", GenerationConfig(5), SamplingParams(temperature=0))
    reading, go_on = threading.Event(), threading.Event()
    take = Generator.take_session

    def waits(self: Generator, ids: list[int]) -> object:
        reading.set()
        assert go_on.wait(30)
        return take(self, ids)

    monkeypatch.setattr(Generator, "take_session", waits)
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(lambda: "".join(stream))
        assert reading.wait(30)
        message = r"^another thread is reading this stream: give each thread its own$"
        with pytest.raises(SlmxError, match=message):
            next(stream)
        with pytest.raises(SlmxError, match=message):
            stream.close()
        go_on.set()
        assert other.result()
    assert len(stream.ids) == 5


@pytest.fixture
def two_slots(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32", slots=2)


def begun(generator: Generator) -> Stream:
    stream = generator.stream("Once", GenerationConfig(20))
    next(stream)
    return stream


def test_a_limit_on_slots_says_so_when_it_is_reached(two_slots: Generator) -> None:
    one, two = begun(two_slots), begun(two_slots)
    third = two_slots.stream("Lily", GenerationConfig(3))
    with pytest.raises(SlmxError, match=r"^all 2 slots are taken by unfinished streams: finish or close one, "):
        next(third)
    list(one)
    assert len(two_slots.generate("Lily", max_tokens=3, min_tokens=3).ids) == 3
    assert len(two.ids) < 20


@pytest.mark.parametrize("way", ["finished", "closed", "dropped", "collected", "failed"])
def test_a_stream_gives_its_slot_back(two_slots: Generator, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = begun(two_slots)
    for _ in range(5):
        stream = begun(two_slots)
        if way == "finished":
            list(stream)
        elif way == "closed":
            stream.close()
        elif way == "collected":
            stream.itself = stream  # type: ignore[attr-defined]
        elif way == "failed":
            with monkeypatch.context() as patched:
                patched.setattr("runtimes.engine.sampler.isfinite", lambda value: False)
                with pytest.raises(SlmxError, match="no numbers"):
                    list(stream)
        del stream
        if way == "collected":
            gc.collect()
    assert kept.stats.finish_reason == "interrupted"


def test_few_caches_are_kept_when_many_streams_have_ended(tiny_checkpoint: Path) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    streams = [begun(generator) for _ in range(12)]
    for stream in streams:
        stream.close()
    assert len(generator._idle) == 4


def test_a_closed_stream_keeps_what_it_has(tiny_checkpoint: Path) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    stream = begun(generator)
    stream.close()
    assert list(stream) == []
    assert stream.close() == ""
    assert (stream.stats.finish_reason, stream.stats.stop) == ("interrupted", "interrupted")
    assert stream.completion.ids == stream.ids != []


def test_a_stream_can_be_looked_at_before_it_begins(tiny_checkpoint: Path) -> None:
    stream = load(bundles.tiny_bundle(tiny_checkpoint)).stream("Once", GenerationConfig(3), SamplingParams(seed=4))
    assert (stream.stats.tokens, stream.stats.seed, stream.stats.finish_reason) == (0, 4, "interrupted")
    assert (stream.logprobs, stream.completion.full_text) == ([], "Once")


def test_a_stream_left_early_says_so_and_the_next_story_is_whole(generator: Generator, alone: list[str]) -> None:
    stream = begun(generator)
    assert 0 < len(stream.ids) < 20
    assert stream.stats.finish_reason == "interrupted"
    assert "".join(generator.stream(PROMPTS[0], *SETTINGS)) == alone[0]
