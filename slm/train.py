"""Training: AdamW with warm-up and cosine decay, best and last checkpoints, exact resume."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_tensors
from slm.corpus import TokenStream, encode_stories, is_held_out, read_stories
from slm.errors import SlmxError
from slm.evaluate import evaluate
from slm.folders import atomic_folder
from slm.hashing import sha256_of
from slm.model import GPT
from slm.presets import GPTConfig, get_preset
from slm.tokenizer import Tokenizer, train_tokenizer

TOKENS_PER_PARAMETER = 20  # compute-optimal budget, Hoffmann et al. 2022 (arXiv:2203.15556)
BETAS = (0.9, 0.99)
FINAL_LEARNING_RATE = 0.05
OPTIMIZER_FILE = "optimizer.safetensors"
OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainSettings:
    """What a run is made of; a resumed run must have the same. None means the preset's default."""

    preset: str
    data: tuple[Path, ...]
    out: Path
    valid: tuple[Path, ...] = ()
    licence: str = "not stated"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.1
    dropout: float | None = None
    grad_clip: float = 1.0
    eval_every: int = 250
    seed: int = 1
    compile: bool = True
    resume: bool = False

    def __post_init__(self) -> None:
        sound = {
            "steps": self.steps is None or self.steps >= 1,
            "batch_size": self.batch_size is None or self.batch_size >= 1,
            "learning_rate": self.learning_rate is None or 0 < self.learning_rate < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "dropout": self.dropout is None or 0 <= self.dropout < 1,
            "grad_clip": self.grad_clip > 0,
            "eval_every": self.eval_every >= 1,
            "seed": 0 <= self.seed < 2**63,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SlmxError(f"--{name.replace('_', '-')} {getattr(self, name)} is out of range")


@dataclass(frozen=True)
class _Plan:
    """The settings with every default filled in."""

    steps: int
    warmup: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    dropout: float
    grad_clip: float
    eval_every: int
    seed: int

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        low = FINAL_LEARNING_RATE
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def _plan(settings: TrainSettings, config: GPTConfig) -> _Plan:
    preset = get_preset(settings.preset)
    batch_size = preset.batch_size if settings.batch_size is None else settings.batch_size
    steps = settings.steps
    if steps is None:
        steps = math.ceil(TOKENS_PER_PARAMETER * config.parameters / (batch_size * config.block_size))
    return _Plan(
        steps=steps,
        warmup=max(1, min(300, steps // 10)),
        batch_size=batch_size,
        learning_rate=preset.learning_rate if settings.learning_rate is None else settings.learning_rate,
        weight_decay=settings.weight_decay,
        dropout=preset.dropout if settings.dropout is None else settings.dropout,
        grad_clip=settings.grad_clip,
        eval_every=settings.eval_every,
        seed=settings.seed,
    )


def batch_at(stream: TokenStream, block_size: int, batch_size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step, int64 [batch, block_size] twice: shuffled windows, shifted anew every epoch.

    It depends on the arguments alone, so that a resumed run sees what an uninterrupted one would.
    """
    ids = stream.ids
    per_epoch = max(1, (len(ids) - block_size) // block_size // batch_size)
    epoch, index = divmod(step, per_epoch)
    rng = np.random.default_rng((seed, epoch))
    offset = int(rng.integers(min(block_size, len(ids) - block_size)))
    order = rng.permutation((len(ids) - 1 - offset) // block_size)
    chosen = offset + block_size * np.resize(order[index * batch_size : (index + 1) * batch_size], batch_size)
    rows = torch.from_numpy(np.stack([ids[start : start + block_size + 1] for start in chosen]).astype(np.int64))
    return rows[:, :-1], rows[:, 1:]


def _optimizer(model: GPT, plan: _Plan) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=BETAS, fused=True)


def _precision(device: torch.device) -> torch.dtype:
    """bf16 only where the hardware multiplies it: emulated on a CPU it is many times slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


@contextmanager
def _interrupt_flag() -> Iterator[list[bool]]:
    """A list that becomes [True] at Ctrl-C, so that a step is never cut in half."""
    flag = [False]
    before = signal.signal(signal.SIGINT, lambda *_: flag.__setitem__(0, True))
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


def _data_record(settings: TrainSettings) -> list[dict[str, Any]]:
    sides = [("training", path) for path in settings.data] + [("validation", path) for path in settings.valid]
    return [
        {"side": side, "file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for side, path in sides
    ]


class Trainer:
    """One run: its model, optimizer and record, and the folder `out` with `best` and `last` in it."""

    def __init__(self, settings: TrainSettings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.preset = get_preset(settings.preset)
        self.last = settings.out / "last"
        if self.last.exists() and not settings.resume:
            raise SlmxError(f"{settings.out}: holds a run already; add --resume to go on, or choose another --out")
        if settings.resume and not self.last.exists():
            raise SlmxError(f"{settings.out}: no run to resume here; start it without --resume")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = _precision(self.device)
        stories = list(read_stories(settings.data))
        if settings.valid:
            held_out = list(read_stories(settings.valid))
        else:
            held_out = [story for story in stories if is_held_out(story)]
            stories = [story for story in stories if not is_held_out(story)]
        self.data = _data_record(settings)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        saved = load_checkpoint(self.last) if settings.resume else None
        if saved is not None and saved.preset != self.preset.name:
            raise SlmxError(f"{self.last}: a run of {saved.preset}, not {self.preset.name}; resume with the same")
        if saved is None:
            self.tokenizer, self.merges = self._learn_tokenizer(stories)
        else:
            self.tokenizer, self.merges = saved.tokenizer, saved.merges
        config = replace(self.preset.config, vocab_size=self.tokenizer.vocab_size)
        self.plan = _plan(settings, config)
        torch.manual_seed(self.plan.seed)
        self.model = GPT(config, self.plan.dropout).to(self.device)
        self.optimizer = _optimizer(self.model, self.plan)
        self.train_stream = self._encode("training", stories)
        self.valid_stream = self._encode("validation", held_out)
        if saved is not None:
            self._restore(saved)
        try:
            settings.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SlmxError(f"{settings.out}: cannot make the folder ({error.strerror})") from error

    def _learn_tokenizer(self, stories: list[str]) -> tuple[Tokenizer, list[tuple[str, str]]]:
        wanted = self.preset.config.vocab_size
        self.console.print(f"tokenizer: learning {wanted} tokens from {len(stories):,} stories")
        tokenizer, merges = train_tokenizer(stories, wanted)
        if tokenizer.vocab_size < wanted:
            self.console.print(f"tokenizer: the text gives only {tokenizer.vocab_size}; the model has as many")
        return tokenizer, merges

    def _encode(self, side: str, stories: list[str]) -> TokenStream:
        stream = encode_stories(stories, self.tokenizer)
        try:
            stream.windows(self.model.config.block_size)
        except SlmxError as error:
            hint = "" if self.settings.valid or side == "training" else " (or name a file with --valid)"
            raise SlmxError(f"{side} data: {error}{hint}") from None
        self.console.print(
            f"{side}: {stream.stories:,} stories, {len(stream.ids):,} tokens of {stream.bytes_per_token:.2f} bytes"
        )
        return stream

    def _restore(self, saved: Checkpoint) -> None:
        before, now = saved.record["plan"], asdict(self.plan)
        for name, value in now.items():
            if before.get(name) != value:
                raise SlmxError(
                    f"{self.last}: the run has {name} {before.get(name)}, not {value}; resume with the same"
                )
        if saved.record["data"] != self.data:
            raise SlmxError(f"{self.last}: the run was made from other data; resume with the same files")
        self.model.load_state_dict(saved.model.state_dict())
        self.step = saved.record["steps_done"]
        try:
            tensors = load_file(self.last / OPTIMIZER_FILE)
            for name, parameter in self.model.named_parameters() if self.step else ():
                self.optimizer.state[parameter] = {
                    key: tensors[f"{name}.{key}"].to(self.device) for key in OPTIMIZER_STATE
                }
        except (OSError, SafetensorError, KeyError) as error:
            raise SlmxError(f"{self.last / OPTIMIZER_FILE}: cannot read ({error}); start a new run") from error
        self.seconds = saved.record["seconds"]
        self.curve = saved.record["curve"]
        self.console.print(f"resumed at step {self.step} of {self.plan.steps}")

    def record(self) -> dict[str, Any]:
        """The training record: data, licence, plan, tokens seen, loss curve, bits per byte."""
        best = min(self.curve, key=lambda point: point["bits_per_byte"], default=None)
        return {
            "data": self.data,
            "licence": self.settings.licence,
            "plan": asdict(self.plan),
            "parameters": self.model.config.parameters,
            "training_tokens": len(self.train_stream.ids),
            "steps_done": self.step,
            "tokens_seen": self.step * self.tokens_per_step,
            "seconds": round(self.seconds, 1),
            "precision": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "torch": torch.__version__,
            "best": best,
            "curve": self.curve,
        }

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch."""
        return self.plan.batch_size * self.model.config.block_size

    def save(self, name: str, dtype: torch.dtype, optimizer: bool) -> None:
        """Write `out`/`name` as a whole, in place of the one before."""
        with atomic_folder(self.settings.out / name, replace=True) as folder:
            save_checkpoint(folder, self.preset.name, self.model, self.tokenizer, self.merges, self.record(), dtype)
            if optimizer:
                tensors = {
                    f"{name}.{key}": value
                    for name, parameter in self.model.named_parameters()
                    for key, value in self.optimizer.state[parameter].items()
                }
                save_tensors(tensors, folder / OPTIMIZER_FILE)

    def run(self) -> bool:
        """Train to the last step; returns False when Ctrl-C ended it early, with `last` saved."""
        forward = torch.compile(self.model) if self.settings.compile and shutil.which("c++") else self.model
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        with _interrupt_flag() as interrupted, Progress(*columns, console=self.console) as progress:
            bar = progress.add_task("training", total=self.plan.steps, completed=self.step, figures="")
            self.model.train()
            mean_loss, rate = math.nan, math.nan
            while self.step < self.plan.steps and not interrupted[0]:
                started = time.perf_counter()
                loss = self._one_step(forward)
                took = time.perf_counter() - started
                self.seconds += took
                mean_loss = loss if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss
                speed = self.tokens_per_step / took
                rate = speed if math.isnan(rate) else 0.9 * rate + 0.1 * speed
                progress.update(bar, completed=self.step, figures=f"loss {mean_loss:.3f} · {rate:,.0f} tokens/s")
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self._evaluate(mean_loss, rate)
            if interrupted[0]:
                self.save("last", torch.float32, optimizer=True)
        return not interrupted[0]

    def _one_step(self, forward: Callable[[Tensor], Tensor]) -> float:
        plan = self.plan
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(self.step)
        torch.manual_seed(plan.seed + self.step)
        block_size = self.model.config.block_size
        inputs, targets = batch_at(self.train_stream, block_size, plan.batch_size, plan.seed, self.step)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = forward(inputs.to(self.device))
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.to(self.device).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.grad_clip)
        value = float(loss.detach())
        self._stop_unless_finite("loss", value)
        self._stop_unless_finite("the gradient's norm", float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return value

    def _stop_unless_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            saved = f"the last good state is {self.last}" if self.last.exists() else "nothing was saved yet"
            raise SlmxError(f"{what} is {value} at step {self.step}; {saved}; start again with a lower --learning-rate")

    def _evaluate(self, loss: float, rate: float) -> None:
        figure = evaluate(self.model, self.valid_stream)
        self._stop_unless_finite("bits per byte", figure)
        best = min((point["bits_per_byte"] for point in self.curve), default=math.inf)
        self.curve.append({"step": self.step, "loss": round(loss, 4), "bits_per_byte": round(figure, 5)})
        if figure < best:
            self.save("best", torch.float16, optimizer=False)
        self.save("last", torch.float32, optimizer=True)
        mark = "  best so far" if figure < best else ""
        self.console.print(
            f"step {self.step}/{self.plan.steps}  loss {loss:.3f}  "
            f"validation {figure:.4f} bits per byte  {rate:,.0f} tokens/s{mark}",
            soft_wrap=True,
        )


def train(settings: TrainSettings, console: Console) -> bool:
    """Train a preset and write `out`/best and `out`/last; returns False when Ctrl-C ended it early.

    Raises SlmxError for an unknown preset, unusable data, a run that is there already or does not match.
    """
    trainer = Trainer(settings, console)
    console.print(
        f"{settings.preset}: {trainer.model.config.parameters:,} parameters, {trainer.plan.steps:,} steps of "
        f"{trainer.tokens_per_step:,} tokens, {trainer.device.type}, {str(trainer.dtype).removeprefix('torch.')}"
    )
    return trainer.run()
