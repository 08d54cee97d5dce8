"""What a training run is made of: the settings a user gives, and the plan with every default filled in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from slm.data.corpus import TokenStream
from slm.errors import SlmxError
from slm.presets import OPTIMIZERS, GPTConfig, Preset

TOKENS_PER_PARAMETER = 20  # compute-optimal budget, Hoffmann et al. 2022 (arXiv:2203.15556)
FINE_TUNING_EPOCHS = 4
FINE_TUNING_RATE = 0.1
WARMUP_STEPS = 200


@dataclass(frozen=True)
class TrainSettings:
    """What the user asks for; None means the preset's default or, for a resumed run, what the run has."""

    out: Path
    data: tuple[str, ...] = ()
    preset: str | None = None
    init: Path | None = None
    valid: tuple[str, ...] = ()
    licence: str | None = None
    block_size: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    grad_clip: float | None = None
    eval_every: int | None = None
    eval_tokens: int | None = None
    patience: int | None = None
    seed: int | None = None
    precision: str = "auto"
    compile: bool = True
    track: tuple[str, ...] = ()
    resume: bool = False

    def __post_init__(self) -> None:
        def within(value: float | None, low: float, high: float = math.inf) -> bool:
            return value is None or low <= value < high

        sound = {
            "steps": within(self.steps, 1),
            "batch_size": within(self.batch_size, 1),
            "accumulate": within(self.accumulate, 1),
            "optimizer": self.optimizer is None or self.optimizer in OPTIMIZERS,
            "learning_rate": within(self.learning_rate, 0) and self.learning_rate != 0,
            "weight_decay": within(self.weight_decay, 0),
            "dropout": within(self.dropout, 0, 1),
            "grad_clip": self.grad_clip is None or self.grad_clip > 0,
            "eval_every": within(self.eval_every, 1),
            "eval_tokens": within(self.eval_tokens, 1),
            "patience": within(self.patience, 0),
            "seed": within(self.seed, 0, 2**63),
            "precision": self.precision in ("auto", "fp32", "bf16"),
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SlmxError(f"--{name.replace('_', '-')} {getattr(self, name)} is out of range")
        if not self.data and not self.resume:
            raise SlmxError("no data: give --data DIR (made by slmx prepare) or --data FILE")

    def shape(self, config: GPTConfig) -> GPTConfig:
        """A preset's shape with the sizes that were given in place of its own."""
        names = ("block_size", "n_layer", "n_head", "n_embd")
        return replace(config, **{n: getattr(self, n) for n in names if getattr(self, n) is not None})


@dataclass(frozen=True)
class Plan:
    """Every number that decides what a run computes; a run is resumed with the same ones."""

    steps: int
    warmup: int
    batch_size: int
    accumulate: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    dropout: float
    grad_clip: float
    eval_every: int
    eval_tokens: int
    patience: int
    seed: int

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then linear down to zero at the last step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (self.steps - step) / (self.steps - self.warmup + 1)

    def check(self, settings: TrainSettings, where: Path) -> None:
        """SlmxError naming a number that was given for a resumed run and is not the run's own."""
        for name, value in asdict(self).items():
            given = getattr(settings, name, None)
            if given is not None and given != value:
                raise SlmxError(f"{where}: the run has {name} {value}, not {given}; leave the option out to resume")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that `asdict` made; KeyError when a number lacks."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def make_plan(settings: TrainSettings, preset: Preset, config: GPTConfig, stream: TokenStream) -> Plan:
    """Fill in the defaults: the preset's, or for a checkpoint to fine-tune a lower rate and a few epochs."""
    batch_size = settings.batch_size or preset.batch_size
    scratch = settings.init is None
    tokens = TOKENS_PER_PARAMETER * config.parameters if scratch else FINE_TUNING_EPOCHS * len(stream.ids)
    defaults: dict[str, Any] = {
        "steps": math.ceil(tokens / (batch_size * config.block_size)),
        "batch_size": batch_size,
        "accumulate": 1,
        "optimizer": preset.optimizer,
        "learning_rate": preset.learning_rate * (1 if scratch else FINE_TUNING_RATE),
        "weight_decay": 0.1,
        "dropout": preset.dropout,
        "grad_clip": 1.0,
        "eval_every": 250,
        "eval_tokens": 2**18,
        "patience": 0,
        "seed": 1,
    }
    numbers = defaults | {name: value for name in defaults if (value := getattr(settings, name)) is not None}
    return Plan(warmup=max(1, min(WARMUP_STEPS, numbers["steps"] // 10)), **numbers)
