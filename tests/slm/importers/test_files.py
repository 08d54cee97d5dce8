"""Files of nanoGPT, llama2.c and llama.cpp become checkpoints that compute the same as transformers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.importers import foreign
from slm.importers.importer import ImportSettings, import_model
from slm.tokenizers.tokenizer_json import to_unicode
from tests.bundles import Slmx
from tests.slm.importers import models

pytestmark = pytest.mark.slow


@pytest.fixture
def hf_tokenizer(tokenizer: HFTokenizer, tmp_path: Path) -> Path:
    """A Hugging Face folder that holds the tokenizer only."""
    folder = models.save(models.gpt2(10, n_layer=1), tokenizer, tmp_path / "tokenizer é")
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    return folder


def imported(source: Path, tmp_path: Path, **options: Any) -> tuple[Checkpoint, list[str]]:  # noqa: ANN401  # fields of ImportSettings
    lines: list[str] = []
    import_model(ImportSettings(str(source), tmp_path / "mine", **options), lines.append)
    return load_checkpoint(tmp_path / "mine"), lines


def check(checkpoint: Checkpoint, model: nn.Module, rows: list[int], tolerance: float = 1e-4) -> None:
    """The logits over a whole context are those of a model of transformers."""
    torch.manual_seed(1)
    ids = torch.randint(checkpoint.model.config.vocab_size, (checkpoint.model.config.block_size,)).tolist()
    with torch.inference_mode():
        ours = checkpoint.model(torch.tensor([ids]))[0]
    torch.testing.assert_close(ours, models.logits(model, ids, rows), rtol=0, atol=tolerance)


def rows_of(checkpoint: Checkpoint, tokenizer: HFTokenizer) -> list[int]:
    """For each slmx id, the id in the tokenizer that the source was made with."""
    vocabulary = dict(tokenizer.get_vocab())
    ordinary = [vocabulary[to_unicode(token)] for token in checkpoint.tokenizer.tokens]
    return [*ordinary, vocabulary[models.END]]


def as_nanogpt(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a GPT-2 of transformers as nanoGPT saves them: matrices turned, and a copy of the tied head."""
    state = {}
    for name, tensor in model.state_dict().items():
        turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        state[f"_orig_mod.{name}"] = tensor.t().contiguous() if turned else tensor
    return state


ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": models.CONTEXT, "bias": True, "dropout": 0.0}


def test_a_checkpoint_of_nanogpt(hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path) -> None:
    padded = tokenizer.get_vocab_size() + 47
    model = models.gpt2(padded, activation_function="gelu")
    state = as_nanogpt(model) | {"_orig_mod.transformer.h.0.attn.bias": torch.ones(1, 1, 40, 40)}
    args = ARGS | {"vocab_size": padded}
    config = {"dataset": "mine", "iter_num": 3}
    torch.save({"model": state, "model_args": args, "config": config, "optimizer": {"state": {}}}, tmp_path / "ckpt.pt")
    checkpoint, lines = imported(tmp_path / "ckpt.pt", tmp_path, tokenizer=hf_tokenizer, licence="MIT")
    check(checkpoint, model, rows_of(checkpoint, tokenizer))
    assert checkpoint.record["imported"] == {"model_type": "gpt2", "file": "ckpt.pt", "licence": "MIT"}
    assert [line.split(",")[0] for line in lines] == [
        "took the exact form of GELU",
        "left out 47 rows of the token table that no text can reach",
    ]


@pytest.mark.parametrize(("least", "spare"), [(1000, 1000), (0, 8)])  # 2 % of 408 rows are 8
def test_a_tokenizer_without_many_of_the_rows_is_that_of_another_model(
    least: int, spare: int, hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "MOST_UNUSED_ROWS", least)
    fits = tokenizer.get_vocab_size() + spare
    for rows in (fits + 1, fits):
        torch.save({"model": as_nanogpt(models.gpt2(rows)), "model_args": ARGS}, tmp_path / "ckpt.pt")
        if rows == fits:
            _, lines = imported(tmp_path / "ckpt.pt", tmp_path, tokenizer=hf_tokenizer)
            assert lines[-1] == f"left out {spare:,} rows of the token table that no text can reach"
            continue
        with pytest.raises(SlmxError) as refused:
            imported(tmp_path / "ckpt.pt", tmp_path, tokenizer=hf_tokenizer)
        assert str(refused.value) == (
            f"{tmp_path / 'ckpt.pt'}: the tokenizer has 400 tokens, the token table {rows:,} rows, so it is not the "
            "tokenizer of this model; use the one that the model was trained with"
        )
        assert not (tmp_path / "mine").exists()


def test_nanogpt_without_biases_and_with_the_older_gelu(
    hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    model = models.gpt2(tokenizer.get_vocab_size())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    state = {name: tensor for name, tensor in as_nanogpt(model).items() if not name.endswith(".bias")}
    torch.save({"model": state, "model_args": ARGS | {"bias": False}}, tmp_path / "ckpt.pt")
    (tmp_path / "shape.json").write_text('{"activation": "gelu_tanh"}', "utf-8")
    checkpoint, lines = imported(tmp_path / "ckpt.pt", tmp_path, tokenizer=hf_tokenizer, shape=tmp_path / "shape.json")
    assert (checkpoint.model.config.bias, lines) == (False, [])
    check(checkpoint, model, rows_of(checkpoint, tokenizer))


@pytest.mark.parametrize("nanogpt", [False, True])
def test_a_plain_state_dictionary(
    nanogpt: bool, hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path, slmx: Slmx
) -> None:
    gelu = "gelu" if nanogpt else "gelu_new"
    model = models.gpt2(tokenizer.get_vocab_size(), tie_word_embeddings=False, activation_function=gelu)
    torch.save(as_nanogpt(model) if nanogpt else model.state_dict(), tmp_path / "weights.pt")
    line = slmx.refuses("import", tmp_path / "weights.pt", "--out", "x", "--tokenizer", hf_tokenizer, code=2)
    assert line.endswith("weights.pt: the weights do not tell the number of attention heads; add --n-head N")
    checkpoint, lines = imported(tmp_path / "weights.pt", tmp_path, tokenizer=hf_tokenizer, n_head=4)
    assert lines[0].startswith(f"took the {'exact' if nanogpt else 'tanh'} form of GELU, which the weights do not tell")
    assert not checkpoint.model.config.tied
    check(checkpoint, model, rows_of(checkpoint, tokenizer))


@pytest.mark.parametrize("head_dim", [16, 24])
def test_a_state_dictionary_of_a_llama(
    head_dim: int, hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    model = models.llama(tokenizer.get_vocab_size(), rms_norm_eps=1e-3, rope_theta=5e4, head_dim=head_dim)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    options: dict[str, Any] = {"tokenizer": hf_tokenizer, "n_head": 4, "block_size": 32}
    with pytest.raises(UsageError, match="the weights do not tell rope_theta and norm_eps; add --shape FILE"):
        imported(tmp_path / "weights.pt", tmp_path, **options)
    (tmp_path / "shape.json").write_text('{"rope_theta": 50000.0, "norm_eps": 0.001}', "utf-8")
    options["shape"] = tmp_path / "shape.json"
    checkpoint, _ = imported(tmp_path / "weights.pt", tmp_path, **options)
    assert (checkpoint.model.config.kv_heads, checkpoint.model.config.block_size) == (2, 32)
    check(checkpoint, model, rows_of(checkpoint, tokenizer))


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys with the channel pairs of a head next to each other, as Meta and llama.cpp have them."""
    return rows.view(heads, 2, len(rows) // heads // 2, -1).transpose(1, 2).reshape(rows.shape)


def meta_names(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a Llama of transformers with the names of llama2.c."""
    names = {
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
        turned = interleaved(tensor, heads) if heads else tensor
        short = name.removeprefix("model.")
        for theirs, meta in names.items():
            short = short.replace(theirs, meta)
        state[short] = turned
    return state


def write_llama2c(path: Path, state: Mapping[str, Tensor], tied: bool, version: int) -> None:
    """Writes a .bin file as export.py of llama2.c does."""
    vocabulary = len(state["tok_embeddings.weight"])
    sizes = [64, 96, 3, 4, 2, vocabulary if tied or version else -vocabulary, models.CONTEXT]
    norms = ["attention_norm", "ffn_norm"]
    attention, feed_forward = (
        [f"{part}.{name}" for name in names]
        for part, names in (("attention", ("wq", "wk", "wv", "wo")), ("feed_forward", ("w1", "w2", "w3")))
    )
    if version:
        head = struct.pack("<Ii7iB", 0x616B3432, 1, *sizes, tied).ljust(256, b"\0")
        order = [*norms, "norm", "tok_embeddings", *attention, *feed_forward]
    else:
        head = struct.pack("<7i", *sizes)
        order = ["tok_embeddings", norms[0], *attention, norms[1], *feed_forward, "norm", "frequencies"]
    if not tied:
        order.append("output")
    parts = []
    for name in order:
        if name == "frequencies":
            parts.append(torch.zeros(2 * models.CONTEXT * 8))
        elif f"{name}.weight" in state:
            parts.append(state[f"{name}.weight"])
        else:
            parts += [state[f"layers.{layer}.{name}.weight"] for layer in range(3)]
    path.write_bytes(head + b"".join(part.contiguous().numpy().astype("<f4").tobytes() for part in parts))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_a_bin_file_of_llama2c(
    version: int, tied: bool, hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    model = models.llama(tokenizer.get_vocab_size(), tie_word_embeddings=tied, rms_norm_eps=1e-5)
    write_llama2c(tmp_path / "stories.bin", meta_names(model), tied, version)
    checkpoint, _ = imported(tmp_path / "stories.bin", tmp_path, tokenizer=hf_tokenizer)
    assert checkpoint.model.config.tied is tied
    check(checkpoint, model, rows_of(checkpoint, tokenizer))


def test_a_pt_file_of_llama2c(hf_tokenizer: Path, tokenizer: HFTokenizer, tmp_path: Path) -> None:
    model = models.llama(tokenizer.get_vocab_size(), rms_norm_eps=1e-6)
    args = {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": models.CONTEXT, "norm_eps": 1e-6}
    state = {f"_orig_mod.{name}": tensor for name, tensor in meta_names(model).items()}
    torch.save({"model": state | {"freqs_cos": torch.ones(2)}, "model_args": args}, tmp_path / "stories.pt")
    checkpoint, _ = imported(tmp_path / "stories.pt", tmp_path, tokenizer=hf_tokenizer)
    check(checkpoint, model, rows_of(checkpoint, tokenizer))


KINDS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1")


def write_gguf(path: Path, model: nn.Module, tokenizer: HFTokenizer, kind: str) -> dict[str, Tensor]:
    """Writes a Llama of transformers as GGUF; returns the weights of transformers after quantization."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.down_proj": "ffn_down",
        "mlp.up_proj": "ffn_up",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "embed_tokens": "token_embd",
        "lm_head": "output",
        "layers.": "blk.",
        "model.norm": "output_norm",
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("A small llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(models.CONTEXT)
    writer.add_embedding_length(64)
    writer.add_block_count(3)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token == models.END else normal for token in tokens])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(tokens.index(models.END))
    writer.add_eos_token_id(tokens.index(models.END))
    stored = {}
    for name, tensor in model.state_dict().items():
        short = name
        for theirs, ours in names.items():
            short = short.replace(theirs, ours)
        heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
        array = (interleaved(tensor, heads) if heads else tensor).numpy()
        target = gguf.GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
        packed = gguf.quants.quantize(array, target)
        writer.add_tensor(short.removeprefix("model."), packed, raw_dtype=target)
        values = torch.from_numpy(np.array(gguf.dequantize(packed, target), np.float32)).view(tensor.shape)
        if heads:
            values = values.view(heads, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
        stored[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_of_a_llama(kind: str, tokenizer: HFTokenizer, tmp_path: Path) -> None:
    model = models.llama(tokenizer.get_vocab_size(), rms_norm_eps=1e-6)
    stored = write_gguf(tmp_path / "é model.gguf", model, tokenizer, kind)
    model.load_state_dict(stored)
    checkpoint, _ = imported(tmp_path / "é model.gguf", tmp_path)
    check(checkpoint, model, rows_of(checkpoint, tokenizer))
    assert checkpoint.record["licence"] == "apache-2.0"
    assert checkpoint.record["imported"]["name"] == "A small llama"
    assert checkpoint.model.config.norm_eps == 1e-6


def test_a_gguf_that_slmx_wrote_comes_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from benchmarks.peers.gguf_file import write_gguf as write_peer

    original = load_checkpoint(tiny_checkpoint)
    write_peer(original, tmp_path / "model.gguf", "F32")
    checkpoint, _ = imported(tmp_path / "model.gguf", tmp_path)
    assert checkpoint.model.config == original.model.config
    assert checkpoint.tokenizer == original.tokenizer
    for name, tensor in original.model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[name], tensor), name
