"""What is measured: a float model, its checkpoint and its bundle, from a preset or from a bundle as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers import PeerKind
from benchmarks.run.runners import TORCH_SIDES
from export.checks.gates import PACKAGES
from export.exporter import ExportSettings, export_bundle
from export.formats.graph import read_weights
from runtimes.bundle.store import MANIFEST_FILE, VARIANT_FILES, Bundle
from slm.atomic import atomic_folder
from slm.checkpoint import PRETRAINED, WEIGHTS_FILE, Checkpoint, load_checkpoint, save_checkpoint
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.presets import GPTConfig, get_preset
from slm.tokenizer import load_merges
from slm.untrained import untrained_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FLOAT_BYTES = 4
# Sides whose weights are read from memory as float32: fp16 widens its weights when it is opened.
FLOAT_WEIGHTS = (*TORCH_SIDES, "torchscript", "pt2", "fp16")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A model under a name of its own; `work` is where what it needs is kept between runs."""

    name: str
    checkpoint: Checkpoint
    bundle: Bundle
    work: Path

    @property
    def config(self) -> GPTConfig:
        """Its shape."""
        return self.bundle.config

    @property
    def trained(self) -> bool:
        """Whether its weights were trained."""
        return not self.checkpoint.record.get("untrained", False)

    @property
    def training_seconds(self) -> float | None:
        """How long its training took, if the checkpoint says so."""
        seconds = self.checkpoint.record.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    def path(self, side: str) -> Path:
        """What a side of ours opens: the checkpoint for PyTorch, else the variant's file."""
        if side in TORCH_SIDES:
            return self.checkpoint.folder
        return self.bundle.folder / str(self.bundle.manifest["variants"][side]["file"])

    def disk_bytes(self, side: str) -> int:
        """Size of the side's weights on disk."""
        path = self.path(side)
        return (path / WEIGHTS_FILE if path.is_dir() else path).stat().st_size

    def weight_bytes(self, side: str) -> int:
        """Bytes of weights that a step reads, roughly: all but the table of positions, of which it takes one row."""
        positions = self.config.block_size * self.config.n_embd
        if side in FLOAT_WEIGHTS:
            return FLOAT_BYTES * (self.config.parameters - positions)
        return self.disk_bytes(side) - FLOAT_BYTES * positions

    def peer_files(self, peer: PeerKind) -> Path:
        """The folder of what a peer opens, written the first time, by a process of its own; SlmxError if it cannot."""
        folder = self.work / "peers" / peer.name.replace(" ", "-")
        if not folder.is_dir():
            with atomic_folder(folder) as fresh:
                places = (self.checkpoint.folder, self.bundle.folder, fresh)
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.studies.prepare_peer",
                    peer.name,
                    *map(str, map(Path.absolute, places)),
                ]
                ran = subprocess.run(command, env=worker_environment(), capture_output=True, text=True, check=False)
                if ran.returncode:
                    lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
                    raise SlmxError(f"cannot prepare its files: {lines[-1]}")
        return folder


def worker_environment(**added: str) -> dict[str, str]:
    """The environment of a process that imports the packages of this one, wherever they are."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **added}


def subject_of_preset(preset: str, variants: Iterable[str], work: Path, say: Say) -> Subject:
    """A preset's model: the checkpoint that ships, else random weights; exports what is missing in `work`.

    SlmxError for an unknown preset, or weights that a variant's gate refuses.
    """
    get_preset(preset)
    shipped = PRETRAINED / preset
    trained = shipped.is_dir()
    home = work / (f"{preset}-{sha256_of(shipped / WEIGHTS_FILE)[:12]}" if trained else f"{preset}-random")
    folder = shipped if trained else _random_weights(preset, home / "checkpoint")
    wanted, bundle = set(variants) or {"fp32"}, _known_bundle(home / "bundle")
    held: set[str] = set(bundle.manifest["variants"]) if bundle is not None else set()
    if bundle is None or not wanted <= held:
        settings = ExportSettings(
            preset,
            home / "bundle",
            shipped if trained else None,
            tuple(name for name in VARIANT_FILES if name in wanted | held),
            untrained=not trained,
            force=True,
        )
        export_bundle(settings, lambda line: say(f"{preset}: {line}"))
        shutil.rmtree(home / "peers", ignore_errors=True)
        bundle = Bundle.open(home / "bundle")
    return Subject(preset, load_checkpoint(folder), bundle, home)


def _random_weights(preset: str, folder: Path) -> Path:
    if not folder.is_dir():
        with atomic_folder(folder) as fresh:
            untrained_checkpoint(preset, fresh)
    return folder


def _known_bundle(folder: Path) -> Bundle | None:
    """A bundle of an earlier run, made with the versions installed now."""
    try:
        bundle = Bundle.open(folder)
    except SlmxError:
        return None
    made_with = bundle.manifest["versions"]
    return bundle if all(made_with.get(name) == version(name) for name in PACKAGES) else None


def subject_of_bundle(bundle: Bundle, name: str, work: Path) -> Subject:
    """A bundle as it is, and the float model that it was made from.

    That is the shipped checkpoint, random weights, or what its fp32 variant holds; SlmxError for a bundle of a model
    from elsewhere without fp32.
    """
    home = work / f"{bundle.manifest['preset']}-bundle-{sha256_of(bundle.folder / MANIFEST_FILE)[:12]}"
    return Subject(name, load_checkpoint(_float_model(bundle, home / "checkpoint")), bundle, home)


def _float_model(bundle: Bundle, folder: Path) -> Path:
    preset, made_from = str(bundle.manifest["preset"]), bundle.manifest["checkpoint"]
    shipped = PRETRAINED / preset
    if shipped.is_dir() and sha256_of(shipped / WEIGHTS_FILE) == made_from["sha256"]:
        return shipped
    if made_from["untrained"]:
        return _random_weights(preset, folder)
    if "fp32" not in bundle.manifest["variants"]:
        raise SlmxError(f"{bundle.folder}: no fp32 variant, which the others are held against; export it again with it")
    if not folder.is_dir():
        with atomic_folder(folder) as fresh:
            model = read_weights(bundle.model_path("fp32"), bundle.config)
            save_checkpoint(fresh, preset, model, bundle.tokenizer(), load_merges(bundle.folder), {})
    return folder


def subject_names(bundles: Sequence[Bundle], presets: Sequence[str]) -> list[str]:
    """A name for each bundle: its preset, or its folder where that name is taken."""
    names: list[str] = []
    for bundle in bundles:
        preset = str(bundle.manifest["preset"])
        taken = preset in presets or [other.manifest["preset"] for other in bundles].count(preset) > 1
        names.append(str(bundle.folder) if taken else preset)
    return names
