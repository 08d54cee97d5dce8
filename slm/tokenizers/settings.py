"""How a tokenizer splits text, and which special tokens begin and end a text.

A folder of a model or of data states this in its listing, the JSON file that describes the folder. The listing of a
tokenizer with default settings does not mention it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from slm.console.plain_text import is_plain_text
from slm.storage.json_reader import Fields

END_OF_TEXT = "<|endoftext|>"
LONGEST_SPECIAL = 100
KEY = "tokenizer"
MAX_LISTING_BYTES = 2**27
# Where the `sentencepiece` scheme puts a space before the text: before every text between special tokens; before a text
# without a space in front, but not after a special token; nowhere.
PREFIXES = ("always", "first", "never")


@dataclass(frozen=True)
class Scheme:
    """A way to split text.

    Attributes:
        pattern: The regular expression whose matches are encoded one by one; None for SentencePiece.
        nfc: Whether the text is brought to Unicode's normal form C first.
    """

    pattern: str | None
    nfc: bool = False


# No regular expression is read from a file, because some take exponential time.
SCHEMES = {
    # GPT-2's rule, which the ByteLevel pre-tokenizer of `tokenizers` also applies.
    "gpt2": Scheme(r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""),
    # SmolLM2: each digit alone, and GPT-2's rule for the text between digits. So white space before a digit is the end
    # of such a text.
    "digits": Scheme(r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""),
    # Llama-3, and the models that use OpenAI's cl100k_base.
    "cl100k": Scheme(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "qwen2": Scheme(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
        nfc=True,
    ),
    # Llama-2: SentencePiece's BPE with byte fallback.
    "sentencepiece": Scheme(None),
}


@dataclass(frozen=True)
class TokenizerSettings:
    """What a rank file does not say about its tokenizer.

    Attributes:
        scheme: A name in `SCHEMES`.
        end: The special token that ends a text.
        begin: The special token that begins a text; None if `end` also begins texts.
        prefix: One of `PREFIXES`. Only the `sentencepiece` scheme uses it.

    Raises:
        ValueError: A value is not possible.
    """

    scheme: str = "gpt2"
    end: str = END_OF_TEXT
    begin: str | None = None
    prefix: str = "always"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"this slmx knows no tokenizer scheme {self.scheme[:40]!a}")
        if self.prefix not in PREFIXES:
            raise ValueError(f"tokenizer.prefix is {self.prefix[:40]!a}, not one of {', '.join(PREFIXES)}")
        for token in self.specials:
            if not 0 < len(token) <= LONGEST_SPECIAL or not is_plain_text(token):
                raise ValueError(f"the special token {token[:40]!a} is not 1 to {LONGEST_SPECIAL} printable characters")
        if self.begin == self.end:
            raise ValueError(f"tokenizer.begin is {self.end!a}, which is already the end")

    @property
    def specials(self) -> list[str]:
        """The special tokens in the order of their ids, which follow those of the ordinary tokens."""
        return [self.end] if self.begin is None else [self.end, self.begin]

    def listed(self) -> dict[str, dict[str, Any]]:
        """Returns what a listing says about the tokenizer: nothing if all settings have their defaults."""
        defaults = asdict(DEFAULT_SETTINGS)
        changed = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        return {KEY: changed} if changed else {}

    @classmethod
    def read(cls, listing: Fields) -> TokenizerSettings:
        """Reads the settings from a listing.

        Raises:
            ValueError: A value is of the wrong type or not possible.
        """
        fields = listing.optional(KEY, listing.object)
        if fields is None:
            return DEFAULT_SETTINGS
        found = {name: fields.optional(name, fields.text) for name in asdict(DEFAULT_SETTINGS)}
        return cls(**{name: value for name, value in found.items() if value is not None})


DEFAULT_SETTINGS = TokenizerSettings()
