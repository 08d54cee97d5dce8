"""The web engine, run by node, gives the logits of Python for every architecture and every kind of graph."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.formats.blockwise import quantize_blockwise
from export.formats.fused import export_onnx
from export.formats.portable import export_portable
from export.formats.quantize import quantize_int8
from export.formats.recipes import RECIPES
from runtimes.bundle.store import Bundle
from runtimes.engine.session import Session
from slm.blocks import BLOCK_RECIPES
from slm.model import GPT
from slm.presets import GPTConfig
from tests import bundles
from tests.runtimes.web.vectors import greedy_story
from tests.shapes import ARCHITECTURES

NODE = shutil.which("node")
APP = Path(__file__).parents[3] / "runtimes/web/app"
READS = ([5, 90, 17, 44, 3, 260, 8], [5, 90, 17, 44, 1, 2], [5, 90], [5, 90, *range(30)])
STEPS = (11, 12, 200)
FLOAT = 1e-4  # of logits that lie a few units apart
ROUNDED = 0.1
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="needs node"),
    pytest.mark.skipif(not (APP / "node_modules").is_dir(), reason="needs the packages of the app: npm ci"),
]


def run_node(path: Path, cases: list[dict[str, Any]], test: str) -> None:
    """Runs a test of the app on cases that this process wrote."""
    path.write_text(json.dumps(cases), "utf-8")
    environment = os.environ | {"SLMX_WEB_CASES": str(path)}
    found = subprocess.run(
        [str(NODE), "test/run.mjs", test], cwd=APP, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"# pass {len(cases)}\n" in found.stdout, found.stdout


def case(name: str, model: Path, config: GPTConfig, limit: float, path: str = "zero-copy") -> dict[str, Any]:
    """Returns a graph with the logits that Python's session reads and steps to."""
    session = Session.open(model, config)
    rows = []
    for ids in READS:
        rows.append(session.read(ids).tolist())
        rows += [session.step(token).tolist() for token in STEPS]
    sequence = {"reads": READS, "steps": STEPS, "logits": rows}
    return {"name": name, "model": str(model), "shape": config.to_dict(), "limit": limit, "path": path, **sequence}


def written(folder: Path, name: str, model: GPT, write: Callable[[GPT, Path], None] = export_onnx) -> Path:
    """Writes a graph into a folder of its own."""
    path = folder / name.replace(" ", "-") / "model.onnx"
    path.parent.mkdir()
    write(model, path)
    return path


def test_logits_of_every_architecture(tmp_path: Path) -> None:
    cases = []
    for name, config in ARCHITECTURES.items():
        graph = written(tmp_path, name, bundles.random_model(config))
        cases.append(case(name, graph, config, FLOAT))
    config = ARCHITECTURES["gpt2"]
    portable = written(tmp_path, "portable", bundles.random_model(config), export_portable)
    cases.append(case("portable", portable, config, FLOAT, path="public API"))
    run_node(tmp_path / "cases.json", cases, "engine/graphs")


@pytest.mark.heavy
def test_logits_of_every_rounded_graph(tmp_path: Path) -> None:
    cases = []
    for architecture in ("gpt2", "llama with grouped heads"):
        config = ARCHITECTURES[architecture]
        graph = written(tmp_path, architecture, bundles.random_model(config))
        for int8 in RECIPES.values():
            target = graph.with_name(f"{int8.name}.onnx")
            quantize_int8(graph, target, int8)
            cases.append(case(f"{architecture} {int8.name}", target, config, ROUNDED))
        for name, recipe in BLOCK_RECIPES.items():
            target = graph.with_name(f"{name}.onnx")
            quantize_blockwise(graph, target, recipe, None)
            cases.append(case(f"{architecture} {name}", target, config, ROUNDED))
    run_node(tmp_path / "cases.json", cases, "engine/graphs")


def test_float_variants_of_the_shipped_nano_write_the_story_of_python(tmp_path: Path) -> None:
    bundle = bundles.shipped_bundle()
    cases = [{"folder": str(bundle), **greedy_story(bundle, "fp32")}]
    assert Bundle.open(bundle).config.block_size > len(cases[0]["ids"]) > 1
    run_node(tmp_path / "cases.json", cases, "engine/bundles")
