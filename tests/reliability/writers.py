"""The commands of slmx that write: how to run each in a folder of its own, and whether what it left is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report.write import REPORT_LISTING
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.manifest import BUNDLE_LISTING
from runtimes.web.site import SITE_LISTING
from slm.data.dataset import DATA_SET_LISTING
from slm.folder_kind import CHECKPOINT_LISTING
from slm.storage.hashing import sha256_of
from slm.storage.listing import Listing
from slm.storage.ownership import foreign_file
from tests.reliability.forks import Job

NANO, MICRO = SHIPPED_BUNDLES / "nano", SHIPPED_BUNDLES / "micro"
# What lies beside the output, and must stay.
NEIGHBOURS = {"notes.txt": "mine", ".slmx-work-theirs/f": "mine", "mine/.slmx": "mine", ".out": "mine"}
OLD, NEW, NONE = "old", "new", "nothing"
Hashes = dict[str, str]


class Broken(Exception):
    """What a command left is neither what was there before nor what it makes."""


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        name: Its name in the output.
        argv: The command, in a folder of its own. Its output is below that folder.
        state: Whether the folder holds the old output, the new one, or none; Broken if it is something else.
        before: Commands that make the inputs and the old output.
        again: The command after a kill, if it is another one: it gets the folder and `argv`.
        env: Variables of its environment. In each, {} is the folder.
        modules: What it imports that takes long.
        locked: The output that one command at a time may write; "" for files that the last one to end replaces.
        waits: Whether it waits for the other writer.
        reads: The folder that is read, if it is below the working folder.
    """

    name: str
    argv: tuple[str, ...]
    state: Callable[[Path, Hashes, Path], str]
    before: tuple[tuple[str, ...], ...] = ()
    again: Callable[[Path, tuple[str, ...]], tuple[str, ...]] = lambda _, argv: argv
    env: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    locked: str = ""
    waits: bool = False
    reads: str = ""

    def job(self, folder: Path, argv: tuple[str, ...] | None = None) -> Job:
        """The command in a folder."""
        env = {name: value.replace("{}", str(folder)) for name, value in self.env.items()}
        return Job(self.argv if argv is None else argv, folder, env=env)


def hashes(folder: Path) -> Hashes:
    """The SHA-256 of every file below a folder, and an empty one of every folder."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) if path.is_file() else "" for path in folder.rglob("*")
    }


def _whole(folder: Path, listing: Listing) -> None:
    listed = listing.hashes(folder)
    if not listed:
        raise Broken(f"{folder.name} has no listing")
    for name, digest in listed.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise Broken(f"{folder.name}/{name} is missing or damaged")
    if foreign := foreign_file(folder, listing):
        raise Broken(f"{folder.name}/{foreign} is not listed")


def _folder(name: str, listing: Listing) -> Callable[[Path, Hashes, Path], str]:
    def state(folder: Path, old: Hashes, _: Path) -> str:
        before = {path: digest for path, digest in old.items() if path.startswith(f"{name}/") and digest}
        now = {f"{name}/{path}": digest for path, digest in hashes(folder / name).items() if digest}
        if now == before:
            return OLD if before else NONE
        _whole(folder / name, listing)
        return NEW

    return state


def _file(*names: str, check: Callable[[Path], object] | None = None) -> Callable[[Path, Hashes, Path], str]:
    """Files that are each as before or as a finished run leaves them; with `check`, or pass it."""

    def state(folder: Path, old: Hashes, after: Path) -> str:
        found = []
        for name in names:
            path = folder / name
            if not path.exists():
                if name in old:
                    raise Broken(f"{name} is missing")
                found.append(NONE)
            elif sha256_of(path) == old.get(name):
                found.append(OLD)
            else:
                if check is not None:
                    check(path)
                elif path.read_bytes() != (after / name).read_bytes():
                    raise Broken(f"{name} is neither the old nor the new one")
                found.append(NEW)
        return NEW if NEW in found else found[0]

    return state


def _run_folder(folder: Path, _: Hashes, __: Path) -> str:
    run = folder / "run"
    steps = sorted(run.glob("step-*"))
    for checkpoint in (*steps, run / "best"):
        if checkpoint.exists():
            _whole(checkpoint, CHECKPOINT_LISTING)
    if (run / "run.json").exists():
        json.loads((run / "run.json").read_bytes())
    return NEW if steps else NONE


def _resume(folder: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    return ("train", "--resume", "--out", "run") if any((folder / "run").glob("step-*")) else argv


def _rows(folder: Path, _: Hashes, after: Path) -> str:
    """The rows of the lines in order; a text of int8 depends on the texts that are written with it."""
    path = folder / "out.jsonl"
    if not path.exists():
        return NONE
    *rows, torn = path.read_bytes().split(b"\n")
    expected = (after / "out.jsonl").read_bytes().splitlines()
    for row, other in zip(rows, expected, strict=False):
        one, two = json.loads(row), json.loads(other)
        if any(one[name] != two[name] for name in ("line", "index", "prompt", "seed")):
            raise Broken(f"out.jsonl has {row[:60]!r} in the place of line {two['line']}")
    if len(rows) == len(expected) and not torn:
        return NEW
    if len(rows) >= len(expected):
        raise Broken("out.jsonl has too many rows")
    return NONE


def _keys(folder: Path, _: Hashes, __: Path) -> str:
    from runtimes.pack.keys import key_id, read_private_key, read_public_key

    private, public = folder / "mine.key", folder / "mine.pub"
    if private.exists() and private.stat().st_mode & 0o077:
        raise Broken("others may read mine.key")
    ids = []
    if private.exists():
        ids.append(key_id(read_private_key(private).public_key()))
    if public.exists():
        ids.append(key_id(read_public_key(public)))
        if not private.exists():
            raise Broken("mine.pub has no mine.key")
    if len(set(ids)) > 1:
        raise Broken("mine.pub is not of mine.key")
    return NEW if ids else NONE


def _json_file(path: Path) -> None:
    json.loads(path.read_bytes())


def _signature(path: Path) -> None:
    from runtimes.pack.envelope import read_signature

    if read_signature(path) is None:
        raise Broken(f"{path.name} is no signature")


def _evaluation(path: Path) -> None:
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        json.loads(text)
    elif not text.endswith("</html>\n" if path.suffix == ".html" else "\n"):
        raise Broken(f"{path.name} is cut off")


def _pins(folder: Path, old: Hashes, after: Path) -> str:
    name = "config/slmx/variants.json"
    if not (folder / name).exists():
        raise Broken("the choices for other bundles are lost")
    return _file(name)(folder, old, after)


_SEEDED = ("--seed", "1", "--max-tokens", "12", "--temperature", "0.5")
_ONNX = ("runtimes.engine.generator", "runtimes.generate.output", "runtimes.pack.open_signed")
BRIEF = "tests.reliability.brief"  # a writer that imports it has a data set and a run as inputs
_TRAINING = (
    "slm.data.prepare",
    "slm.train.loop",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    BRIEF,
)
_TINY = ("--no-compile", "--precision", "fp32", "--steps", "6", "--eval-every", "3")
WRITERS = (
    Writer(
        "generate --save",
        ("generate", "One day", "--save", "story.txt", *_SEEDED),
        _file("story.txt"),
        modules=_ONNX,
    ),
    Writer(
        "generate --prompts",
        ("generate", "--prompts", "in.txt", "--out", "out.jsonl", *_SEEDED),
        _rows,
        (("copy", "IN/prompts.txt", "in.txt"),),
        modules=(*_ONNX, "runtimes.prompts_file.runner"),
        locked="out.jsonl",
    ),
    Writer("keygen", ("keygen", "--out", "mine"), _keys, modules=("runtimes.pack.keys",)),
    Writer(
        "sign",
        ("sign", "bundle", "--key", "mine.key"),
        _file("bundle/model.sig", check=_signature),
        (("copy", str(NANO), "bundle"), ("keygen", "--out", "mine"), ("sign", "bundle", "--key", "mine.key")),
        modules=("runtimes.pack.signature",),
        reads="bundle",
    ),
    Writer(
        "pack",
        ("pack", "bundle", "--out", "out.slmx", "--force"),
        _file("out.slmx"),
        (("copy", str(NANO), "bundle"), ("pack", str(MICRO), "--out", "out.slmx")),
        modules=("runtimes.pack.packing",),
        reads="bundle",
    ),
    Writer(
        "unpack",
        ("unpack", "in.slmx", "--out", "bundle", "--force"),
        _folder("bundle", BUNDLE_LISTING),
        (("pack", str(NANO), "--out", "in.slmx"), ("copy", str(MICRO), "bundle")),
        modules=("runtimes.pack.packing",),
        locked="bundle",
    ),
    Writer(
        "verify",
        ("verify", "bundle"),
        _file("bundle/verification.json", check=_json_file),
        (("copy", str(NANO), "bundle"),),
        modules=("export.interop.registry", "runtimes.checks.verify"),
        reads="bundle",
    ),
    Writer(
        "doctor --pin",
        ("pin", str(NANO), "1"),
        _pins,
        (("pin", str(MICRO), "1"), ("pin", str(NANO), "2")),
        env={"XDG_CONFIG_HOME": "{}/config"},
        modules=("runtimes.bundle.pin",),
    ),
    Writer(
        "web",
        ("web", str(NANO), "--out", "site", "--force"),
        _folder("site", SITE_LISTING),
        (("web", str(MICRO), "--out", "site"),),
        modules=("runtimes.web.site", "runtimes.web.models", "runtimes.web.server"),
        locked="site",
    ),
    Writer(
        "prepare",
        ("prepare", "in.txt", "--out", "data", "--vocab-size", "300", "--force"),
        _folder("data", DATA_SET_LISTING),
        (
            ("copy", "IN/stories.txt", "in.txt"),
            ("prepare", "in.txt", "--out", "data", "--vocab-size", "300", "--licence", "MIT"),
        ),
        modules=_TRAINING,
        locked="data",
        waits=True,
    ),
    Writer(
        "train",
        ("train", "--text", "data", "--out", "run", "--preset", "tiny", *_TINY),
        _run_folder,
        (("copy", "IN/data", "data"),),
        again=_resume,
        modules=_TRAINING,
        locked="run",
        reads="data",
    ),
    Writer(
        "average",
        ("average", "run", "run/step-0000000", "--text", "data", "--out", "mean", "--force"),
        _folder("mean", CHECKPOINT_LISTING),
        (
            ("copy", "IN/data", "data"),
            ("copy", "IN/run", "run"),
            ("average", "run/step-0000000", "run", "--text", "data", "--out", "mean"),
        ),
        modules=(*_TRAINING, "slm.train.average"),
        locked="mean",
        reads="run",
    ),
    Writer(
        "import",
        ("import", "in.pt", "--tokenizer", "run", "--out", "imported", "--force"),
        _folder("imported", CHECKPOINT_LISTING),
        (
            ("copy", "IN/in.pt", "in.pt"),
            ("copy", "IN/run", "run"),
            ("import", "in.pt", "--tokenizer", "run", "--out", "imported", "--licence", "MIT"),
        ),
        modules=("slm.importers.importer", "slm.importers.pytorch_file", *_TRAINING),
        locked="imported",
    ),
    Writer(
        "export",
        ("export", "--checkpoint", "run", "--text", "in.txt", "--out", "bundle", "--int8", "--force"),
        _folder("bundle", BUNDLE_LISTING),
        (
            ("copy", "IN/stories.txt", "in.txt"),
            ("copy", "IN/run", "run"),
            ("export", "--checkpoint", "run", "--text", "in.txt", "--out", "bundle"),
        ),
        modules=("export.exporter", *_TRAINING),
        locked="bundle",
        reads="run",
    ),
    Writer(
        "evaluate",
        ("evaluate", str(NANO), "--text", "in.txt", "--max-tokens", "500", "--out", "figures"),
        _file(*(f"figures/evaluation.{ending}" for ending in ("json", "md", "html")), check=_evaluation),
        (("copy", "IN/stories.txt", "in.txt"),),
        modules=("benchmarks.evaluation.run", "benchmarks.evaluation.write", *_TRAINING, *_ONNX),
        locked="figures",
    ),
    Writer(
        "bench",
        ("write-report", "report", "fp32", "int8"),
        _folder("report", REPORT_LISTING),
        (("write-report", "report", "fp32"),),
        modules=("benchmarks.report.write", "tests.report_samples", "matplotlib.pyplot"),
        locked="report",
    ),
    Writer(
        "pull",
        ("pull", "someone/tales", "--out", "bundle"),
        _folder("bundle", BUNDLE_LISTING),
        env={"HF_HUB_DISABLE_XET": "1"},
        modules=("runtimes.hub.pull", "huggingface_hub"),
        locked="bundle",
        waits=True,
    ),
)
