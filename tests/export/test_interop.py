"""The unchanged bundle of the shipped nano in other runtimes: transformers, optimum, onnxruntime-genai."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optimum.onnxruntime import ORTModelForCausalLM
from tokenizers import Tokenizer as HFTokenizer
from transformers import AutoConfig, AutoTokenizer

from export.checks.greedy import greedy_tokens
from runtimes.bundle.shape import cache_names
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import open_onnx
from slm.checkpoint import load_checkpoint
from slm.folder_kind import PRETRAINED
from slm.model import generate_greedy
from slm.tokenizers.settings import END_OF_TEXT
from slm.tokenizers.tokenizer import Tokenizer
from tests import bundles

pytestmark = pytest.mark.slow

PROMPTS = ["Once upon a time", "Lily", "", "Zoë couldn't find 12 boxes, \n\n so…"]
TEXTS = [
    *PROMPTS,
    "  leading and trailing  ",
    "naïve 日本語 🙂 e\u0301\u200d",
    "a\x00b\x7f\ufffd",
    "don't I'LL 1234,5.6!?",
]


@pytest.fixture(scope="module")
def bundle() -> Path:
    return bundles.shipped_bundle()


@pytest.fixture(scope="module")
def tokenizer(bundle: Path) -> Tokenizer:
    return Bundle.open(bundle).tokenizer()


@pytest.fixture(scope="module")
def theirs(bundle: Path) -> Any:  # noqa: ANN401
    return AutoTokenizer.from_pretrained(bundle)  # type: ignore[no-untyped-call]


def test_transformers_reads_the_shape(bundle: Path) -> None:
    config = AutoConfig.from_pretrained(bundle)
    ours = Bundle.open(bundle).config
    assert config.model_type == {"Llama": "llama", "GPT-2": "gpt2"}[ours.family]
    assert (config.max_position_embeddings, config.vocab_size) == (ours.block_size, ours.vocab_size)
    sizes = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size)
    assert sizes == (ours.n_layer, ours.n_head, ours.n_embd)
    assert config.tie_word_embeddings


@pytest.mark.parametrize("text", TEXTS)
def test_transformers_gives_our_ids_and_our_text(tokenizer: Tokenizer, theirs: Any, text: str) -> None:  # noqa: ANN401
    ids = theirs.encode(text)
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="theTinsld' .,\n12é") | st.text())
@example(text="'tis 'together don'to")
@example(text="a  b   c\n\n d \t")
def test_transformers_agrees_on_any_text(tokenizer: Tokenizer, theirs: Any, text: str) -> None:  # noqa: ANN401
    assert theirs.encode(text.replace(END_OF_TEXT, "")) == tokenizer.encode(text.replace(END_OF_TEXT, ""))


PIECES = (
    *(
        "the",
        "little",
        "girl",
        "said",
        "Once",
        "upon",
        "a",
        "time",
        "don't",
        "I'LL",
        "they've",
        "12",
        "3.14",
        "x²",
        "½",
    ),
    *("naïve", "Zoë", "“quoted”", "—", "…", "¿qué?", "Привет", "世界", "こんにちは", "안녕", "مرحبا", "नमस्ते"),
    *("🙂", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "e\u0301", "\u200b", "\ufeff", "\u2028", "\U0010ffff", "\ufffd"),
    *(" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\x00", "\x1b", "\x7f", "\x85"),
    *("<|endof", "text|>", "<|", "|>", "</s>", "[MASK]", "##", "▁", "Ġ", "Ċ", "'", '"', "''s", "'S", "\u2019s"),
)


def odd_strings(count: int) -> list[str]:
    """Distinct texts of words, contractions, scripts, marks, white space and parts of special tokens, in any order."""
    chance = random.Random(0)
    strings: set[str] = set()
    while len(strings) < count:
        parts = [
            chance.choice(PIECES) if chance.random() < 0.8 else chr(chance.randrange(32, 0xD800))
            for _ in range(chance.randrange(16))
        ]
        strings.add(chance.choice(("", " ")).join(parts).replace(END_OF_TEXT, ""))
    return sorted(strings)


def test_tokenizers_and_transformers_agree_with_tiktoken_on_ten_thousand_strings(
    bundle: Path,
    tokenizer: Tokenizer,
    theirs: Any,  # noqa: ANN401
) -> None:
    strings = odd_strings(10_000)
    ours = [tokenizer.encode(text) for text in strings]
    read = HFTokenizer.from_file(str(bundle / "tokenizer.json"))
    assert [encoding.ids for encoding in read.encode_batch(strings)] == ours
    assert theirs(strings)["input_ids"] == ours
    assert [read.decode(ids) for ids in ours] == strings


def test_transformers_knows_the_special_token_and_the_context(tokenizer: Tokenizer, theirs: Any) -> None:  # noqa: ANN401
    end = tokenizer.end_of_text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (end, end, end)
    assert theirs.encode(END_OF_TEXT) == [end]
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.model_max_length == 256
    assert set(theirs("a")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("variant", "arguments"),
    [
        ("fp32", {}),
        ("fp32", {"subfolder": "onnx"}),
        ("fp32", {"subfolder": "onnx", "file_name": "model.onnx"}),
        ("int8", {"subfolder": "onnx", "file_name": "model_int8.onnx"}),
    ],
)
def test_optimum_writes_what_our_session_writes(
    bundle: Path,
    theirs: Any,  # noqa: ANN401
    variant: str,
    arguments: dict[str, str],
) -> None:
    model = ORTModelForCausalLM.from_pretrained(bundle, **arguments)
    session = bundles.session(bundle, variant)
    for prompt in PROMPTS:
        inputs = theirs(END_OF_TEXT + prompt, return_tensors="pt")
        prompt_ids = inputs["input_ids"][0].tolist()
        generated = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0].tolist()[len(prompt_ids) :]
        assert generated
        assert generated == greedy_tokens(session, prompt_ids, 24)[: len(generated)]
        assert len(generated) == 24 or generated[-1] == theirs.eos_token_id
        if variant == "fp32":
            expected = generate_greedy(load_checkpoint(PRETRAINED / "nano").model, prompt_ids, len(generated))
            assert generated == expected


def test_optimum_stops_at_the_end_of_the_context_by_itself(bundle: Path, theirs: Any) -> None:  # noqa: ANN401
    model = ORTModelForCausalLM.from_pretrained(bundle)
    inputs = theirs(END_OF_TEXT + "Once", return_tensors="pt")
    written = model.generate(**inputs, do_sample=False, eos_token_id=None)
    assert written.shape == (1, 256)


def test_optimum_decodes_a_batch_of_equal_lengths(bundle: Path, tokenizer: Tokenizer) -> None:
    model = ORTModelForCausalLM.from_pretrained(bundle)
    session = bundles.session(bundle)
    rows = [[tokenizer.end_of_text, *tokenizer.encode(text)[:3]] for text in ("Once upon a time", "The big red bear")]
    ids = torch.tensor(rows)
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    for row, prompt in zip(written.tolist(), rows, strict=True):
        assert row[len(prompt) :] == greedy_tokens(session, prompt, 12)


def test_what_onnxruntime_genai_is_told_is_what_the_graph_has(bundle: Path, tokenizer: Tokenizer) -> None:
    told = json.loads((bundle / "genai_config.json").read_text("utf-8"))
    model, decoder, config = told["model"], told["model"]["decoder"], Bundle.open(bundle).config
    session = open_onnx(bundle / decoder["filename"], 1)
    assert decoder["filename"] == VARIANTS["int8"].file
    layers = range(decoder["num_hidden_layers"])
    pairs = [(layer, part) for layer in layers for part in ("key", "value")]
    past = [decoder["inputs"][f"past_{part}_names"] % layer for layer, part in pairs]
    present = [decoder["outputs"][f"present_{part}_names"] % layer for layer, part in pairs]
    assert (past, present) == cache_names(config.n_layer)
    inputs = [name for name in decoder["inputs"].values() if "%d" not in name]
    outputs = [name for name in decoder["outputs"].values() if "%d" not in name]
    assert {value.name for value in session.get_inputs()} == {*inputs, *past}
    assert {value.name for value in session.get_outputs()} == {*outputs, *present}
    assert decoder["num_attention_heads"] == decoder["num_key_value_heads"] == config.n_head
    assert decoder["head_size"] * config.n_head == decoder["hidden_size"] == config.n_embd
    assert (model["context_length"], model["vocab_size"]) == (config.block_size, config.vocab_size)
    assert model["eos_token_id"] == model["bos_token_id"] == tokenizer.end_of_text
    assert told["search"] == {"do_sample": False, "max_length": 256, "past_present_share_buffer": True}


def test_onnxruntime_genai_writes_what_our_session_writes(bundle: Path, tokenizer: Tokenizer) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="it needs a newer onnxruntime than Python 3.10 has")
    model = genai.Model(str(bundle))
    their_tokenizer = genai.Tokenizer(model)
    session = bundles.session(bundle, "int8")
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        assert their_tokenizer.encode(prompt).tolist() == ids
        assert their_tokenizer.decode(ids) == prompt
        start = [tokenizer.end_of_text, *ids]
        settings = genai.GeneratorParams(model)
        settings.set_search_options(do_sample=False, max_length=len(start) + 24)
        generator = genai.Generator(model, settings)
        generator.append_tokens(start)
        while not generator.is_done():
            generator.generate_next_token()
        written = generator.get_sequence(0).tolist()[len(start) :]
        assert written
        assert written == greedy_tokens(session, start, 24)[: len(written)]
        assert len(written) == 24 or written[-1] == tokenizer.end_of_text
