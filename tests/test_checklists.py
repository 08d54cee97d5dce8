"""The checklists of CONTRIBUTING.md are complete: a variant, a peer and a preset that are added so work everywhere.

The additions are made in a copy of the packages, in the files that CONTRIBUTING.md names and in no other.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("slm", "export", "runtimes", "benchmarks")
LARGE = ("slm/pretrained", "runtimes/bundles", "runtimes/stories_small", "runtimes/web/app")
VARIANT = """    Variant(
        name="twin",
        file="onnx/model_twin.onnx",
        what="a copy of the float32 graph",
        runner="onnxruntime",
        is_float=True,
        independent_rows=True,
        shared_cache=True,
        preference=9,
        gate=Gate(parity=1e-4),
    ),
)
# The variants by name"""
FORMAT = '''"""Stores the graph a second time."""

import shutil
from pathlib import Path


def store_twin(source: Path, target: Path) -> None:
    """Copies a graph."""
    shutil.copyfile(source, target)
'''
METHOD = """    def _twin(self) -> VariantEntry:
        store_twin(self.paths["fp32"], self.paths["twin"])
        return self._entry("twin", self._check("twin"))

    def _pt2("""
PEER = '''"""A runtime of its own, which is PyTorch without a cache."""

import shutil

import torch

from benchmarks.peers import run_steps
from slm.checkpoint import load_checkpoint


class Other:
    """The model."""

    def __init__(self, folder):
        self.model = load_checkpoint(folder).model.eval()

    @torch.inference_mode()
    def greedy(self, prompt, new_tokens):
        ids = list(prompt)

        def step(last):
            ids.extend(last)
            return [int(self.model(torch.tensor([ids]))[0, -1].argmax())]

        return run_steps(lambda: step([]), step, new_tokens)


def prepare(checkpoint, bundle, folder):
    """Writes what it opens."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)


def open_peer(folder, threads):
    """Opens it."""
    return Other(folder)
'''
KIND = """_ALL = (
    _kind("Other", "other", modules=("torch",), install="pip install torch", weights=("model.safetensors",)),"""
PRESET = """_ALL = (
    Preset("pico", GPTConfig(64, 400, 1, 2, 32), learning_rate=5e-3, batch_size=8),"""
# For each file: what stands there, and what stands there after the addition.
CHANGES = {
    "runtimes/bundle/variants.py": [(")\n# The variants by name", VARIANT)],
    "export/exporter.py": [
        ('            "pt2": self._pt2,\n', '            "pt2": self._pt2,\n            "twin": self._twin,\n'),
        ("    def _pt2(", METHOD),
        (
            "from export.formats.torch_files",
            "from export.formats.twin import store_twin\nfrom export.formats.torch_files",
        ),
    ],
    "export/commands.py": [
        (
            "    everything: Annotated[",
            '    twin: Annotated[bool, _add("--twin", "a copy")] = False,\n    everything: Annotated[',
        ),
        ('        "pt2": pt2,\n', '        "pt2": pt2,\n        "twin": twin,\n'),
    ],
    "benchmarks/peers/registry.py": [("_ALL = (", KIND)],
    "benchmarks/report/families.py": [
        ("PEER_FAMILIES = (\n", 'PEER_FAMILIES = (\n    Family("Other", Colour("#c24f00", "#f28e3c")),\n'),
        ("SAME_WEIGHTS = {\n", 'SAME_WEIGHTS = {\n    "Other": "fp32",\n'),
    ],
    "slm/presets.py": [("_ALL = (", PRESET)],
}
ADDED = {"export/formats/twin.py": FORMAT, "benchmarks/peers/other.py": PEER}
# The commands run in one process, because the imports of each would take seconds.
DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.report.families import family_of, is_ours
from benchmarks.run import bench
from benchmarks.run.progress import Meter
from slm.cli import main
from tests import bundles
from tests.benchmarks.run.brief import brief

def slmx(*arguments):
    sys.argv = ["slmx", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)

corpus = sys.argv[1]
slmx("presets")
slmx("train", "--preset", "pico", "--text", corpus, "--out", "runs/pico", "--steps", "2", "--no-compile")
with bundles.brief_checks():
    slmx("export", "--checkpoint", "runs/pico", "--twin")
slmx("info", "bundles/pico")
slmx("verify", "bundles/pico")
slmx("generate", "Once", "--bundle", "bundles/pico", "--variant", "twin", "--max-tokens", "3")
settings = replace(brief(Path("bench"), Path("bundles/pico"), "twin"), peers=("Other",), quick=True)
bench.busy_now, bench.read_bandwidth = lambda: None, lambda threads: 1e9
with Meter() as meter:
    run = bench.Bench(settings, meter)
    run.run()
results = [result for result in run.report().results if result.case.batch == 1]
found = {result.case.runner: (result.status, result.agreement) for result in results}
assert found == {"twin": ("measured", 1), "Other": ("measured", 1)}, found
assert is_ours("twin") and family_of("Other").name == "Other"
"""


def test_the_checklists_name_the_files_that_change() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(
        re.findall(r"`((?:slm|export|runtimes|benchmarks)/[\w/]+(?:\.py)?)`", text.partition("## Add a variant")[2])
    )
    assert set(CHANGES) <= named
    assert {str(Path(name).parent) for name in ADDED} <= named


def left_out(folder: str, names: list[str]) -> list[str]:
    """The names in a folder that are not copied."""
    large = [ROOT / name for name in LARGE]
    return [name for name in names if name == "__pycache__" or Path(folder) / name in large]


@pytest.mark.heavy
@pytest.mark.slow
def test_a_variant_a_peer_and_a_preset_are_added_by_the_checklists(corpus_file: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=left_out)
    for name in (*LARGE, "tests"):
        (tree / name).symlink_to(ROOT / name)
    for name, changes in CHANGES.items():
        text = (tree / name).read_text("utf-8")
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (tree / name).write_text(text, "utf-8")
    for name, text in ADDED.items():
        (tree / name).write_text(text, "utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, corpus_file],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert re.search(r"^pico +64 +400 ", ran.stdout, re.MULTILINE)
    assert "twin: opens, with the shape that the manifest lists" in ran.stdout
