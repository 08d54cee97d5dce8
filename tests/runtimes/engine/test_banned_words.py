"""Banned words are never written, and nothing else is forbidden."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.engine.banned_words import START, BannedWords, BannedWordsRule
from runtimes.engine.generator import Generator
from runtimes.engine.sampler import Sampler
from runtimes.engine.story import Story
from runtimes.generate.interactive import InteractiveStory
from runtimes.types import Completion, GenerationConfig, LogitsRules, SamplingParams
from slm.console.errors import UsageError
from tests import bundles

# Few letters, so that texts often hold the words: Latin, accents in both ways, Cyrillic, a digit; and what is between.
LETTERS = ("c", "a", "t", "C", "T", "é", "É", "e", "\u0301", "\u0323", "к", "К", "1")
OTHERS = (" ", ".", "'", "’", "-", "_", "\u00ad", "\n", "\ufe0f", "❤")
ALPHABET = (*LETTERS, *OTHERS)
BYTES = sorted({byte for char in ALPHABET for byte in char.encode()})
TEXTS = st.lists(st.sampled_from(ALPHABET), max_size=8).map("".join)


def made(ranks: Mapping[bytes, int], words: Sequence[str]) -> BannedWords:
    """Banned words for a vocabulary whose end of text has the id after the others."""
    return BannedWords([*sorted(ranks, key=ranks.__getitem__), b""], words)


@st.composite
def banned_words(draw: st.DrawFn) -> list[str]:
    letters = st.lists(st.sampled_from((*LETTERS, "'")), min_size=1, max_size=4).map("".join)
    words = draw(st.lists(letters, min_size=1, max_size=4))
    try:
        LogitsRules(ban_words=words)
    except UsageError:
        assume(False)
    return words


@st.composite
def vocabularies(draw: st.DrawFn) -> dict[bytes, int]:
    """Every byte of the alphabet, and parts of texts that may be cut inside a character."""
    parts = [draw(TEXTS).encode() for _ in range(draw(st.integers(0, 25)))]
    cut = [part[draw(st.integers(0, 1)) : len(part) - draw(st.integers(0, 1))] for part in parts]
    tokens = dict.fromkeys([*(bytes([byte]) for byte in BYTES), *filter(None, cut)])
    return {token: number for number, token in enumerate(tokens)}


def seen(text: str) -> str:
    """The text as a reader sees it."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")


def whole_words(text: str) -> list[tuple[int, str]]:
    """The end of each word in a visible text and the word, read character by character as the document tells."""
    found = []
    begin = end = 0  # of the word so far
    for place, char in enumerate([*text, " "]):
        inside = begin < end
        if char in "'’":
            if inside and end == place:
                continue  # belongs to the word if a letter follows
        elif unicodedata.category(char)[0] in "LN":
            joins = end == place or (end == place - 1 and text[end] in "'’")
            if inside and not joins:
                found.append((end, text[begin:end]))
                inside = False
            begin, end = (begin if inside else place), place + 1
            continue
        elif unicodedata.category(char)[0] == "M" and inside and end == place:
            end = place + 1
            continue
        if inside:
            found.append((end, text[begin:end]))
            begin = end = 0
    return found


def spelling(word: str) -> str:
    composed = unicodedata.normalize("NFC", word.replace("’", "'"))
    return unicodedata.normalize("NFC", composed.casefold())


def holds(words: Sequence[str], prompt: str, content: bytes) -> bool:
    """Whether bytes after a prompt complete one of the words. The slow reference."""
    banned = {spelling(seen(word)) for word in words}
    text = seen(prompt) + seen(content.decode("utf-8", "replace"))
    return any(end > len(seen(prompt)) and spelling(word) in banned for end, word in whole_words(text))


def forbidden(rule: BannedWordsRule) -> set[int]:
    return {i for ids in rule.forbidden() for i in ids.tolist()}


@settings(max_examples=60, deadline=None)
@given(ranks=vocabularies(), words=banned_words(), prompt=TEXTS, seed=st.integers(0, 2**32 - 1))
@example(ranks={b"c": 0, b"a": 1, b"t": 2, b"at": 3, b" cat.": 4}, words=["CAT"], prompt="c", seed=0)
@example(ranks={b"\xc3": 0, b"\xa9": 1, b"\xc3\xa9": 2, b"caf\xc3": 3}, words=["café", "caf"], prompt="", seed=1)
@example(ranks={"a\u0301".encode(): 0, "\u0323".encode(): 1}, words=["a\u0323\u0301"], prompt="", seed=2)
@example(ranks={b"'": 0, b"t": 1, b"'t": 2, "’".encode(): 3}, words=["c't"], prompt="c", seed=3)
def test_exactly_the_ids_that_complete_a_banned_word_are_forbidden(
    ranks: dict[bytes, int], words: list[str], prompt: str, seed: int
) -> None:
    rule, random = made(ranks, words).begin(prompt), np.random.default_rng(seed)
    tokens, written = list(ranks), b""
    for _ in range(12):
        expected = {i for i, token in enumerate(tokens) if holds(words, prompt, written + token)}
        assert forbidden(rule) == expected
        allowed = sorted(set(range(len(tokens))) - expected)
        if not allowed:
            break
        # Longer tokens are chosen more often, because they hold more of a word.
        weights = np.array([len(tokens[i]) ** 2 for i in allowed], float)
        chosen = int(random.choice(allowed, p=weights / weights.sum()))
        rule.chose(chosen)
        written += tokens[chosen]


def regex_words(text: str) -> set[str]:
    """The words of a text by Python's own letters, without a step over tokens."""
    return {word.casefold() for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", unicodedata.normalize("NFC", text))}


@settings(max_examples=80, deadline=None)
@given(
    words=st.lists(st.sampled_from(["a", "cat", "Act", "Tact", "été", "C'a", "атака", "КОТ"]), min_size=1, max_size=4),
    prompt=st.sampled_from(["", "a ", "c", "ca", "The ca", "cat", "ét", "к", "c'"]),
    merges=st.lists(st.lists(st.sampled_from("catéТк' ."), min_size=2, max_size=4).map("".join), max_size=30),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_text_ever_holds_a_banned_word(
    words: list[str], prompt: str, merges: list[str], temperature: float, seed: int
) -> None:
    pieces = dict.fromkeys([*(bytes([b]) for b in "catCATéÉатокАТОК' .".encode()), *(m.encode() for m in merges)])
    ranks = {piece: number for number, piece in enumerate(pieces)}
    tokens, end = list(ranks), len(ranks)
    sampling = SamplingParams(temperature, 0, 1.0, seed=seed, rules=LogitsRules(ban_words=words))
    rule = made(ranks, words).begin(prompt)
    story = Story(prompt, [end], GenerationConfig(), sampling, end, [*tokens, b""].__getitem__, 80, banned=rule)
    random = np.random.default_rng(seed)
    while story.finish_reason is None:
        story.accept(random.normal(0, 2, end + 1).astype(np.float32))
        written = b"".join(tokens[i] for i in story.ids).decode("utf-8", "replace")
        # What the prompt held before, and the words that the story changed by adding letters to them.
        old = regex_words(prompt) if not written[:1].isalnum() else regex_words(prompt.rpartition(" ")[0])
        assert not {word.casefold() for word in words} & (regex_words(prompt + written) - old)


@cache
def nano() -> Generator:
    return load("nano")


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("", b"The "),
        ("", b"The c"),
        ("T", b"he ca"),
        ("The ca", b""),
        ("They", b""),
        ("", b"I don"),
        ("I don", b"'"),
        ("", b"caf\xc3"),
        ("caf", b"\xe2"),
        ("", b"don\xe2\x80"),
    ],
)
def test_the_shipped_vocabulary_agrees_with_decoding_every_candidate(prompt: str, written: bytes) -> None:
    ranks = {token: i for i, token in enumerate(nano().tokenizer.tokens)}
    words = ["cat", "Dog", "don't", "café", "they", "they're", "bird"]
    rule = made(ranks, words).begin(prompt)
    for byte in written:
        rule.chose(ranks[bytes([byte])])
    expected = {i for token, i in ranks.items() if holds(words, prompt, written + token)}
    assert ranks[b" cat"] in expected
    assert forbidden(rule) == expected


def test_a_longer_word_is_allowed_only_where_no_token_ends_at_the_banned_one() -> None:
    ranks = {b" cat": 0, b"egory": 1, b" category": 2, b" ca": 3, b"tegory": 4, b"t": 5, b" cat.": 6, b"CAT": 7}
    rule = made(ranks, ["cat"]).begin("A")
    assert forbidden(rule) == {0, 6}
    rule.chose(3)
    assert forbidden(rule) == {0, 5, 6}
    assert forbidden(made(ranks, ["cat"]).begin("")) == {0, 6, 7}


def test_a_word_is_told_by_the_characters_that_its_bytes_become() -> None:
    ranks = {b"caf": 0, b"\xc3": 1, b"\xa9": 2, b"\xa9cat": 3, b"cat\xc3": 4, b"\xa9t": 5}
    rule = made(ranks, ["café", "cat"]).begin("")
    assert forbidden(rule) == {3, 4}  # after and before U+FFFD
    for token in (0, 1):
        rule.chose(token)
    assert forbidden(rule) == {2, 4}  # cafécat and cafét are other words


def test_what_is_remembered_of_a_word_has_a_limit() -> None:
    banned = made({b"a": 0}, ["cat"])
    assert banned.after(START, b"ca").word == "ca"
    for endless in ("ca" + "\u0301" * 9, "cat" * 9, "a" * 9, "ca'" * 9):
        assert banned.after(START, endless.encode()).word is None


def test_words_of_the_prompt_are_left_alone_and_what_it_began_is_not() -> None:
    ranks = {b" ": 0, b"t": 1, b"s": 2, b".": 3}
    assert forbidden(made(ranks, ["cat"]).begin("a cat")) == set()
    assert forbidden(made(ranks, ["cat", "cats"]).begin("a cat")) == {2}
    assert forbidden(made(ranks, ["cat"]).begin("a ca")) == {1}
    assert forbidden(made(ranks, ["cat"]).begin("a ca ")) == set()
    assert forbidden(made(ranks, ["cat"]).begin("cat " * 300_000 + "ca")) == {1}


GREEDY = SamplingParams(0.0)


def test_a_story_of_the_shipped_model_goes_round_its_words() -> None:
    generator = nano()
    before = generator.generate("Once upon a time", max_tokens=80, temperature=0.0)
    words = ["GIRL", "lily", "named"]
    assert {word.casefold() for word in words} <= regex_words(before.completion_text)
    after = generator.generate("Once upon a time", max_tokens=80, temperature=0.0, ban_words=words)
    assert not {word.casefold() for word in words} & regex_words(after.completion_text)
    assert len(after.ids) == 80
    # The story is the same up to the first banned word.
    shared = next(n for n, (one, other) in enumerate(zip(before.ids, after.ids, strict=True)) if one != other)
    assert before.completion_text[len(generator.detokenize(before.ids[:shared])) :].startswith(" girl")
    assert generator.generate("Once upon a time", max_tokens=80, temperature=0.0, ban_words=["zebra"]).ids == before.ids


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


BAN = ("Lily", "dog", "the", "was", "soft", "big")


def free_of_banned(story: Completion) -> bool:
    return not {word.casefold() for word in BAN} & regex_words(story.completion_text)


def test_batches_streams_and_reused_prompts_write_the_same_story(generator: Generator) -> None:
    plain = generator.batch(["Once", "One day"], GenerationConfig(40), GREEDY)
    assert not any(map(free_of_banned, plain))
    sampling = SamplingParams(1.0, seed=4, rules=LogitsRules(ban_words=BAN))
    together = generator.batch(["Once"] * 3 + ["One day"], GenerationConfig(40), sampling)
    for number, story in enumerate(together):
        assert free_of_banned(story)
        settings_ = SamplingParams(1.0, seed=4 + number, rules=LogitsRules(ban_words=BAN))
        for reuse in (True, False):
            stream = generator.stream(story.prompt, GenerationConfig(40), settings_, reuse=reuse)
            assert "".join(stream) == story.completion_text
            assert stream.ids == story.ids


def test_a_context_that_slides_and_stop_strings_keep_the_rule(generator: Generator) -> None:
    story = generator.generate("Once", max_tokens=200, on_full="slide", min_tokens=200, seed=2, ban_words=BAN)
    assert len(story.ids) == 200
    assert free_of_banned(story)
    stopped = generator.generate(
        "Once", max_tokens=200, on_full="slide", min_tokens=200, seed=2, ban_words=BAN, stop="."
    )
    assert stopped.stats.stop == "stop string"
    assert stopped.completion_text == story.completion_text.partition(".")[0]


def test_turns_keep_the_rule_and_the_readers_own_words(generator: Generator) -> None:
    sampling = SamplingParams(1.0, seed=1, rules=LogitsRules(ban_words=BAN))
    story = InteractiveStory(generator, GenerationConfig(9), sampling)
    story.go_on("Lily had the dog", lambda piece: None)
    for added in (" The dog", "", " A do", ""):
        story.go_on(added, lambda piece: None)
        story.retry(lambda piece: None)
    assert story.turns[0][0] == "Lily had the dog"
    for number, (_, written) in enumerate(story.turns):
        before = "".join(added + text for added, text in story.turns[:number]) + story.turns[number][0]
        assert regex_words(before + written) & {*map(str.casefold, BAN)} <= regex_words(before)


def test_a_bias_does_not_bring_a_banned_word_back(generator: Generator) -> None:
    dog = generator.tokenizer.tokens.index(b" dog")
    biased = {"temperature": 0.0, "max_tokens": 5, "logit_bias": {dog: 1e30}}
    assert generator.generate("The", **biased).ids == [dog] * 5  # type: ignore[call-overload]
    assert dog not in generator.generate("The", **biased, ban_words="dog").ids  # type: ignore[call-overload]


def test_rules_that_leave_nothing_end_the_story() -> None:
    ranks = {b"cat": 0, b" cat": 1}
    rules = LogitsRules(min_tokens=3, ban_words=["cat"])
    banned = made(ranks, ["cat"])
    story = Story(
        "A ",
        [2],
        GenerationConfig(),
        SamplingParams(rules=rules),
        2,
        [b"cat", b" cat"].__getitem__,
        9,
        banned=banned.begin("A "),
    )
    story.accept(np.zeros(3, np.float32))
    assert (story.finish_reason, story.ids) == ("exhausted", [])


def test_a_sampler_that_does_not_know_the_bytes_refuses_banned_words() -> None:
    with pytest.raises(ValueError, match="BannedWordsRule"):
        Sampler(SamplingParams(rules=LogitsRules(ban_words=["cat"])))
