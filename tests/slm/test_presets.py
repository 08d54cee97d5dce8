"""Shapes: the computed counts are equal to those of the real model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.folder_kind import PRETRAINED
from slm.model import GPT
from slm.presets import PRESETS, GPTConfig, as_architecture, get_preset
from tests.bundles import Slmx
from tests.conftest import run_slmx
from tests.shapes import ARCHITECTURES

SHAPES = {
    "nano": (256, 8000, 4, 4, 128),
    "micro": (256, 8000, 6, 6, 192),
    "small": (512, 16000, 8, 8, 256),
    "medium": (1024, 32000, 12, 12, 384),
    "small-256": (256, 8000, 6, 8, 256),
    "medium-512": (512, 16000, 12, 8, 512),
    "large-1024": (1024, 32000, 24, 16, 768),
}
COUNTS = {"nano": 1_850_112, "micro": 4_254_720, "small": 10_545_664, "medium": 33_975_552}


def test_the_seven_presets_in_order() -> None:
    assert [(name, tuple(preset.config.to_dict().values())) for name, preset in PRESETS.items()] == list(SHAPES.items())
    assert all(preset.name == name for name, preset in PRESETS.items())
    batches = {name: preset.batch_size for name, preset in PRESETS.items()}
    assert (batches["small-256"], batches["medium-512"], batches["large-1024"]) == (32, 16, 8)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_parameter_counts(name: str, count: int) -> None:
    assert get_preset(name).config.parameters == count


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 90), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_counts_are_those_of_the_torch_model(block: int, vocab: int, layers: int, heads: int, head_dim: int) -> None:
    config = GPTConfig(block, vocab, layers, heads, heads * head_dim)
    model = GPT(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    assert model.wpe is not None
    tables = model.wte.weight.numel() + model.wpe.weight.numel()
    assert config.parameters - tables == config.non_embedding_parameters == config.parameters - config.table_parameters


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_counts_of_every_architecture_are_those_of_the_torch_model(config: GPTConfig) -> None:
    model = GPT(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    blocks = sum(p.numel() for part in (model.h, model.ln_f) for p in part.parameters())
    assert blocks == config.non_embedding_parameters


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_a_shape_is_the_same_after_json(config: GPTConfig) -> None:
    stored = json.loads(json.dumps(config.to_dict()))
    assert GPTConfig.from_dict(stored, "x") == config
    assert len(GPTConfig(*SHAPES["nano"]).to_dict()) == 5


def test_a_value_that_is_the_default_makes_an_equal_shape() -> None:
    plain = get_preset("nano").config
    assert replace(plain, n_kv_head=4, head_size=32, n_inner=512, windows=(0, 256, 300, 0)) == plain
    assert replace(plain, windows=(0, 255, 0, 0)) != plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_kv_head": 3}, "3 heads of keys and values do not divide 4 heads"),
        ({"head_size": 7, "rope_theta": 1e4}, "rotary positions need an even number of channels per head, not 7"),
        ({"windows": (1, 2)}, "2 windows for 4 layers"),
        ({"windows": [1, 2, 3, "4"]}, "a window must be a whole number from 0 to 1099511627776, not '4'"),
        ({"windows": 5}, "windows must be a list of whole numbers, not 5"),
        ({"activation": "swish"}, "activation must be one of gelu_tanh, gelu, relu, silu, not 'swish'"),
        ({"norm": None}, "norm must be one of layernorm, rmsnorm, not None"),
        ({"gated": 1}, "gated must be one of false, true, not 1"),
        ({"norm_eps": -1.0}, "norm_eps must be a number from 0 to 1, not -1.0"),
        ({"rope_theta": float("nan")}, "rope_theta must be a number from 0 to 1e+12, not nan"),
        ({"n_inner": -1}, "n_inner must be a whole number from 0 to 1099511627776, not -1"),
    ],
)
def test_impossible_options_are_named(values: dict[str, Any], message: str) -> None:
    sizes = dict(zip(("block_size", "vocab_size", "n_layer", "n_head", "n_embd"), SHAPES["nano"], strict=True))
    with pytest.raises(SlmxError) as raised:
        GPTConfig.from_dict(sizes | values, "f.json")
    assert str(raised.value) == f"f.json: model shape: {message}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_llama_has_about_as_many_parameters(name: str) -> None:
    config = get_preset(name).config
    llama = as_architecture(config, "llama")
    assert llama.non_embedding_parameters == pytest.approx(config.non_embedding_parameters, rel=0.04)
    assert as_architecture(llama, "gpt2") == config
    with pytest.raises(UsageError, match="unknown architecture 'bert': choose one of gpt2, llama"):
        as_architecture(config, "bert")


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(SlmxError, match=r"unknown preset 'tiny'.*nano, micro, small, medium, small-256"):
        get_preset("tiny")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_head": 3}, "3 heads do not divide n_embd 8"),
        ({"block_size": 0}, "block_size must be a whole number from 1 to 1099511627776, not 0"),
        ({"n_embd": -8}, "n_embd must be a whole number from 1 to 1099511627776, not -8"),
        ({"vocab_size": 8.0}, "vocab_size must be a whole number from 1 to 1099511627776, not 8.0"),
        ({"n_layer": True}, "n_layer must be a whole number from 1 to 1099511627776, not True"),
        ({"n_layer": "2"}, "n_layer must be a whole number from 1 to 1099511627776, not '2'"),
        ({"n_layer": 10**4000}, f"n_layer must be a whole number from 1 to 1099511627776, not 1{'0' * 79}"),
    ],
)
def test_impossible_shapes(changed: dict[str, Any], said: str) -> None:
    sizes: dict[str, Any] = {"block_size": 8, "vocab_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
    assert GPTConfig.from_dict(sizes | {"more": 1}, "here.json") == GPTConfig(**sizes)
    with pytest.raises(SlmxError) as caught:
        GPTConfig(**sizes | changed)
    assert str(caught.value) == f"model shape: {said}"
    with pytest.raises(SlmxError) as caught:
        GPTConfig.from_dict(sizes | changed, "my é/here.json")
    assert str(caught.value) == f"my é/here.json: model shape: {said}"


@pytest.mark.parametrize("values", [{}, {"block_size": 8, "vocab_size": 8, "n_layer": 1, "n_head": 1}])
def test_a_shape_from_json_names_what_it_lacks(values: dict[str, int]) -> None:
    with pytest.raises(SlmxError, match=r"here.json: the model shape lacks .*n_embd"):
        GPTConfig.from_dict(values, "here.json")


@pytest.mark.parametrize("values", [None, 5, "block_size", []])
def test_a_shape_that_is_no_object_is_refused(values: object) -> None:
    with pytest.raises(SlmxError, match=r"here.json: the model shape is not an object"):
        GPTConfig.from_dict(values, "here.json")


def test_presets_command_prints_the_real_counts(tmp_path: Path) -> None:
    ran = run_slmx("presets", cwd=tmp_path)
    assert ran.returncode == 0
    for name, preset in PRESETS.items():
        (line,) = [line for line in ran.stdout.splitlines() if line.startswith(f"{name} ")]
        c = preset.config
        parameters = as_architecture(c, "llama").parameters
        cells = [name, *(f"{size:,}" for size in c.to_dict().values()), f"{parameters:,}"]
        assert len(line) <= 80
        if (PRETRAINED / name).is_dir():
            parameters = load_checkpoint(PRETRAINED / name).model.config.parameters
            cells += ["Llama", f"{parameters:,}"]
        assert line.split() == cells


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


@pytest.mark.slow
def test_unknown_preset_is_one_line(corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("train", "--preset", "huge", "--text", corpus_file, "--out", tmp_path / "run", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith("slmx train: --preset: unknown preset 'huge': choose one of nano, micro")
    assert not (tmp_path / "run").exists()


def test_without_the_checkpoints_the_command_tells_of_the_bundles(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.checks.commands.PRETRAINED", tmp_path)
    (line,) = [line for line in slmx("presets").stdout.splitlines() if line.startswith("micro ")]
    parameters = load_checkpoint(PRETRAINED / "micro").model.config.parameters
    assert line.endswith(f"  Llama {parameters:,} (bundle)")
    monkeypatch.setattr("runtimes.checks.commands.shipped_names", dict)
    assert "Llama" not in slmx("presets").stdout


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"shape": 5}', "\0"])
@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_damaged_model_that_ships_is_one_line(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    (tmp_path / "micro").mkdir()
    (tmp_path / "micro" / name).write_text(content)
    monkeypatch.setattr("runtimes.checks.commands.PRETRAINED", tmp_path)
    bundles = {} if name == "config.json" else {"micro": tmp_path / "micro"}
    monkeypatch.setattr("runtimes.checks.commands.shipped_names", lambda: bundles)
    ran = slmx("presets")
    assert ran.code == 1
    assert ran.stderr.startswith(f"slmx: {tmp_path / 'micro' / name}: ")
    assert ran.stderr.count("\n") == 1
