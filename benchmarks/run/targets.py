"""The targets of a run. A target is a model that is measured: its checkpoint and its bundle.

A target is made from a preset, or from a bundle that the user names.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.child import output_of, worker_environment
from benchmarks.peers import PeerKind
from benchmarks.report.fields import printable
from benchmarks.report.record import TORCH_RUNNERS
from export.checks.gates import PACKAGES
from export.exporter import export_bundle
from export.formats.graph import read_weights
from export.settings import ExportSettings
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.folder_kind import PRETRAINED
from slm.presets import PRESETS, GPTConfig, get_preset
from slm.storage.atomic import atomic_folder
from slm.storage.file_names import JSON_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of, sha256_of_bytes
from slm.tokenizers.tokenizer_json import parse_merges
from slm.untrained import checkpoint_of, random_checkpoint

FLOAT_BYTES = 4
PREPARE = (sys.executable, "-m", "benchmarks.peers.prepare")


@dataclass(frozen=True)
class Target:
    """A model that is measured.

    Attributes:
        name: Its name in the report, different for each target.
        checkpoint: The float model.
        bundle: Its variants.
        work: A folder for the files of the target that later runs reuse.
        trusted: Whether TorchScript and .pt2 files of the bundle may be read. Reading them can run code.
    """

    name: str
    checkpoint: Checkpoint
    bundle: Bundle
    work: Path
    trusted: bool

    @property
    def config(self) -> GPTConfig:
        """The shape of the model."""
        return self.bundle.config

    @property
    def trained(self) -> bool:
        """Whether the weights are trained."""
        return not self.checkpoint.record.get("untrained", False)

    @property
    def training_seconds(self) -> float | None:
        """The duration of the training and of those that it started from; None if the checkpoint records none."""
        known = list(_durations(self.checkpoint.record))
        return sum(known) if known else None

    def path(self, runner: str) -> Path:
        """Returns what a runner opens: the checkpoint for PyTorch, or the file or the archive of the variant."""
        if runner in TORCH_RUNNERS:
            return self.checkpoint.folder
        if self.bundle.is_archive:
            return self.bundle.path
        return self.bundle.path / self.bundle.manifest.variants[runner].file

    def disk_bytes(self, runner: str) -> int:
        """Returns the size of the runner's weights on disk."""
        if runner in TORCH_RUNNERS:
            return (self.checkpoint.folder / WEIGHTS_FILE).stat().st_size
        return self.bundle.manifest.files[self.bundle.manifest.variants[runner].file].bytes

    def weight_bytes(self, runner: str) -> int:
        """Returns the approximate bytes of weights that a step reads. It reads only one row of the position table."""
        positions = 0 if self.config.rope_theta else self.config.block_size * self.config.n_embd
        # fp16 converts its weights to float32 when it is opened.
        if runner in TORCH_RUNNERS or VARIANTS[runner].is_float:
            return FLOAT_BYTES * (self.config.parameters - positions)
        return self.disk_bytes(runner) - FLOAT_BYTES * positions

    def peer_folder(self, peer: PeerKind) -> Path:
        """Returns where the files of a peer are, also if there are none yet.

        The name has a hash of the versions that write them, so that files of other versions are not measured.
        """
        made_with = sha256_of_bytes(json.dumps({"slmx": version("slmx")} | peer.versions).encode())[:12]
        return self.work / "peers" / f"{peer.name.replace(' ', '-')}-{made_with}"

    def peer_files(self, peer: PeerKind) -> Path:
        """Returns the folder that a peer opens. If it is missing, a process writes it; SlmxError if that fails."""
        folder = self.peer_folder(peer)
        if not folder.is_dir():
            with atomic_folder(folder) as fresh:
                places = (self.checkpoint.folder, self.bundle.path, fresh)
                command = [*PREPARE, peer.name, *map(str, map(Path.absolute, places))]
                output_of(command, "preparing its files", env=worker_environment())
        return folder


def _durations(record: object) -> Iterator[float]:
    """Yields the seconds of a training, and of each training before it whose weights it continued with."""
    while isinstance(record, dict):
        seconds, origin = record.get("seconds"), record.get("init")
        if isinstance(seconds, int | float):
            yield float(seconds)
        record = origin.get("record") if isinstance(origin, dict) else None


def target_of_preset(preset: str, variants: Iterable[str], work: Path, log: Log) -> Target:
    """Makes the target of a preset: its shipped checkpoint, or random weights if none is shipped.

    Args:
        preset: The name of the preset.
        variants: The variants to export. Files in `work` from an earlier run are reused.
        work: A folder that is kept between runs.
        log: Called with lines about the progress.

    Raises:
        SlmxError: The preset is unknown, or a variant fails its check.
    """
    get_preset(preset)
    shipped = PRETRAINED / preset
    trained = shipped.is_dir()
    home = work / (f"{preset}-{sha256_of(shipped / WEIGHTS_FILE)[:12]}" if trained else f"{preset}-random")
    folder = checkpoint_of(preset, home / "checkpoint")
    wanted, bundle = set(variants) or {"fp32"}, _known_bundle(home / "bundle")
    held: set[str] = set(bundle.manifest.variants) if bundle is not None else set()
    if bundle is None or not wanted <= held:
        settings = ExportSettings(
            preset,
            home / "bundle",
            folder,
            tuple(name for name in VARIANTS if name in wanted | held),
            force=True,
        )
        export_bundle(settings, lambda line: log(f"{preset}: {line}"))
        shutil.rmtree(home / "peers", ignore_errors=True)
        bundle = Bundle.open(home / "bundle")
    return Target(preset, load_checkpoint(folder), bundle, home, trusted=True)


def _known_bundle(folder: Path) -> Bundle | None:
    """Returns the bundle of an earlier run; None if there is none, or if other package versions made it."""
    try:
        bundle = Bundle.open(folder)
        bundle.check_listed_files()
    except SlmxError:
        return None
    made_with = bundle.manifest.versions
    return bundle if all(made_with.get(name) == version(name) for name in PACKAGES) else None


def target_of_bundle(bundle: Bundle, name: str, work: Path, trusted: bool) -> Target:
    """Makes the target of a bundle, with the float model that the bundle was made from.

    The float model is the shipped checkpoint, random weights, or the weights of the fp32 variant.

    Args:
        bundle: The bundle.
        name: The name of the target.
        work: A folder that is kept between runs.
        trusted: Whether TorchScript and .pt2 files of the bundle may be read.

    Raises:
        SlmxError: None of these is the float model.
    """
    # No text of the manifest becomes part of a path, because the bundle may come from an untrusted source.
    home = work / f"bundle-{bundle.manifest_sha256[:12]}"
    return Target(name, load_checkpoint(_float_model(bundle, home / "checkpoint")), bundle, home, trusted)


def _float_model(bundle: Bundle, folder: Path) -> Path:
    preset, made_from = bundle.manifest.preset, bundle.manifest.checkpoint
    shipped = PRETRAINED / preset
    if preset in PRESETS and shipped.is_dir() and sha256_of(shipped / WEIGHTS_FILE) == made_from.sha256:
        return shipped
    if made_from.untrained:
        return random_checkpoint(preset, folder)
    if "fp32" not in bundle.manifest.variants:
        raise SlmxError(f"{bundle.path}: no fp32 variant to compare the others with; export it again with --fp32")
    if not folder.is_dir():
        with atomic_folder(folder) as fresh:
            model = read_weights(bundle.model_file("fp32"), bundle.config)
            merges = parse_merges(bundle.read(JSON_FILE), bundle.store.location(JSON_FILE))
            save_checkpoint(fresh, preset, model, bundle.tokenizer(), merges, {})
    return folder


def target_names(bundles: Sequence[Bundle], presets: Sequence[str]) -> list[str]:
    """Returns a name for each bundle: its own, or its folder if another target has that name."""
    titles = [bundle.manifest.title for bundle in bundles]
    taken = [title in presets or titles.count(title) > 1 for title in titles]
    named = zip(bundles, titles, taken, strict=True)
    return [printable(str(bundle.path) if is_taken else title) for bundle, title, is_taken in named]
