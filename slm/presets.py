"""Model shapes, and the presets: named shapes with training defaults. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from slm.errors import SlmxError

LARGEST_SIZE = 2**40  # far more than fits in memory; it limits the length of messages and products
OPTIMIZERS = ("muon", "adamw")


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    Attributes:
        block_size: The context, in tokens.
        vocab_size: Number of token ids.
        n_layer: Number of blocks.
        n_head: Attention heads of a block.
        n_embd: Channels of the residual stream.

    Raises:
        SlmxError: A size is not a whole number from 1 to `LARGEST_SIZE`, or `n_head` does not divide `n_embd`.
    """

    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
                raise SlmxError(
                    f"model shape: {name} must be a whole number from 1 to {LARGEST_SIZE}, not {repr(value)[:80]}"
                )
        if self.n_embd % self.n_head:
            raise SlmxError(f"model shape: {self.n_head} heads do not divide n_embd {self.n_embd}")

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.n_embd // self.n_head

    @property
    def non_embedding_parameters(self) -> int:
        """Number of weights outside the two tables: 12 d^2 + 13 d in each block, 2 d in the last LayerNorm."""
        d = self.n_embd
        return self.n_layer * (12 * d * d + 13 * d) + 2 * d

    @property
    def parameters(self) -> int:
        """Number of all weights. The head is the token table, which counts once."""
        return (self.vocab_size + self.block_size) * self.n_embd + self.non_embedding_parameters

    @classmethod
    def from_dict(cls, values: object, where: str) -> GPTConfig:
        """Reads a shape from parsed JSON. Other keys are allowed.

        Args:
            values: An object with every size.
            where: The file, for messages.

        Raises:
            SlmxError: A size is missing or impossible.
        """
        if not isinstance(values, dict):
            raise SlmxError(f"{where}: the model shape is not an object")
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise SlmxError(f"{where}: the model shape lacks {', '.join(missing)}")
        try:
            return cls(**{name: values[name] for name in names})
        except SlmxError as error:
            raise SlmxError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Preset:
    """A named shape with its training defaults.

    Attributes:
        name: Name of the preset.
        config: The shape.
        learning_rate: Peak of the learning rate.
        batch_size: Sequences of one context in a step.
        dropout: Share of activations that are dropped.
        optimizer: One of `OPTIMIZERS`.
    """

    name: str
    config: GPTConfig
    learning_rate: float
    batch_size: int
    dropout: float = 0.1
    optimizer: str = "muon"


_ALL = (
    Preset("nano", GPTConfig(256, 8000, 4, 4, 128), learning_rate=5e-3, batch_size=8, dropout=0.0),
    Preset("micro", GPTConfig(256, 8000, 6, 6, 192), learning_rate=4e-3, batch_size=8, dropout=0.0),
    Preset("small", GPTConfig(512, 16000, 8, 8, 256), learning_rate=3e-3, batch_size=16),
    Preset("medium", GPTConfig(1024, 32000, 12, 12, 384), learning_rate=2e-3, batch_size=16),
    Preset("small-256", GPTConfig(256, 8000, 6, 8, 256), learning_rate=3e-3, batch_size=32),
    Preset("medium-512", GPTConfig(512, 16000, 12, 8, 512), learning_rate=2e-3, batch_size=16),
    Preset("large-1024", GPTConfig(1024, 32000, 24, 16, 768), learning_rate=1e-3, batch_size=8),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def get_preset(name: str) -> Preset:
    """Returns the preset with a name; SlmxError if there is none, with the names that exist."""
    if name not in PRESETS:
        raise SlmxError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
