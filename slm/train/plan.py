"""The settings that a user gives for a training run, and the plan with every default filled in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from slm.console.errors import SlmxError, UsageError, unknown
from slm.data.corpus import TokenStream
from slm.presets import (
    ARCHITECTURES,
    DEFAULT_OPTIMIZER,
    LARGEST_SIZE,
    OPTIMIZERS,
    PRECISIONS,
    QAT_VARIANTS,
    GPTConfig,
    Preset,
    as_architecture,
)
from slm.storage.json_reader import MAX_INTEGER, Fields

TOKENS_PER_PARAMETER = 20  # compute-optimal budget, Hoffmann et al. 2022 (arXiv:2203.15556)
FINE_TUNING_EPOCHS = 4
FINE_TUNING_RATE = 0.1
# The defaults of a run for a variant; docs/quantization.md has the trials that led to them.
QAT_DEFAULTS: dict[str, Any] = {"steps": 400, "optimizer": "adamw", "learning_rate": 5e-5, "dropout": 0.0}
WARMUP_STEPS = 200
SIZES = ("block_size", "n_layer", "n_head", "n_embd")  # of a model, that a user can give
Range = tuple[Callable[[float], bool], str]
# The largest numbers are those that a training record can be read with.
COUNT: Range = (lambda value: 1 <= value <= MAX_INTEGER, f"1 to {MAX_INTEGER}")
NOT_NEGATIVE: Range = (lambda value: 0 <= value < MAX_INTEGER, f"at least 0, and below {MAX_INTEGER}")
POSITIVE: Range = (lambda value: 0 < value < MAX_INTEGER, f"above 0, and below {MAX_INTEGER}")
# The values that an option can have, and the words for them.
RANGES: dict[str, Range] = {
    **dict.fromkeys(SIZES, (lambda value: 1 <= value <= LARGEST_SIZE, f"1 to {LARGEST_SIZE}")),
    **dict.fromkeys(("steps", "batch_size", "accumulate", "eval_every", "eval_tokens"), COUNT),
    **dict.fromkeys(("weight_decay", "patience"), NOT_NEGATIVE),
    **dict.fromkeys(("learning_rate", "grad_clip"), POSITIVE),
    "dropout": (lambda value: 0 <= value < 1, "0 or more, and below 1"),
    "seed": (lambda value: 0 <= value <= MAX_INTEGER, f"0 to {MAX_INTEGER}"),
}


@dataclass(frozen=True)
class TrainSettings:
    """What the user asks for. None means the preset's default or, for a resumed run, the run's own value.

    Attributes:
        out: The folder of the run.
        text: A prepared data set, or sources of text to prepare.
        init: A checkpoint to fine-tune.
        teacher: Checkpoints or runs. Their mean prediction is the target in place of the text's token.
        qat: A variant to train for, in `slm.presets.QAT_VARIANTS`.
        resume: Whether to continue the run in `out`.

    Raises:
        UsageError: A value is out of range, there is no text for a new run, no checkpoint to train for a variant, one
            and teachers, or one to begin from in a run that is resumed.
    """

    out: Path
    text: tuple[str, ...] = ()
    preset: str | None = None
    init: Path | None = None
    teacher: tuple[Path, ...] = ()
    valid: tuple[str, ...] = ()
    licence: str | None = None
    arch: str | None = None
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
    qat: str | None = None
    precision: str | None = None
    compile: bool | None = None
    track: tuple[str, ...] = ()
    resume: bool = False

    def __post_init__(self) -> None:
        for name, (is_sound, expected) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not is_sound(value):
                raise UsageError(f"--{name.replace('_', '-')} {value} is out of range; it is {expected}")
        if self.optimizer is not None and self.optimizer not in OPTIMIZERS:
            raise UsageError(unknown("optimizer", self.optimizer, OPTIMIZERS))
        if self.precision is not None and self.precision not in PRECISIONS:
            raise UsageError(unknown("precision", self.precision, PRECISIONS))
        if self.arch is not None and self.arch not in ARCHITECTURES:
            raise UsageError(unknown("architecture", self.arch, ARCHITECTURES))
        if self.qat is not None and self.qat not in QAT_VARIANTS:
            raise UsageError(unknown("variant", self.qat, QAT_VARIANTS))
        if self.qat is not None and self.init is None and not self.resume:
            raise UsageError(f"--qat {self.qat} trains a finished model for this variant: add --init CHECKPOINT")
        if self.qat is not None and self.teacher:
            raise UsageError(f"--qat {self.qat} imitates the checkpoint of --init: drop --teacher")
        if self.resume and self.init is not None:
            raise UsageError("--resume continues a run from its own checkpoint: drop --init")
        if not self.text and not self.resume:
            raise UsageError("no text to train on: give --text DIR (made by slmx prepare) or --text FILE")

    def shape(self, config: GPTConfig) -> GPTConfig:
        """Returns a shape with the sizes and the architecture that the user gave in place of its own.

        Raises:
            UsageError: They make no shape.
        """
        given = {name: value for name in SIZES if (value := getattr(self, name)) is not None}
        try:
            sized = replace(config, **given)
            return sized if self.arch is None else as_architecture(sized, self.arch)
        except SlmxError as error:
            options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
            raise UsageError(f"{options or f'--arch {self.arch}'}: {error}") from None


@dataclass(frozen=True)
class Plan:
    """Every number that decides what a run computes. A run is resumed with the same numbers.

    Attributes:
        steps: Updates of the weights in the whole run.
        warmup: Steps in which the learning rate rises.
        batch_size: Sequences of one context in a step, over all processes.
        accumulate: Parts that a batch is computed in.
        learning_rate: The highest learning rate.
        weight_decay: For matrices and tables only.
        grad_clip: The largest norm of the gradients.
        eval_every: Steps between two evaluations, each with a checkpoint.
        eval_tokens: Tokens of the validation split that an evaluation reads.
        patience: Evaluations without a better one after which the run ends, or 0 for no such limit.
        qat: The variant that the run trains for (`slm.train.qat`), or None. Records of earlier versions do not have it.
    """

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
    qat: str | None = None

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step: it rises linearly, then falls linearly to zero after the last step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (self.steps - step) / (self.steps - self.warmup + 1)

    def is_finished(self, step: int, curve: Sequence[Mapping[str, float]]) -> bool:
        """Returns whether a run has nothing left to do after `step` steps, with the loss curve of its record."""
        if step == self.steps:
            return True
        if not self.patience or not curve:
            return False
        figures = [point["bits_per_byte"] for point in curve]
        return len(figures) - 1 - figures.index(min(figures)) >= self.patience

    def check(self, settings: TrainSettings, where: Path) -> None:
        """Compares the numbers that were given for a resumed run with the run's own.

        Raises:
            SlmxError: A number differs. The message begins with `where`.
        """
        for name, value in asdict(self).items():
            given = getattr(settings, name, None)
            if given is not None and given != value:
                further = ", or begin a new run from its weights with --init" if name == "steps" else ""
                raise SlmxError(
                    f"{where}: the run has {name} {value}, not {given}; leave the option out to resume{further}"
                )

    @classmethod
    def read(cls, values: Fields) -> Plan:
        """Reads the plan that `dataclasses.asdict` turned into a JSON object. Other keys are ignored.

        Raises:
            ValueError: A number is missing or of another type. The message is a clause that names it.
        """
        readers: dict[str, Callable[[str], Any]] = {"int": values.integer, "float": values.number, "str": values.text}
        read = {field.name: readers[str(field.type)](field.name) for field in fields(cls) if field.name != "qat"}
        qat = values.optional("qat", values.text)
        if qat is not None and qat not in QAT_VARIANTS:
            raise ValueError("plan.qat is no variant")
        return cls(**read, qat=qat)


def make_plan(settings: TrainSettings, preset: Preset, config: GPTConfig, stream: TokenStream) -> Plan:
    """Fills in the defaults.

    A new model takes the preset's learning rate and a budget of `TOKENS_PER_PARAMETER`. A checkpoint that is
    fine-tuned takes `FINE_TUNING_RATE` times that learning rate and `FINE_TUNING_EPOCHS` epochs. A run for a variant
    takes `QAT_DEFAULTS`.

    Args:
        settings: What the user asks for.
        preset: The preset whose defaults are used.
        config: The shape of the model.
        stream: The training text.
    """
    batch_size = settings.batch_size or preset.batch_size
    scratch = settings.init is None
    tokens = TOKENS_PER_PARAMETER * config.parameters if scratch else FINE_TUNING_EPOCHS * len(stream.ids)
    defaults: dict[str, Any] = {
        "steps": math.ceil(tokens / (batch_size * config.block_size)),
        "batch_size": batch_size,
        "accumulate": 1,
        "optimizer": DEFAULT_OPTIMIZER,
        "learning_rate": preset.learning_rate * (1 if scratch else FINE_TUNING_RATE),
        "weight_decay": 0.1,
        "dropout": preset.dropout,
        "grad_clip": 1.0,
        "eval_every": 250,
        "eval_tokens": 2**18,
        "patience": 0,
        "seed": 1,
        "qat": None,
    }
    if settings.qat is not None:
        defaults |= QAT_DEFAULTS
    numbers = defaults | {name: value for name in defaults if (value := getattr(settings, name)) is not None}
    return Plan(warmup=max(1, min(WARMUP_STEPS, numbers["steps"] // 10)), **numbers)
