"""Model shapes, and the presets: named shapes with training defaults. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError, unknown

LARGEST_SIZE = 2**40  # far more than fits in memory; it limits the length of messages and products
OPTIMIZERS = ("muon", "adamw")
DEFAULT_OPTIMIZER = "muon"  # of every preset; docs/training.md has the figures
ACTIVATIONS = ("gelu_tanh", "gelu", "relu", "silu")
NORMS = ("layernorm", "rmsnorm")
ARCHITECTURES = ("gpt2", "llama")
DEFAULT_ARCHITECTURE = "llama"  # of `slmx train`; docs/training.md has the figures
DEFAULT_PRESET = "nano"
PRECISIONS = ("auto", "fp32", "bf16")
BLOCK_VARIANTS = ("int4", "q8")  # the variants that `slm.blocks` stores
QAT_VARIANTS = ("int8", *BLOCK_VARIANTS)  # the variants that `slmx train --qat` trains for
TRACKERS = ("tensorboard", "wandb")
SMALLEST_VOCABULARY = 257  # the bytes and `<|endoftext|>`
LARGEST_VOCABULARY = 2**16  # of a model to train: a data set holds ids of 16 bits


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. The five sizes describe a GPT-2; the other fields are what other architectures change.

    An optional size that is equal to its default is stored as 0, so equal shapes are equal objects.

    Attributes:
        block_size: The context, in tokens.
        vocab_size: Number of token ids.
        n_layer: Number of blocks.
        n_head: Attention heads of a block.
        n_embd: Channels of the residual stream.
        n_kv_head: Heads of keys and values, each shared by a group of attention heads; 0 is `n_head`.
        head_size: Channels of a head; 0 is `n_embd / n_head`.
        n_inner: Channels inside the feed-forward part; 0 is four times `n_embd`.
        activation: One of `ACTIVATIONS`.
        gated: Whether the activation of one half of the inner channels multiplies the other half, as in SwiGLU. The
            feed-forward part then has two matrices of `n_inner` channels before the activation.
        norm: One of `NORMS`.
        norm_eps: What the norms add to the variance.
        bias: Whether linear layers and layer norms have biases.
        tied: Whether the output head is the token table.
        rope_theta: Base of the rotary positions; 0.0 means a table of learned positions.
        windows: For each layer, the number of last positions that a position attends to, itself included; 0 means all.
            Empty means 0 for every layer.

    Raises:
        SlmxError: A value is of the wrong type or out of range, or two values contradict each other.
    """

    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_kv_head: int = 0
    head_size: int = 0
    n_inner: int = 0
    activation: str = "gelu_tanh"
    gated: bool = False
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    bias: bool = True
    tied: bool = True
    rope_theta: float = 0.0
    windows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_value(field.name, getattr(self, field.name), least=1 if field.default is MISSING else 0)
        if not self.head_size and self.n_embd % self.n_head:
            raise SlmxError(f"model shape: {self.n_head} heads do not divide n_embd {self.n_embd}")
        if self.n_head % self.kv_heads:
            raise SlmxError(f"model shape: {self.kv_heads} heads of keys and values do not divide {self.n_head} heads")
        if self.rope_theta and self.head_dim % 2:
            raise SlmxError(
                f"model shape: rotary positions need an even number of channels per head, not {self.head_dim}"
            )
        if self.windows and len(self.windows) != self.n_layer:
            raise SlmxError(f"model shape: {counted(len(self.windows), 'window')} for {counted(self.n_layer, 'layer')}")
        defaults = {"n_kv_head": self.n_head, "n_inner": 4 * self.n_embd, "head_size": self.n_embd / self.n_head}
        for name, default in defaults.items():
            if getattr(self, name) == default:
                object.__setattr__(self, name, 0)
        if not any(window and window < self.block_size for window in self.windows):
            object.__setattr__(self, "windows", ())

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.head_size or self.n_embd // self.n_head

    @property
    def family(self) -> str:
        """The best known model with the parts of this one: "Llama", "GPT-Neo" or "GPT-2"."""
        return "Llama" if self.rope_theta else "GPT-Neo" if self.windows else "GPT-2"

    @property
    def fused_head_multiple(self) -> int:
        """The number that must divide `head_dim` for onnxruntime's GroupQueryAttention on a CPU."""
        return 16 if self.rope_theta else 8

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_head or self.n_head

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values of a full context, in float32."""
        return 2 * self.n_layer * self.kv_heads * self.head_dim * self.block_size * 4

    @property
    def inner(self) -> int:
        """Channels inside the feed-forward part."""
        return self.n_inner or 4 * self.n_embd

    def window(self, layer: int) -> int:
        """Returns the number of last positions that a position of a layer attends to, itself included; 0 means all."""
        return self.windows[layer] if self.windows else 0

    @property
    def non_embedding_parameters(self) -> int:
        """Number of weights outside the tables."""
        d, heads, ups = self.n_embd, self.n_head * self.head_dim, 2 if self.gated else 1
        qkv = heads + 2 * self.kv_heads * self.head_dim
        block = d * (qkv + heads) + d * self.inner * (ups + 1)
        norm = d
        if self.bias:
            block += qkv + d + ups * self.inner + d
            norm += d if self.norm == "layernorm" else 0
        return self.n_layer * (block + 2 * norm) + norm

    @property
    def table_parameters(self) -> int:
        """Number of weights in the token table, the positions and an untied head."""
        rows = self.vocab_size * (1 if self.tied else 2) + (0 if self.rope_theta else self.block_size)
        return rows * self.n_embd

    @property
    def parameters(self) -> int:
        """Number of all weights. A tied head is the token table, which counts once."""
        return self.table_parameters + self.non_embedding_parameters

    def options(self) -> dict[str, Any]:
        """Returns the fields with a default whose value is another one."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.default is not MISSING and getattr(self, field.name) != field.default
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the shape for JSON: the five sizes, and the other fields whose value is not the default."""
        sizes = {field.name: getattr(self, field.name) for field in fields(self) if field.default is MISSING}
        return sizes | {name: list(value) if name == "windows" else value for name, value in self.options().items()}

    @classmethod
    def from_dict(cls, values: object, where: str) -> GPTConfig:
        """Reads a shape from parsed JSON. Other keys are allowed.

        Args:
            values: An object with the five sizes, and the other fields whose value is not the default.
            where: The file, for messages.

        Raises:
            SlmxError: A size is missing or impossible.
        """
        if not isinstance(values, dict):
            raise SlmxError(f"{where}: the model shape is not an object")
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
        if missing:
            raise SlmxError(f"{where}: the model shape lacks {', '.join(missing)}")
        given = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if isinstance(given.get("windows"), list):
            given["windows"] = tuple(given["windows"])
        try:
            return cls(**given)
        except SlmxError as error:
            raise SlmxError(f"{where}: {error}") from None


def _check_value(name: str, value: object, least: int) -> None:
    """Raises SlmxError if a field of a shape has a value of another type, or a number that no model has."""
    choices = {"activation": ACTIVATIONS, "norm": NORMS, "gated": (False, True), "bias": (False, True)}
    choices["tied"] = (False, True)
    if name in choices:
        if value not in choices[name] or not isinstance(value, type(choices[name][0])):
            known = ", ".join(map(str, choices[name])).lower()
            raise SlmxError(f"model shape: {name} must be one of {known}, not {repr(value)[:80]}")
    elif name in ("norm_eps", "rope_theta"):
        most = 1.0 if name == "norm_eps" else 1e12
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise SlmxError(f"model shape: {name} must be a number from 0 to {most:g}, not {repr(value)[:80]}")
    elif name == "windows":
        if not isinstance(value, tuple):
            raise SlmxError(f"model shape: windows must be a list of whole numbers, not {repr(value)[:80]}")
        for number in value:
            _check_value("a window", number, 0)
    elif not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST_SIZE:
        raise SlmxError(
            f"model shape: {name} must be a whole number from {least} to {LARGEST_SIZE}, not {repr(value)[:80]}"
        )


def as_architecture(config: GPTConfig, architecture: str) -> GPTConfig:
    """Returns a shape of another architecture with about as many parameters.

    The llama form has RMSNorm, rotary positions, no biases, and a gated feed-forward part of 8/3 n_embd channels,
    rounded to a multiple of 32 (Touvron et al., 2023, arXiv:2302.13971).

    Args:
        config: The shape, of which only the five sizes are used.
        architecture: One of `ARCHITECTURES`.

    Raises:
        UsageError: The architecture is unknown.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(unknown("architecture", architecture, ARCHITECTURES))
    config = GPTConfig(config.block_size, config.vocab_size, config.n_layer, config.n_head, config.n_embd)
    if architecture == "gpt2":
        return config
    inner = max(32, round(8 * config.n_embd / 3 / 32) * 32)
    return replace(
        config,
        n_inner=inner,
        activation="silu",
        gated=True,
        norm="rmsnorm",
        bias=False,
        rope_theta=10000.0,
    )


@dataclass(frozen=True)
class Preset:
    """A named shape with its training defaults.

    Attributes:
        name: Name of the preset.
        config: The shape.
        learning_rate: Peak of the learning rate.
        batch_size: Sequences of one context in a step.
        dropout: Share of activations that are dropped.
    """

    name: str
    config: GPTConfig
    learning_rate: float
    batch_size: int
    dropout: float = 0.1


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
    """Returns the preset with a name; UsageError if there is none, with the names that exist."""
    if name not in PRESETS:
        raise UsageError(unknown("preset", name, list(PRESETS)))
    return PRESETS[name]
