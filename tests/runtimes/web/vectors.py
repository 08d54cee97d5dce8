"""Vectors that the tests in Python and in TypeScript both read. `python -m tests.runtimes.web.vectors` writes them.

Long inputs are not stored. Both sides make them with the same formula: logits and strings from a generator of numbers.
`runtimes/web/app/test/engine/formulas.ts` is the other side. Run the command when the shipped bundles change.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES, shipped_names
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import FloatArray
from runtimes.engine.sampler import Sampler
from runtimes.engine.story import Story
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from slm.tokenizers.byte_level import SINGLE_BYTES
from slm.tokenizers.sentencepiece import SPACE
from slm.tokenizers.settings import PREFIXES, SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import to_unicode, tokenizer_json
from tests.slm.importers import strings

FOLDER = Path(__file__).parents[3] / "runtimes" / "web" / "app" / "test" / "vectors"
COMMAND = "python -m tests.runtimes.web.vectors"
STRINGS, BLOCK, SAMPLE = 10_000, 500, 60
PROMPT = "Once upon a time"
STORY_TOKENS = 200
STORIES = ("nano", "micro", "small")
SCHEME_STRINGS = 2000
# A tokenizer of the pairs of these characters shows where a text was split.
SPLIT_CHARACTERS = " \n\t'.a1st\x85\ufeff"
PIECES = (
    " the",
    " there",
    " once",
    " upon",
    " a",
    " was",
    "ab",
    " little",
    "girl",
    "  ",
    " didn't",
    "12",
    "é",
    "你",
    "🙂",
)
# Characters that have been in Unicode for long, so that no engine takes them for unassigned.
RANGES = (
    *((0x0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x391, 0x3A1), (0x400, 0x45F), (0x531, 0x556), (0x5D0, 0x5EA)),
    *((0x621, 0x64A), (0x660, 0x669), (0x905, 0x939), (0x966, 0x96F), (0xE01, 0xE3A), (0x10A0, 0x10C5)),
    *((0x1100, 0x1159), (0x13A0, 0x13F4), (0x2000, 0x206F), (0x2070, 0x2071), (0x20A0, 0x20AC), (0x2150, 0x2188)),
    *((0x2190, 0x21FF), (0x2500, 0x25FF), (0x3000, 0x303F), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5)),
    *((0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFA2D), (0xFE00, 0xFE0F), (0xFF01, 0xFF5E), (0xFFF0, 0xFFFF)),
    *((0x1D400, 0x1D454), (0x1F300, 0x1F64F), (0x20000, 0x2A6D6), (0xE0000, 0xE007F), (0x10FF00, 0x10FFFF)),
)
PARTS = (
    *(*strings.WORDS, *strings.CODE, *strings.SIGNS, *strings.EMOJI, *strings.MARKS, *strings.SCRIPTS),
    *(*strings.DIGITS, *strings.SPACES, *strings.CONTROLS, *strings.TRAPS, "<|endoftext|>", "<|endoftext|", "|>"),
)


class Numbers:
    """The generator of both sides: 24 bits of a linear congruential generator of 32 bits."""

    def __init__(self, state: int) -> None:
        self._state = state

    def next(self) -> int:
        """Returns the next number, 0 to 2^24 - 1."""
        self._state = (self._state * 1664525 + 1013904223) % 2**32
        return self._state >> 8


def made_logits(kind: str, size: int, numbers: Numbers) -> FloatArray:
    """Returns logits of a kind. Each value is exact in float32, or rounded once."""
    if kind == "nan":
        return np.full(size, np.nan, np.float32)
    values = np.array([numbers.next() for _ in range(size)], np.float64) / 2**16 - 128  # from -128 up to 128
    made = {
        "flat": values / 16,
        "peaked": values * abs(values) / 512,
        "ties": np.floor(values / 16),
        "negative": values / 16 - 20,
        "equal": values * 0,
    }[kind]
    return made.astype(np.float32)


def made_string(numbers: Numbers, parts: tuple[str, ...]) -> str:
    """Returns a string of a few parts, runs of a part, and characters of `RANGES`."""
    made = ""
    for _ in range(numbers.next() % 9):
        way = numbers.next() % 16
        if way < 4:
            low, high = RANGES[numbers.next() % len(RANGES)]
            made += chr(low + numbers.next() % (high - low + 1))
        else:
            made += parts[numbers.next() % len(parts)] * (1 + numbers.next() % 20 if way == 4 else 1)
        made += " " if way % 2 else ""
    return made


# Cases of sampling: kind of logits, vocabulary, number of ids, and the settings that are not "all off".
CASES: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
    *[(kind, 50, 30, {}) for kind in ("flat", "peaked", "ties", "negative", "equal")],
    *[(kind, 8000, 12, {}) for kind in ("flat", "peaked", "ties")],
    *[("peaked", 8000, 24, {"top_k": 40, "top_p": 0.95, "temperature": t}) for t in (0.9, 0.5, 2.0, 1e-3, 1e6)],
    *[(kind, 8000, 12, {"top_k": 40, "top_p": 0.95}) for kind in ("flat", "ties", "negative", "equal")],
    *[("peaked", 50, 30, {"top_k": k}) for k in (1, 2, 49, 50, 51, 10_000)],
    *[(kind, 50, 30, {"top_k": 7}) for kind in ("ties", "equal")],
    *[(kind, 8000, 12, {"top_k": 700, "top_p": 0.8, "min_p": 0.01}) for kind in ("flat", "peaked", "ties")],
    *[(kind, 8000, 12, {"top_p": p}) for kind in ("flat", "peaked", "ties") for p in (1e-9, 0.5, 0.9)],
    ("flat", 8000, 6, {"top_p": 0.999}),
    *[("peaked", 50, 20, {"top_p": p}) for p in (1e-12, 0.3, 0.999999)],
    *[(kind, 8000, 12, {"min_p": p}) for kind in ("flat", "peaked", "ties") for p in (1e-6, 0.05, 1.0)],
    *[(kind, 50, 20, {"min_p": 1.0, "top_k": 10}) for kind in ("peaked", "ties", "equal")],
    ("peaked", 8000, 12, {"min_p": 0.1, "top_p": 0.7, "temperature": 1.5}),
    *[(kind, 8000, 8, {"temperature": 0.0}) for kind in ("flat", "peaked", "ties")],
    ("equal", 50, 3, {"temperature": 0.0}),
    ("peaked", 50, 20, {"temperature": 1e-300}),
    ("peaked", 50, 20, {"temperature": 1e300}),
    *[(kind, 50, 40, {"repetition_penalty": 1.3, "top_k": 20}) for kind in ("flat", "peaked", "negative", "ties")],
    *[("peaked", 8000, 16, {"repetition_penalty": p, "top_k": 40, "top_p": 0.9}) for p in (1.1, 0.7, 1e30)],
    ("negative", 50, 40, {"repetition_penalty": 1.1, "temperature": 0.0}),
    ("nan", 50, 1, {}),
    ("nan", 8000, 1, {"top_k": 40, "top_p": 0.95}),
    ("nan", 8000, 1, {"top_p": 0.9}),
    ("nan", 8000, 1, {"min_p": 0.1}),
    ("nan", 50, 1, {"temperature": 0.0}),
)
SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**53 - 1)
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def drawn(kind: str, size: int, count: int, settings: dict[str, Any], prompt: list[int], seed: int) -> list[int] | None:
    """Returns the ids that Python's sampler draws one after another; None if it refuses the logits."""
    rest = {name: value for name, value in settings.items() if name != "repetition_penalty"}
    rules = LogitsRules(repetition_penalty=settings["repetition_penalty"])
    sampler = Sampler(SamplingParams(**rest, seed=seed, rules=rules), prompt)
    numbers = Numbers(seed % 2**32)
    try:
        return [sampler(made_logits(kind, size, numbers)) for _ in range(count)]
    except FloatingPointError:
        return None


def sampling() -> dict[str, Any]:
    """Returns the cases of sampling with the ids of Python's sampler."""
    cases = []
    for number, (kind, size, count, changed) in enumerate(CASES):
        settings, seed = OFF | changed, SEEDS[number % len(SEEDS)]
        prompt = [number % size, 3, 3, size - 1]
        ids = drawn(kind, size, count, settings, prompt, seed)
        case = {"kind": kind, "vocabulary": size, "count": count, "seed": seed, "prompt": prompt}
        cases.append({**case, "settings": settings, "ids": ids})
    return {"cases": cases, "random": [random_numbers(seed) for seed in SEEDS]}


def random_numbers(seed: int) -> dict[str, Any]:
    """Returns some of the numbers of Python's generator: the first, and one after its state has been made anew."""
    numbers = random.Random(seed)
    drawn = [numbers.random() for _ in range(1000)]
    return {"seed": seed, "first": drawn[:3], "last": drawn[-1]}


def digest(rows: list[list[int]]) -> str:
    """Returns a hash over rows of ids, which both sides can compute."""
    return hashlib.sha256("\n".join(",".join(map(str, row)) for row in rows).encode()).hexdigest()[:16]


def tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns hashes over the ids of many strings, a sample of them, and texts that are read id by id."""
    numbers = Numbers(1)
    rows = [tokenizer.encode(made_string(numbers, PARTS)) for _ in range(STRINGS)]
    return {
        "parts": PARTS,
        "ranges": RANGES,
        "block": BLOCK,
        "digests": [digest(rows[start : start + BLOCK]) for start in range(0, STRINGS, BLOCK)],
        "sample": rows[:SAMPLE],
        "begin": tokenizer.begin,
        "end": tokenizer.end_of_text,
        "texts": list(read_texts(tokenizer)),
        "schemes": list(schemes()),
    }


def schemes() -> Iterator[dict[str, Any]]:
    """Yields a small tokenizer of every scheme, with a hash over the ids of some strings, and texts."""
    plain = [scheme for scheme in SCHEMES if scheme != "sentencepiece"]
    made = [(pairs(TokenizerSettings(scheme)), Numbers(3)) for scheme in plain]
    made += [(pieces(TokenizerSettings("sentencepiece", "</s>", "<s>", prefix)), Numbers(3)) for prefix in PREFIXES]
    for (tokenizer, merges), numbers in made:
        rows = [tokenizer.encode(made_string(numbers, PARTS)) for _ in range(SCHEME_STRINGS)]
        yield {
            "settings": asdict(tokenizer.settings),
            "json": json.dumps(tokenizer_json(tokenizer, merges)),
            "digest": digest(rows),
            "sample": rows[:SAMPLE],
            "begin": tokenizer.begin,
            "end": tokenizer.end_of_text,
            "texts": list(read_texts(tokenizer, 20)),
        }


def pairs(settings: TokenizerSettings) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """Returns a tokenizer of the bytes and of pairs of them, and its merges."""
    wanted = sorted(set("".join(SPLIT_CHARACTERS).encode()))
    joined = [bytes([one, other]) for one in wanted for other in wanted]
    random.Random(0).shuffle(joined)
    merges = [(to_unicode(pair[:1]), to_unicode(pair[1:])) for pair in joined]
    return Tokenizer([*SINGLE_BYTES, *joined], settings), merges


def pieces(settings: TokenizerSettings) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """Returns a tokenizer of SentencePiece whose pieces are the beginnings of a few words, and its merges."""
    known = sorted({char for piece in PIECES for char in piece})
    known += sorted({piece[:size] for piece in PIECES for size in range(2, len(piece) + 1)}, key=lambda p: (len(p), p))
    cuts = [(piece[:cut], piece[cut:]) for piece in known for cut in range(1, len(piece))]
    merges = [(a.replace(" ", SPACE), b.replace(" ", SPACE)) for a, b in cuts if a in known and b in known]
    return Tokenizer([*SINGLE_BYTES, *(piece.encode() for piece in known)], settings), merges


def read_texts(tokenizer: Tokenizer, count: int = 80) -> Iterator[dict[str, Any]]:
    """Yields ids, half of them single bytes, with the pieces of text of a story that writes them."""
    numbers = Numbers(2)
    single = [i for i in range(tokenizer.end_of_text) if len(tokenizer.token_bytes(i)) == 1]
    for _ in range(count):
        ids = []
        for _ in range(1 + numbers.next() % 12):
            wide, place = numbers.next() % 2, numbers.next()
            ids.append(place % tokenizer.end_of_text if wide else single[place % len(single)])
        yield {"ids": ids, "pieces": pieces_of(tokenizer, ids)}


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Returns the piece of text after each id of a story, the last with the rest."""
    greedy, config = SamplingParams(temperature=0.0, seed=0), GenerationConfig(max_tokens=len(ids))
    begin, size = [tokenizer.begin], len(ids) + 1
    drops = tokenizer.drops_space
    story = Story("", begin, config, greedy, tokenizer.end_of_text, tokenizer.token_bytes, size, drops)
    pieces = []
    for token in ids:
        logits = np.zeros(tokenizer.vocab_size, np.float32)
        logits[token] = 1.0
        pieces.append(story.accept(logits))
    return pieces


def stories() -> dict[str, Any]:
    """Returns what the shipped bundles write greedily in their default variant."""
    return {name: greedy_story(shipped_names()[name]) for name in STORIES}


def greedy_story(bundle: Path, variant: str | None = None) -> dict[str, Any]:
    """Returns the ids that a variant of a bundle writes greedily, and why it ends."""
    with load(bundle, variant, threads=1) as generator:
        story = generator.generate(PROMPT, temperature=0.0, max_tokens=STORY_TOKENS)
        return {
            "manifest": generator.bundle.manifest_sha256,
            "variant": generator.variant,
            "prompt": PROMPT,
            "ids": story.ids,
            "finish": story.stats.stop,
        }


def files() -> dict[str, dict[str, Any]]:
    """Returns the content of every file of vectors that does not depend on the processor."""
    return {"sampling.json": sampling(), "tokens.json": tokens(Bundle.open(SHIPPED_BUNDLES / "nano").tokenizer())}


def text_of(content: dict[str, Any]) -> str:
    """Returns the text of a file."""
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in {**files(), "stories.json": stories()}.items():
        (FOLDER / name).write_text(text_of(content), "utf-8")
        print(FOLDER / name)
