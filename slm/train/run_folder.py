"""The folder of a training run: numbered checkpoints that rotate, the best one, metrics, samples."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm.checkpoint import MAX_RECORD_BYTES, MAX_RECORD_DEPTH, Checkpoint, load_checkpoint
from slm.console.errors import SlmxError
from slm.data.dataset import is_dataset
from slm.folder_kind import CHECKPOINT_LISTING, Kind, check_outside, find_kind, numbered_checkpoints, wrong_kind
from slm.presets import TRACKERS
from slm.storage.atomic import atomic_folder, remove_folder
from slm.storage.disk import write_advice, write_errors, write_file
from slm.storage.file_names import RECORD_FILE, RUN_FILE
from slm.storage.json_reader import Fields, parse_json, read_json
from slm.storage.listing import check_file
from slm.storage.ownership import check_only_ours, foreign_file
from slm.storage.read_errors import unreadable
from slm.train.plan import TrainSettings
from slm.train.summary import SUMMARY_FILE

OPTIMIZER_FILE = "optimizer.safetensors"
METRICS_FILE = "metrics.jsonl"
DATA_FOLDER = "data"
KEPT_CHECKPOINTS = 2
MAX_RUN_BYTES = 2**20
PRECISION_OF = {"bfloat16": "bf16", "float32": "fp32"}  # in a training record, and as --precision has it


class RunFolder:
    """The folder of a run: checkpoints `step-N` and `best`, and the logs.

    The two newest `step-N` are kept, and the first in a run for a variant. They are float32 and hold the optimizer's
    state. `best` is float16, or float32 in a run for int4 or q8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_forgotten = False  # whether `remembered` found no usable run.json

    def check_free(self) -> None:
        """Checks that a new run may begin in the folder: it is missing, empty, or of a run without a checkpoint.

        Such a run can have been killed while it prepared its data set, which is the subfolder `data`.

        Raises:
            SlmxError: It holds a run with a checkpoint or files of something else, or it is inside a folder of slmx.
        """
        check_outside(self.path)
        is_kept = self.best.is_dir()  # also if the numbered checkpoints were deleted
        if (self.last is not None or is_kept) and (self.path / SUMMARY_FILE).is_file():
            raise SlmxError(f"{self.path}: holds a finished run; {self.more_steps()}; or choose another --out")
        if self.last is not None:
            raise SlmxError(f"{self.path}: holds a run already; add --resume to go on, or choose another --out")
        if is_kept:
            raise SlmxError(f"{self.path}: holds best, the checkpoint of an earlier run; choose another --out")
        if not self.path.is_dir() or find_kind(self.path) is not Kind.RUN:
            check_only_ours(self.path, {DATA_FOLDER}, "a training run")

    def more_steps(self) -> str:
        """Returns how to train the model of a finished run further: a new run from its weights."""
        text = "TEXT"
        with suppress(SlmxError):
            text = shlex.quote(self.dataset_path())
        init = shlex.quote(str(self.path))
        return f"to train it further: slmx train --init {init} --text {text} --steps N --out NEW"

    def make(self) -> None:
        """Makes the folder, and checks that slmx made the checkpoints in it.

        Raises:
            SlmxError: The folder cannot be made, or a checkpoint in it holds a foreign file.
        """
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"cannot make the folder ({error.strerror}); {write_advice(error.errno)}"
            raise SlmxError(f"{self.path}: {why}") from error
        for folder in (self.best, *self.steps()):
            if folder.exists() and not folder.is_dir():
                raise SlmxError(f"{folder}: a file stands where a checkpoint should go; move it away")
            foreign = foreign_file(folder, CHECKPOINT_LISTING) if folder.is_dir() else None
            if foreign is not None:
                raise SlmxError(f"{folder / foreign}: was not made by slmx or was changed since; move it away")

    def steps(self) -> list[Path]:
        """Returns the numbered checkpoints, oldest first."""
        return numbered_checkpoints(self.path)

    @property
    def last(self) -> Path | None:
        """The newest numbered checkpoint, or None."""
        return next(reversed(self.steps()), None)

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation so far."""
        return self.path / "best"

    @property
    def first(self) -> Path:
        """The checkpoint of step 0."""
        return self._step(0)

    def _step(self, step: int) -> Path:
        return self.path / f"step-{step:07d}"

    @contextmanager
    def new_step(self, step: int, keep_first: bool) -> Iterator[Path]:
        """Yields a folder that becomes `step-N` when the block ends. Checkpoints that are too old are deleted then."""
        with atomic_folder(self._step(step), CHECKPOINT_LISTING, replace=True) as folder:
            yield folder
        self.rotate(keep_first)

    def rotate(self, keep_first: bool) -> None:
        """Deletes the checkpoints that are too old, and none that cannot be deleted."""
        for old in self.steps()[:-KEPT_CHECKPOINTS]:
            if keep_first and old == self.first:
                continue
            with suppress(OSError, SlmxError):
                remove_folder(old, CHECKPOINT_LISTING)

    @contextmanager
    def new_best(self) -> Iterator[Path]:
        """Yields a folder that replaces `best` when the block ends."""
        with atomic_folder(self.best, CHECKPOINT_LISTING, replace=True) as folder:
            yield folder

    def load_last(self) -> Checkpoint:
        """Loads the newest checkpoint.

        Raises:
            SlmxError: There is none, it or the state of the optimizer is damaged, or a weight is NaN or infinite.
        """
        last = self.last
        if last is None:
            raise self._nothing_to_resume()
        try:
            checkpoint = load_checkpoint(last)
            state, listed = last / OPTIMIZER_FILE, CHECKPOINT_LISTING.hashes(last).get(OPTIMIZER_FILE)
            if listed is not None and state.is_file():
                check_file(state, listed, CHECKPOINT_LISTING.file)
        except SlmxError as error:
            if not (last / CHECKPOINT_LISTING.file).is_file():
                raise SlmxError(f"{last}: no checkpoint; {self.way_back()}") from error
            raise SlmxError(f"{error}, or {self.way_back()}") from error
        return checkpoint

    def unfinished(self) -> str:
        """Returns how far a run that can be resumed is, and the command that resumes it; "" for another folder."""
        if self.last is None or (self.path / SUMMARY_FILE).is_file():
            return ""
        try:
            record = Fields(read_json(self.last / RECORD_FILE, MAX_RECORD_BYTES, MAX_RECORD_DEPTH))
            done, steps = record.integer("steps_done"), record.object("plan").integer("steps")
        except (OSError, ValueError):
            return ""
        command = f"slmx train --resume --out {shlex.quote(str(self.path))}"
        return f"the run is unfinished, at step {done:,} of {steps:,}; {command} continues it"

    def way_back(self) -> str:
        """Returns what to do if the newest checkpoint cannot be resumed from."""
        names = [path.name for path in self.steps()]
        if len(names) < 2:
            return "begin a new run with another --out"
        return f"delete {names[-1]} to resume from {names[-2]}"

    def _nothing_to_resume(self) -> SlmxError:
        kind = find_kind(self.path)
        if kind in (Kind.MISSING, Kind.EMPTY):
            return SlmxError(f"{self.path}: no run to resume here; start it without --resume")
        if kind is Kind.RUN:
            return SlmxError(f"{self.path}: no step-N is left to resume from; start again with another --out")
        return wrong_kind(self.path, Kind.RUN)

    def dataset_path(self) -> str:
        """Returns where the data set of the run is, from `run.json`.

        Raises:
            SlmxError: The file or the data set cannot be read.
        """
        file = self.path / RUN_FILE
        try:
            data = Fields(read_json(file, MAX_RUN_BYTES)).text("data")
        except PermissionError as error:
            raise unreadable(file, error) from error
        except (OSError, ValueError):
            raise SlmxError(
                f"{file}: missing or damaged, so it does not say where the data set of the run is; give it with --text"
            ) from None
        try:
            found = is_dataset(data)
        except OSError:  # no file can have such a long name
            found = False
        if not found:
            raise SlmxError(f"{file}: says that the data set is {data}, but none is there; give it with --text")
        return data

    def remembered(self, settings: TrainSettings) -> TrainSettings:
        """Returns settings with precision, torch.compile, trackers and teachers of `run.json`, where none are given.

        Without a usable `run.json`, the precision is that of the newest checkpoint, and nothing else is known.

        Raises:
            SlmxError: It may not be read.
        """
        file = self.path / RUN_FILE
        try:
            values = read_json(file, MAX_RUN_BYTES)
        except PermissionError as error:
            raise unreadable(file, error) from error
        except (OSError, ValueError):
            values = None
        self.has_forgotten = not isinstance(values, dict)
        if not isinstance(values, dict):
            values = {"precision": self._last_precision()}
        precision, compile = values.get("precision"), values.get("compile")
        if settings.precision is None and isinstance(precision, str):
            settings = replace(settings, precision=precision)
        if settings.compile is None and isinstance(compile, bool):
            settings = replace(settings, compile=compile)
        trackers = values.get("track")
        if not settings.track and isinstance(trackers, list) and all(name in TRACKERS for name in trackers):
            settings = replace(settings, track=tuple(trackers))
        teachers = values.get("teachers")
        if not settings.teacher and isinstance(teachers, list) and all(isinstance(path, str) for path in teachers):
            settings = replace(settings, teacher=tuple(map(Path, teachers)))
        return settings

    def _last_precision(self) -> str | None:
        """Returns the precision of the newest checkpoint; None if it does not say one."""
        try:
            record = Fields(read_json((self.last or self.path) / RECORD_FILE, MAX_RECORD_BYTES, MAX_RECORD_DEPTH))
            return PRECISION_OF.get(record.text("precision"))
        except (OSError, ValueError):
            return None

    def remember(self, data: Path, settings: TrainSettings) -> None:
        """Writes to `run.json` what a resumed run needs: data set, teachers, trackers, precision, torch.compile."""
        values: dict[str, Any] = {"data": str(data.absolute())}
        if settings.teacher:
            values["teachers"] = [str(path.absolute()) for path in settings.teacher]
        if settings.track:
            values["track"] = list(settings.track)
        chosen = {"precision": settings.precision, "compile": settings.compile}
        values |= {name: value for name, value in chosen.items() if value is not None}
        write_file(self.path / RUN_FILE, json.dumps(values, indent=1).encode() + b"\n")

    def forget_start(self) -> None:
        """Removes the checkpoint of step 0, so that a run that could not begin leaves the folder free."""
        remove_folder(self.first, CHECKPOINT_LISTING)

    def log(self, record: Mapping[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        path = self.path / METRICS_FILE
        with write_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """Returns the lines of `metrics.jsonl` that hold a step and finite numbers. Other lines are left out.

        A line can be incomplete after a kill or a full disk, and a user can edit the file.
        """
        file = self.path / METRICS_FILE
        records = []
        for line in file.read_bytes().splitlines() if file.is_file() else ():
            try:
                parsed: Any = parse_json(line)
                fields = Fields(parsed)
                fields.integer("step")
                for name in fields:
                    fields.number(name)
                records.append(parsed)
            except ValueError:
                continue
        return records

    def forget_after(self, step: int) -> None:
        """Removes the metrics of the steps after `step`, which a resumed run does again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_file(self.path / METRICS_FILE, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def write_samples(self, step: int, stories: list[str]) -> None:
        """Writes the stories that were sampled at a step to `samples/step-N.txt`."""
        text = "\n\n---\n\n".join(stories)
        write_file(self.path / "samples" / f"step-{step:07d}.txt", f"{text}\n".encode())
