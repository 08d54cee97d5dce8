"""Shapes: their counts are computed, and are those of the real model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.errors import SlmxError
from slm.model import GPT
from slm.presets import PRESETS, GPTConfig, get_preset
from tests.conftest import run_slmx

COUNTS = {"nano": 1_850_112, "micro": 4_254_720, "small": 10_545_664, "medium": 33_975_552}


def test_the_seven_presets_in_order() -> None:
    assert list(PRESETS) == ["nano", "micro", "small", "medium", "small-256", "medium-512", "large-1024"]


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_parameter_counts(name: str, count: int) -> None:
    assert get_preset(name).config.parameters == count


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 90), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_counts_are_those_of_the_torch_model(block: int, vocab: int, layers: int, heads: int, head_dim: int) -> None:
    config = GPTConfig(block, vocab, layers, heads, heads * head_dim)
    model = GPT(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    tables = model.wte.weight.numel() + model.wpe.weight.numel()
    assert config.parameters - tables == config.non_embedding_parameters


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(SlmxError, match=r"unknown preset 'tiny'.*nano, micro, small, medium, small-256"):
        get_preset("tiny")


@pytest.mark.parametrize("sizes", [(8, 8, 1, 3, 8), (0, 8, 1, 1, 8), (8, 8, 1, 1, -8)])
def test_impossible_shapes(sizes: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(SlmxError, match="model shape"):
        GPTConfig(*sizes)


@pytest.mark.parametrize("values", [{}, {"block_size": 8, "vocab_size": 8, "n_layer": 1, "n_head": 1}])
def test_a_shape_from_json_names_what_it_lacks(values: dict[str, int]) -> None:
    with pytest.raises(SlmxError, match=r"here.json: the model shape lacks .*n_embd"):
        GPTConfig.from_dict(values, "here.json")


def test_presets_command_prints_the_real_counts(tmp_path: Path) -> None:
    ran = run_slmx("presets", cwd=tmp_path)
    assert ran.returncode == 0
    for name, preset in PRESETS.items():
        (line,) = [line for line in ran.stdout.splitlines() if line.startswith(f"{name} ")]
        assert f"{preset.config.parameters:,}" in line


@pytest.mark.parametrize("args", [["--help"], ["presets"], ["generate", "--help"]])
def test_quick_commands_import_nothing_heavy(args: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'onnxruntime', 'numpy'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['slmx', *{args!r}]\n"
        "from slm.cli import main\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_unknown_preset_is_one_line(corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("train", "--preset", "huge", "--data", corpus_file, "--out", tmp_path / "run", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("slmx: unknown preset 'huge'")
    assert not (tmp_path / "run").exists()
