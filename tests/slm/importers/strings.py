"""Strings on which tokenizers differ, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

WORDS = (
    *("once", "upon", "a", "time", "there", "was", "the", "little", "girl", "who", "didn't", "WE'LL", "they'RE", "I'm"),
    *("cat's", "ſ", "'ſ", "run'S", "it'll", "x'D"),
)
CODE = (
    "def f(x):\n    return x ** 2  # squared\n",
    "for (int i = 0; i < 10; i++) {\n\t\tsum += a[i];\n\t}\n",
    '{"key": [1, 2.5e-3, null], "n\\u00e9": "\\t"}',
    "<p class='a'>&nbsp;</p>\r\n",
    "x=y!=z&&(a||b)?c:d;//e",
)
SIGNS = (".", ",", "!", "?!", "...", "—", "'", '"', "“", "’", "(", "$", "%", "@", "#", "~", "\\", "/", "|", "_", "__")
EMOJI = ("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🙂", "1️⃣", "❤️")
MARKS = ("e\u0301", "n\u0303", "\u1112\u1161\u11ab", "a\u0323\u0307", "\u0344", "\u212b", "ﬁ", "\u0958", "\u1e9b\u0323")
SCRIPTS = ("Привет", "你好世界", "こんにちは", "안녕", "مرحبا", "नमस्ते", "ᚠᛇᚻ", "𐎠𐎡", "𝔘𝔫𝔦", "ꦲꦏ", "ทดสอบ", "ሰላም", "𞤀𞤣")
DIGITS = (
    "0",
    "7",
    "12",
    "345",
    "6789",
    "1234567",
    "½",
    "²",
    "Ⅷ",
    "٣٤",
    "१२",
    "𝟘𝟙",
    "㊿",
    "〇",
    "৴",
    "3.14",
    "1,000",
    "2nd",
)
SPACES = (
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    " \n",
    "\n ",
    "\t",
    "\r\n",
    "\r",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x85",
    "\x0b",
    "\x1c",
)
CONTROLS = (
    "\x00",
    "\x01",
    "\x1b[0m",
    "\x7f",
    "\x9f",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\u2060",
    "\u202e",
    "\ufffd",
    "\ufffe",
    "\u180e",
)
TRAPS = ("\u2581", "\u2581\u2581", "\u2581the", "<0x41>", "<0x0A>", "<s>", "</s>", "<unk>", "Ġ", "Ċ", "[INST]")


def random_character(pick: random.Random) -> str:
    """Any character, those of the first planes more often."""
    code = pick.randrange(pick.choice((0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000)))
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ud7ff"


def spaces(pick: random.Random) -> str:
    """White space of up to 30 characters."""
    return pick.choice(SPACES) * pick.choice((1, 1, 1, 2, 3, 7, 16, 30))


def long_word(pick: random.Random) -> str:
    """A word without a space of up to 300 characters."""
    return "".join(
        pick.choices(pick.choice(("a", "ab", "the", "abcdefg", "aé", "=-", "01")), k=pick.randrange(40, 300))
    )


MAKERS: tuple[Callable[[random.Random], str], ...] = (
    *[
        lambda pick, table=table: pick.choice(table)
        for table in (SIGNS, EMOJI, MARKS, SCRIPTS, DIGITS, CONTROLS, TRAPS)
    ],
    lambda pick: pick.choice(CODE)[pick.randrange(8) : pick.randrange(9, 60)],
    random_character,
    spaces,
)


def made_string(pick: random.Random) -> str:
    """A string of words, spaces and anything else, of any length from nothing to some hundred characters."""
    if pick.random() < 0.01:
        return long_word(pick)
    parts = []
    for _ in range(pick.randrange(12)):
        if pick.random() < 0.6:
            parts.append(pick.choice(WORDS))
        else:
            parts.append(pick.choice(MAKERS)(pick))
        parts.append(pick.choice(("", " ", " ", " ", "  ", spaces(pick))))
    return "".join(parts)


def made_strings(count: int, seed: int) -> list[str]:
    """`count` strings. They are the same in every run."""
    pick = random.Random(seed)
    return [made_string(pick) for _ in range(count)]
