"""Models of transformers become checkpoints that compute the same, or are refused with one line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer
from torch import nn

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.importers.foreign import write_checkpoint
from slm.importers.hugging_face import _licence, read_hugging_face
from slm.model import KVCache
from tests.bundles import Slmx
from tests.slm.importers import models

pytestmark = pytest.mark.slow

CASES: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "gpt2": (models.gpt2, {}),
    "gpt2 with exact gelu": (models.gpt2, {"activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    "gpt2 with relu and n_inner": (models.gpt2, {"activation_function": "relu", "n_inner": 50}),
    "gpt2 untied": (models.gpt2, {"tie_word_embeddings": False}),
    "gpt2 unscaled": (models.gpt2, {"scale_attn_weights": False, "n_head": 2}),
    "gpt2 scaled by layer": (
        models.gpt2,
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "n_layer": 4},
    ),
    "gpt2 with heads of 5": (models.gpt2, {"n_embd": 30, "n_head": 6}),
    "neo": (models.gpt_neo, {}),
    "neo of one kind": (models.gpt_neo, {"attention_types": [[["global"], 4]], "num_heads": 2}),
    "neo with local layers only": (models.gpt_neo, {"attention_types": [[["local"], 4]], "intermediate_size": 100}),
    "llama": (models.llama, {}),
    "llama with other heads": (models.llama, {"head_dim": 32, "num_key_value_heads": 1, "rope_theta": 5e4}),
    "llama tied with biases": (models.llama, {"tie_word_embeddings": True, "attention_bias": True}),
    "llama with all biases": (models.llama, {"mlp_bias": True, "rms_norm_eps": 1e-5, "hidden_act": "gelu"}),
    "llama with heads of 8": (models.llama, {"num_attention_heads": 8, "num_key_value_heads": 4}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_those_of_transformers(name: str, tokenizer: HFTokenizer, tmp_path: Path) -> None:
    make, changes = CASES[name]
    model = make(tokenizer.get_vocab_size() + 3, **changes)
    foreign = read_hugging_face(models.save(model, tokenizer, tmp_path / "hf é"), None)
    lines: list[str] = []
    config = write_checkpoint(foreign, tmp_path / "out", False, lines.append)
    assert lines == ["left out 3 rows of the token table that no text can reach"]
    ours, rows = load_checkpoint(tmp_path / "out").model, foreign.tokenizer.rows
    for length in (1, 2, 17, models.CONTEXT):
        ids = torch.randint(config.vocab_size, (length,), generator=torch.Generator().manual_seed(length)).tolist()
        expected = models.logits(model, ids, rows)
        with torch.inference_mode():
            torch.testing.assert_close(ours(torch.tensor([ids]))[0], expected, rtol=0, atol=1e-4)
            cache, steps = KVCache(config), []
            for token in ids:
                steps.append(ours(torch.tensor([[token]]), cache)[0])
        torch.testing.assert_close(torch.cat(steps), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shards_in_16_bits_are_read(dtype: torch.dtype, tokenizer: HFTokenizer, tmp_path: Path) -> None:
    model = models.llama(tokenizer.get_vocab_size()).to(dtype)
    folder = tmp_path / "hf"
    model.save_pretrained(folder, max_shard_size="60KB")  # type: ignore[operator]
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    models.save(models.gpt2(10), tokenizer, tmp_path / "other")
    (folder / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    foreign = read_hugging_face(folder, None)
    write_checkpoint(foreign, tmp_path / "out", False, print)
    ids = list(range(20))
    reference = models.hugging_face.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = models.logits(reference, ids, foreign.tokenizer.rows)
    ours = load_checkpoint(tmp_path / "out").model
    torch.testing.assert_close(ours(torch.tensor([ids]))[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [models.gpt2, models.llama])
def test_a_shorter_context_is_the_beginning_of_the_longer_one(
    make: Callable[..., nn.Module], tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    model = make(tokenizer.get_vocab_size())
    folder = models.save(model, tokenizer, tmp_path / "hf")
    foreign = read_hugging_face(folder, 16)
    assert write_checkpoint(foreign, tmp_path / "out", False, print).block_size == 16
    ids = list(range(16))
    expected = models.logits(model, ids, foreign.tokenizer.rows)
    ours = load_checkpoint(tmp_path / "out").model
    torch.testing.assert_close(ours(torch.tensor([ids]))[0], expected, rtol=0, atol=1e-4)
    with pytest.raises(SlmxError, match="its context is 40 tokens; --block-size 41 is longer"):
        read_hugging_face(folder, 41)


def test_the_licence_of_the_card_and_the_name_travel(slmx: Slmx, tokenizer: HFTokenizer) -> None:
    folder = models.save(models.llama(tokenizer.get_vocab_size()), tokenizer, Path("my llama"))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n", "utf-8")
    assert slmx("import", folder, "--out", "mine").code == 0
    record = load_checkpoint(Path("mine")).record
    assert record["licence"] == "apache-2.0"
    assert (record["imported"]["folder"], record["imported"]["model_type"]) == ("my llama", "llama")
    assert slmx("import", folder, "--out", "two", "--licence", "MIT").code == 0
    assert load_checkpoint(Path("two")).record["licence"] == "MIT"
    (folder / "README.md").write_text("---\nlicense:\n  - mit\n  - apache-2.0\n---\n", "utf-8")
    assert slmx("import", folder, "--out", "three").code == 0
    assert load_checkpoint(Path("three")).record["licence"] == "mit, apache-2.0"
    (folder / "README.md").write_text("# A model\n\nA header looks like this:\n\n---\nlicense: mit\n---\n", "utf-8")
    assert slmx("import", folder, "--out", "four").code == 0
    assert load_checkpoint(Path("four")).record["licence"] == "not stated"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit # a comment\n---\n", "mit"),
        ("\ufeff---\n'license' : \"mit\"\n...\n", "mit"),
        ("---\nlicense: [mit, gpl-3.0]\n---\n", "mit, gpl-3.0"),
        ("---\nlicense: null\n---\n", "not stated"),
        ("---\nlicense: other\nlicense_name: my own\n---\n", "my own"),
        ("---\nlicense: mit\n", "not stated"),
        ("---\nlicense: &a [*a]\n---\n", "not stated"),
        ("---\n" + "[" * 5000 + "\n---\n", "not stated"),
        ("---\nlicense: {a: b}\n---\n", "not stated"),
    ],
)
def test_a_licence_is_read_in_the_forms_of_yaml(card: str, licence: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card, "utf-8")
    assert (_licence(tmp_path) or "not stated") == licence


def test_a_config_with_a_byte_order_mark_is_read(slmx: Slmx, tokenizer: HFTokenizer) -> None:
    folder = models.save(models.llama(tokenizer.get_vocab_size()), tokenizer, Path("marked"))
    config = folder / "config.json"
    config.write_bytes(codecs.BOM_UTF8 + config.read_bytes())
    assert slmx("import", folder, "--out", "mine").code == 0


def test_the_cache_of_a_hub_and_an_adapter_are_named_for_what_they_are(slmx: Slmx, tokenizer: HFTokenizer) -> None:
    inside = Path("models--me--mine/snapshots/abc")
    models.save(models.llama(tokenizer.get_vocab_size()), tokenizer, inside)
    line = slmx.refuses("import", "models--me--mine", "--out", "mine")
    assert line.endswith(f"name the folder {inside}")
    assert slmx("import", inside, "--out", "mine").code == 0
    Path("lora").mkdir()
    Path("lora/adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    assert "an adapter, not a model; merge it" in slmx.refuses("import", "lora", "--out", "other")


TYPES = "slmx imports models of the types gpt2, gpt_neo, llama"


@pytest.mark.parametrize(
    ("make", "setting", "value", "said"),
    [
        (models.llama, "model_type", "mamba", f"a model of type 'mamba'; {TYPES}"),
        (models.llama, "model_type", [["x"]], f"a model of type [['x']]; {TYPES}"),
        (
            models.llama,
            "rope_scaling",
            {"rope_type": "yarn"},
            "rope_scaling is {'rope_type': 'yarn'}; slmx computes models without it only",
        ),
        (models.llama, "partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5; slmx computes 1.0 only"),
        (models.llama, "rope_parameters", {"rope_type": "linear"}, "rope_type is 'linear'; slmx computes default only"),
        (models.llama, "rope_theta", -1, "rope_theta is -1, not a positive number; correct config.json"),
        (models.llama, "rms_norm_eps", "x", "rms_norm_eps is 'x', not a positive number; correct config.json"),
        (models.llama, "hidden_act", "xielu", "hidden_act is 'xielu'; slmx computes gelu_new, "),
        (models.llama, "tie_word_embeddings", 1, "tie_word_embeddings is 1, not true or false; correct config.json"),
        (models.llama, "tie_word_embeddings", True, "lm_head.weight is not the token table, but tie_word_embeddings"),
        (models.llama, "num_key_value_heads", 3, "3 heads of keys and values do not divide 4 heads"),
        (models.llama, "num_key_value_heads", 4, "k_proj.weight"),
        (models.llama, "intermediate_size", 97, "+ layers.0.mlp.up_proj.weight is [192, 64], and the shape"),
        (models.llama, "num_hidden_layers", 4, "n_layer is 4, but that of the weights is 3; correct config.json"),
        (models.llama, "num_hidden_layers", 10**9, "n_layer is 1000000000, but that of the weights is 3"),
        (models.llama, "vocab_size", 7, "vocab_size is 7, but the token table has"),
        (models.llama, "auto_map", {"AutoModel": "m.M"}, "auto_map is {'AutoModel': 'm.M'}; slmx computes models"),
        (models.llama, "quantization_config", {"bits": 4}, "quantization_config is {'bits': 4}; slmx computes models"),
        (models.gpt_neo, "attention_types", [[["sparse"], 4]], "slmx computes lists of global and local layers only"),
        (models.gpt_neo, "attention_types", 7, "slmx computes lists of global and local layers only"),
        (models.gpt_neo, "attention_types", [[["local"], 3]], "model shape: 3 windows for 4 layers"),
        (models.gpt_neo, "window_size", "x", "a window must be a whole number from 0 to 1099511627776, not 'x'"),
        (models.gpt_neo, "activation_function", None, "activation_function is None; slmx computes gelu_new, "),
        (models.gpt_neo, "max_position_embeddings", 41, "n_positions is 41, but that of the weights is 40"),
    ],
)
def test_what_slmx_does_not_compute_is_refused_by_name(
    slmx: Slmx, tokenizer: HFTokenizer, make: Callable[..., nn.Module], setting: str, value: object, said: str
) -> None:
    folder = models.save(make(tokenizer.get_vocab_size()), tokenizer, Path("hf"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {setting: value}), "utf-8")
    line = slmx.refuses("import", folder, "--out", "mine")
    assert said in line
    assert not Path("mine").exists()


def test_a_path_that_exists_is_taken_before_a_name_of_the_hub(
    slmx: Slmx, tokenizer: HFTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models.save(models.gpt2(tokenizer.get_vocab_size()), tokenizer, Path("owner") / "name")
    assert slmx("import", "owner/name", "--out", "mine").code == 0
    assert load_checkpoint(Path("mine")).record["imported"]["folder"] == "name"
