"""Bundles and graphs for several test modules, each made once per run, and the command in this process."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import onnx
import pytest
import torch

import export.checks.gates
import export.exporter
from export.checks.float_model import FloatModel
from export.checks.greedy import greedy_tokens
from export.checks.parity import open_forward, parity, same_greedy_tokens
from export.exporter import export_bundle
from export.formats.fused import export_onnx
from export.settings import ExportSettings
from runtimes.bundle.manifest import digest_of
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.checkpoint_config import CONFIG_FILE
from slm.cli import main
from slm.folder_kind import PRETRAINED
from slm.model import GPT, generate_greedy
from slm.presets import GPTConfig, get_preset
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests.error_lines import said
from tests.shared import made_once

CHECKED_TOKENS = 512
PARITY_LIMIT = 1e-4
_home = tempfile.TemporaryDirectory(prefix="slmx-tests-")


def folder(name: str) -> Path:
    """A new folder that is deleted when the tests end."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_home.name))


@contextmanager
def brief_checks() -> Iterator[None]:
    """Inside the block, exports and verifications read few tokens."""
    brief = functools.partial(FloatModel, max_tokens=CHECKED_TOKENS)
    with (
        mock.patch.object(export.exporter, "FloatModel", brief),
        mock.patch.object(export.checks.gates, "FloatModel", brief),
    ):
        yield


def onnx_parity(model: GPT, path: Path) -> float:
    """Returns the largest logit difference between an fp32 graph and PyTorch; infinite if greedy tokens differ."""
    forward = open_forward("fp32", path, model.config)
    session = Session.open(path, model.config)
    same = same_greedy_tokens(
        model.config, functools.partial(greedy_tokens, session), functools.partial(generate_greedy, model)
    )
    return parity(model, forward, chunked_batches=False) if same else float("inf")


def _export_once(name: str, checkpoint: Path, variants: Sequence[str]) -> Path:
    def export_to(out: Path) -> None:
        with brief_checks():
            export_bundle(ExportSettings("nano", out, checkpoint, tuple(variants)), lambda line: None)

    return made_once(f"{name}-{sha256_of(checkpoint / CONFIG_FILE)[:16]}", export_to)


@functools.cache
def tiny_bundle(checkpoint: Path) -> Path:
    """The bundle of a checkpoint, with fp32 and int8. Tests must not change it."""
    return _export_once("bundle", checkpoint, ("fp32", "int8"))


@functools.cache
def shipped_bundle() -> Path:
    """The shipped nano, with fp32 and int8. Tests must not change it."""
    return _export_once("bundle", PRETRAINED / "nano", ("fp32", "int8"))


@functools.cache
def tiny_bundle_of_all(checkpoint: Path) -> Path:
    """The bundle of a checkpoint with every variant. Tests must not change it."""
    return _export_once("bundle-of-all", checkpoint, tuple(VARIANTS))


def copy_of(bundle: Path, target: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle, target))


def with_torchscript(bundle: Path, target: Path, alone: bool = False) -> Path:
    """A copy of a bundle that lists torchscript too, or nothing else. Its file is missing."""
    copy = copy_of(bundle, target)
    manifest = json.loads((copy / MANIFEST_FILE).read_text("utf-8"))
    files, variants, file = manifest["files"], manifest["variants"], VARIANTS["torchscript"].file
    files[file] = files[VARIANTS["int8"].file]
    torchscript = {"torchscript": {**variants["int8"], "file": file}}
    if alone:
        edit_manifest(copy, files=files, variants=torchscript, default="torchscript")
    else:
        edit_manifest(copy, files=files, variants=variants | torchscript)
    return copy


def session(bundle: Path, variant: str = "fp32") -> Session:
    """A session of one variant."""
    opened = Bundle.open(bundle)
    return Session.open(opened.model_path(variant), opened.config)


def random_model(config: GPTConfig) -> GPT:
    """A GPT in which every weight is random, including biases and norms, so that a missing weight is noticed."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@functools.cache
def nano_graph() -> tuple[GPT, Path]:
    """A model of nano's shape and its fp32 graph."""
    model = random_model(get_preset("nano").config)
    path = folder("nano") / "model.onnx"
    export_onnx(model, path)
    return model, path


@functools.cache
def small_graph() -> tuple[GPT, Path]:
    """A model that is small enough to be quantized and measured many times, and its fp32 graph."""
    model = random_model(GPTConfig(block_size=48, vocab_size=300, n_layer=2, n_head=2, n_embd=32))
    path = folder("small") / "model.onnx"
    export_onnx(model, path)
    return model, path


def initializers(path: Path) -> dict[str, onnx.TensorProto]:
    """Stored tensors of a graph by name."""
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


def snapshot(root: Path) -> dict[str, str]:
    """The hash of every file below a folder, including hidden files."""
    return {p.relative_to(root).as_posix(): sha256_of(p) for p in sorted(root.rglob("*")) if p.is_file()}


def edit_manifest(bundle: Path, **changes: object) -> None:
    """Replaces top-level entries of a manifest, with a new digest, as an attacker would."""
    path = bundle / MANIFEST_FILE
    values = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps(values | {"digest": digest_of(values)}), "utf-8")


def list_again(bundle: Path, name: str) -> None:
    """Lists the current size and hash of a changed file in the manifest, as an attacker would."""
    files = json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))["files"]
    files[name]["sha256"], files[name]["bytes"] = sha256_of(bundle / name), (bundle / name).stat().st_size
    edit_manifest(bundle, files=files)


@dataclass(frozen=True)
class Ran:
    """The output of a command that ran in this process, and its exit code."""

    code: int
    stdout: str
    stderr: str


class Slmx:
    """Runs `slmx` in this process, because the imports of a new process would take seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *args: str | Path) -> Ran:
        self._monkeypatch.setattr("sys.argv", ["slmx", *map(str, args)])
        self._capfd.readouterr()
        if accelerate := sys.modules.get("accelerate.state"):
            # It keeps the precision of an earlier command for a whole process.
            accelerate.AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capfd.readouterr()
        code = exit_.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    def refuses(self, *args: str | Path, code: int = 1) -> str:
        """Runs a command that must fail with one line on stderr and nothing on stdout; returns that line."""
        ran = self(*args)
        assert ran.code == code
        assert ran.stdout == ""
        talk, _, line = ran.stderr.rstrip("\n").rpartition("\n")
        stages = tuple(f"{stage}:" for stage in (*VARIANTS, "files", "float model"))
        assert not [told for told in talk.splitlines() if not told.startswith(stages)]
        return said(line, code)

    def refuses_unchanged(self, *args: str | Path, code: int = 1) -> str:
        """As `refuses`, for a command that must leave every file and folder below the working folder as it was."""
        before, folders = snapshot(Path.cwd()), sorted(path for path in Path.cwd().rglob("*") if path.is_dir())
        line = self.refuses(*args, code=code)
        assert snapshot(Path.cwd()) == before
        assert sorted(path for path in Path.cwd().rglob("*") if path.is_dir()) == folders
        return line


@pytest.fixture
def slmx(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Slmx:
    """The command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Slmx(monkeypatch, capfd)
