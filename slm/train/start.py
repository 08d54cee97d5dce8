"""Where a run starts: from a preset, from a checkpoint to fine-tune, or from its own newest checkpoint."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from slm.blocks import check_blocks
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.counted import counted
from slm.console.errors import NeedsForceError, SlmxError
from slm.data.dataset import Dataset, check_context, is_dataset
from slm.data.prepare import PrepareSettings, prepare
from slm.model import GPT
from slm.presets import BLOCK_VARIANTS, DEFAULT_ARCHITECTURE, DEFAULT_PRESET, PRESETS, GPTConfig, Preset, get_preset
from slm.storage.file_names import RECORD_FILE
from slm.storage.json_reader import Fields
from slm.train.plan import Plan, TrainSettings, make_plan
from slm.train.run_folder import DATA_FOLDER, RunFolder
from slm.train.summary import SUMMARY_FILE
from slm.train.teachers import Teacher

CURVE_KEYS = ("step", "loss", "bits_per_byte")  # the keys of every point of a record's loss curve


@dataclass(frozen=True)
class RunState:
    """What the training record of a run's checkpoint holds about the run so far.

    Attributes:
        unlogged: The losses of the steps since the last line of `metrics.jsonl`.
    """

    plan: Plan
    dataset_sha256: str
    steps_done: int
    seconds: float
    curve: list[dict[str, float]]
    best: dict[str, float] | None
    licence: str | None
    origin: dict[str, Any] | None
    teachers: list[dict[str, str]]
    unlogged: list[float]

    @classmethod
    def read(cls, checkpoint: Checkpoint, way_back: str) -> RunState:
        """Reads the record of a checkpoint.

        Args:
            checkpoint: The checkpoint.
            way_back: What to do if the run cannot be resumed from it.

        Raises:
            SlmxError: The record is not that of a training run, or a value in it is not possible.
        """
        record, fields = checkpoint.record, Fields(checkpoint.record)
        licence = record.get("licence")
        try:
            plan = Plan.read(fields.object("plan"))
            points = fields.objects("curve")
            for point in points:
                for key in CURVE_KEYS:
                    point.number(key)
            fields.optional("init", fields.object)
            if (best := fields.optional("best", fields.object)) is not None:
                best.number("bits_per_byte")
            state = cls(
                plan=plan,
                dataset_sha256=fields.text("dataset_sha256"),
                steps_done=fields.integer("steps_done", most=plan.steps),
                seconds=fields.number("seconds"),
                curve=record["curve"],
                best=record.get("best"),
                licence=licence if isinstance(licence, str) else None,
                origin=record.get("init"),
                teachers=record.get("teachers") or [],
                unlogged=list(fields.optional("unlogged_losses", fields.numbers) or ()),
            )
            if state.steps_done == plan.steps and not points:
                raise ValueError("curve is empty")
        except ValueError as error:
            raise SlmxError(
                f"{checkpoint.folder / RECORD_FILE}: not the record of a run to resume ({error}); {way_back}"
            ) from error
        return state


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        preset: The name of the model shape, which every checkpoint of the run gets.
        defaults: The preset whose training defaults are used. It is a similar one if no preset has the name `preset`.
        checkpoint: The checkpoint that gives shape, tokenizer and weights, or None for a new model.
        state: The state of the run to resume, or None for a run that begins.
    """

    preset: str
    defaults: Preset
    checkpoint: Checkpoint | None
    state: RunState | None

    def open_data(self, settings: TrainSettings, folder: RunFolder, console: Console) -> Dataset:
        """Opens the data set of the run, or prepares one in the run's folder from the text that was given.

        Raises:
            SlmxError: The data set is missing or damaged, has another tokenizer than the checkpoint, or is not the
                one that the run was started with.
        """
        text = settings.text or (folder.dataset_path(),)
        if len(text) == 1 and is_dataset(text[0]):
            if settings.valid:
                raise SlmxError(f"{text[0]}: holds its own validation split; give --valid to slmx prepare")
            dataset = Dataset.open(Path(text[0]))
        else:
            if self.state is not None and self._has_data_elsewhere(settings, folder):
                raise self._other_data(folder)
            begun_from = (self.checkpoint.folder,) if self.checkpoint is not None and self.origin() is not None else ()
            wanted = PrepareSettings(
                sources=text,
                preset=self.defaults.name,
                out=settings.out / DATA_FOLDER,
                valid=settings.valid,
                licence=settings.licence or "not stated",
                tokenizer=next(iter((*begun_from, *settings.teacher)), None),
                context=self.check_shape(settings).block_size,
                any_rules=self.state is not None,
            )
            try:
                dataset = prepare(wanted, console)
            except NeedsForceError:
                how = "from another text, with other options or with the rules of an earlier slmx"
                if self.state is not None:
                    how = "from another text or with other options"
                raise SlmxError(f"{wanted.out}: made {how}; give the same, or choose another --out") from None
        if self.state is not None and self.state.dataset_sha256 != dataset.sha256:
            raise self._other_data(folder)
        if self.checkpoint is not None and self.checkpoint.tokenizer != dataset.tokenizer:
            raise SlmxError(
                f"{dataset.folder}: its tokenizer is not that of {self.checkpoint.folder}; "
                f"prepare the text with --tokenizer {shlex.quote(str(self.checkpoint.folder))}"
            )
        return dataset

    def _has_data_elsewhere(self, settings: TrainSettings, folder: RunFolder) -> bool:
        try:
            return Path(folder.dataset_path()).resolve() != (settings.out / DATA_FOLDER).resolve()
        except SlmxError:
            return False

    def _other_data(self, folder: RunFolder) -> SlmxError:
        try:
            own = f"; leave out --text, because the run knows its data set {folder.dataset_path()}"
        except SlmxError:
            own = "; give the data set that the run was started with"
        return SlmxError(f"{folder.path}: the run was made from other data than --text{own}")

    def check_shape(self, settings: TrainSettings) -> GPTConfig:
        """Returns the shape of the model with the vocabulary of the preset or of the checkpoint.

        Raises:
            SlmxError: The sizes that were given are impossible, or are not those of the checkpoint, or the variant to
                train for cannot store this shape.
        """
        if self.checkpoint is None:
            return replace(settings, arch=settings.arch or DEFAULT_ARCHITECTURE).shape(self.defaults.config)
        config = self.checkpoint.model.config
        if settings.shape(config) != config:
            raise SlmxError(
                f"{self.checkpoint.folder}: has its own shape; "
                "leave out --arch, --block-size, --n-layer, --n-head, --n-embd"
            )
        if settings.qat in BLOCK_VARIANTS:
            check_blocks(f"{self.checkpoint.folder}: {settings.qat}", config, "leave --qat out, or use --qat int8")
        if settings.qat is not None and config.head_dim % config.fused_head_multiple:
            raise SlmxError(
                f"{self.checkpoint.folder}: has heads of {counted(config.head_dim, 'channel')}, which only --portable "
                f"can store, and {settings.qat} needs a multiple of {config.fused_head_multiple}; leave --qat out"
            )
        return config

    def shape(self, settings: TrainSettings, dataset: Dataset) -> GPTConfig:
        """Returns the shape of the model: the checkpoint's, or the preset's with the sizes that were given.

        Raises:
            SlmxError: A size was given that is not the checkpoint's, or a split is shorter than one context.
        """
        config = self.check_shape(settings)
        if self.checkpoint is None:
            config = replace(config, vocab_size=dataset.tokenizer.vocab_size)
        for split, stream in (("train", dataset.train), ("valid", dataset.valid)):
            check_context(f"{dataset.folder}: its", split, len(stream.ids), config.block_size, "prepare more text")
        return config

    def plan(self, settings: TrainSettings, config: GPTConfig, dataset: Dataset) -> Plan:
        """Returns the plan of the run to resume, or a new one.

        Raises:
            SlmxError: A number was given that is not the one of the run to resume.
        """
        if self.state is None:
            return make_plan(settings, self.defaults, config, dataset.train)
        self.state.plan.check(settings, settings.out)
        return self.state.plan

    def teachers(self, settings: TrainSettings) -> list[Teacher]:
        """Loads the checkpoints that the user named as teachers.

        Raises:
            SlmxError: One cannot be read, or they are not those of the run to resume.
        """
        folders, known = settings.teacher, None if self.state is None else self.state.teachers
        if known == [] and folders:
            raise SlmxError(f"{settings.out}: the run has no teacher; leave out --teacher to resume")
        if known is not None and len(known) != len(folders):
            raise SlmxError(
                f"{settings.out}: the run was started with {counted(len(known), 'teacher')}, not {len(folders)}; "
                "name the same checkpoints with --teacher, in the same order"
            )
        try:
            loaded = {folder: Teacher.load(folder) for folder in dict.fromkeys(folders)}
        except SlmxError as error:
            if known is None:
                raise
            raise SlmxError(
                f"a teacher of this run cannot be read; name its new place with --teacher, or mend it: {error}"
            ) from None
        for folder, record in zip(folders, known or (), strict=False):
            if loaded[folder].record != record:
                raise SlmxError(
                    f"{folder}: not the teacher that the run was started with; "
                    "name the same checkpoints with --teacher, in the same order"
                )
        return [loaded[folder] for folder in folders]

    def imitated(self, plan: Plan, folder: RunFolder) -> GPT | None:
        """Returns the model that a run for a variant imitates, which is the one it started from; else None.

        Raises:
            SlmxError: The run is resumed, and its first checkpoint is missing or damaged.
        """
        if plan.qat is None or self.checkpoint is None:
            return None
        if self.state is None:
            return self.checkpoint.model
        if not folder.first.is_dir():
            raise SlmxError(
                f"{folder.first}: missing, and this run imitates the model in it; "
                "copy the folder of the run again, whole"
            )
        return load_checkpoint(folder.first).model

    def origin(self) -> dict[str, Any] | None:
        """Returns the hash and the training record of the checkpoint that is fine-tuned, or None for a new model."""
        if self.state is not None:
            return self.state.origin
        if self.checkpoint is None:
            return None
        return {"config_sha256": self.checkpoint.config_sha256, "record": self.checkpoint.record}


def find_start(settings: TrainSettings, folder: RunFolder) -> Start:
    """Finds where a run starts, and reads the checkpoint if there is one.

    Raises:
        SlmxError: The folder holds a run or foreign files and `settings.resume` is false, there is no run to resume,
            a checkpoint is damaged or of another preset, or the preset is unknown.
    """
    state = None
    if not settings.resume:
        folder.check_free()
    if settings.resume:
        checkpoint = folder.load_last()
        state = RunState.read(checkpoint, folder.way_back())
    elif settings.init is not None:
        checkpoint = load_checkpoint(settings.init)
    else:
        preset = get_preset(settings.preset or DEFAULT_PRESET)
        return Start(preset.name, preset, None, None)
    if settings.preset not in (None, checkpoint.preset):
        raise SlmxError(
            f"{checkpoint.folder}: a checkpoint of {checkpoint.preset}, not {settings.preset}; leave out --preset"
        )
    defaults = PRESETS.get(checkpoint.preset) or nearest_preset(checkpoint.model.config)
    return Start(checkpoint.preset, defaults, checkpoint, state)


def find_finished(settings: TrainSettings, console: Console) -> RunState | None:
    """Finds what a run that is to be resumed did, if it has nothing left to do and its summary is written.

    Args:
        settings: What the user asks for.
        console: Where the preparation of a text that was given is shown.

    Raises:
        SlmxError: As in `find_start`, or something was given that is not that of the run, or that could only change
            further steps.
    """
    if not settings.resume or not (settings.out / SUMMARY_FILE).is_file():
        return None
    folder = RunFolder(settings.out)
    start = find_start(settings, folder)
    state = start.state
    if state is None or start.checkpoint is None or not state.plan.is_finished(state.steps_done, state.curve):
        return None
    start.check_shape(settings)
    state.plan.check(settings, settings.out)
    if settings.teacher:
        start.teachers(settings)
    known = folder.remembered(replace(settings, precision=None, compile=None))
    own = {
        "licence": state.licence,
        "precision": known.precision,
        "compile": known.compile,
        "track": (),
    }
    for name, value in own.items():
        if getattr(settings, name) not in (None, value):
            raise SlmxError(f"{settings.out}: the run is finished, so --{name} would change nothing; leave it out")
    if settings.text or settings.valid:
        start.open_data(known, folder, console)
    return state


def nearest_preset(config: GPTConfig) -> Preset:
    """Returns the preset whose number of parameters has the smallest ratio to that of a shape."""
    return min(PRESETS.values(), key=lambda preset: abs(math.log(preset.config.parameters / config.parameters)))
