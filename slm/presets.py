"""Model shapes and the training defaults that go with them; free of heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from slm.errors import SlmxError

OPTIMIZERS = ("muon", "adamw")


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT: context window and vocabulary in tokens, widths in channels."""

    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int

    def __post_init__(self) -> None:
        sizes = asdict(self)
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SlmxError(f"model shape: {name} must be a whole number of at least 1, not {value!r}")
        if self.n_embd % self.n_head:
            raise SlmxError(f"model shape: {self.n_head} heads do not divide n_embd {self.n_embd}")

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.n_embd // self.n_head

    @property
    def non_embedding_parameters(self) -> int:
        """Weights outside the token and position tables (12 d^2 + 13 d per block, and the last LayerNorm)."""
        d = self.n_embd
        return self.n_layer * (12 * d * d + 13 * d) + 2 * d

    @property
    def parameters(self) -> int:
        """All weights; the head shares the token table, which counts once."""
        return (self.vocab_size + self.block_size) * self.n_embd + self.non_embedding_parameters

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> GPTConfig:
        """Read a shape from parsed JSON; SlmxError naming `where` if a size is missing or not a number."""
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise SlmxError(f"{where}: the model shape lacks {', '.join(missing)}")
        return cls(**{name: values[name] for name in names})


@dataclass(frozen=True)
class Preset:
    """A named shape with its training defaults; `batch_size` counts sequences of one context window."""

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
    """The preset of that name; SlmxError listing those that exist otherwise."""
    if name not in PRESETS:
        raise SlmxError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
