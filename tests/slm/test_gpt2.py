"""A GPT-2 made with transformers becomes a checkpoint that computes the same, or is refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers

from slm.checkpoint import PRETRAINED, load_checkpoint
from slm.gpt2 import import_gpt2
from slm.gpt2_tokenizer import import_tokenizer
from slm.presets import get_preset
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

VOCABULARY = 400
END = "<|endoftext|>"
Model = transformers.GPT2LMHeadModel
hugging_face: Any = transformers  # its classes are not typed


def made_tokenizer(stories: list[str], specials: list[str]) -> HFTokenizer:
    """A byte-level BPE as `tokenizers` trains it: special tokens get the first ids."""
    tokenizer = HFTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def made_model(folder: Path, tokenizer: HFTokenizer, **changes: int) -> Model:
    """A small GPT-2 with random weights, saved as a user would."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "n_positions": 48,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": tokenizer.token_to_id(END),
        "eos_token_id": tokenizer.token_to_id(END),
    }
    model: Model = hugging_face.GPT2LMHeadModel(hugging_face.GPT2Config(**settings | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    hugging_face.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END).save_pretrained(
        folder
    )
    return model


@pytest.fixture(scope="module")
def tokenizer(stories: list[str]) -> HFTokenizer:
    return made_tokenizer(stories, [END])


@pytest.fixture(scope="module")
def made(tokenizer: HFTokenizer) -> tuple[Path, Model]:
    folder = bundles.folder("gpt2")
    return folder, made_model(folder, tokenizer)


@pytest.fixture
def copy(made: tuple[Path, Model], tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return bundles.copy_of(made[0], tmp_path / "copy")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_it_computes_the_same_and_splits_text_the_same(
    slmx: Slmx, made: tuple[Path, Model], tokenizer: HFTokenizer, stories: list[str]
) -> None:
    folder, model = made
    ran = slmx("import", folder, "--out", "mine")
    assert (ran.code, ran.stdout) == (0, "mine\n")
    assert ran.stderr.endswith("parameters; now: slmx export --checkpoint mine --int8\n")
    checkpoint = load_checkpoint(Path("mine"))
    assert checkpoint.preset == "custom"
    rows = import_tokenizer(folder).rows
    assert sorted(rows) == list(range(VOCABULARY))
    for story in stories[:20]:
        ours = checkpoint.tokenizer.encode(story)
        assert [rows[i] for i in ours] == tokenizer.encode(story).ids
        ids = [checkpoint.tokenizer.end_of_text, *ours][:40]
        with torch.inference_mode():
            theirs = model(torch.tensor([[rows[i] for i in ids]])).logits[0][:, rows]
            torch.testing.assert_close(checkpoint.model(torch.tensor([ids]))[0], theirs, rtol=1e-4, atol=1e-5)


def test_it_exports_and_tells_a_story(slmx: Slmx, made: tuple[Path, Model]) -> None:
    assert slmx("import", made[0], "--out", "mine").code == 0
    with bundles.brief_judge():
        assert slmx("export", "--checkpoint", "mine", "--int8").stdout.startswith("bundles/custom\n")
    ran = slmx("generate", "Once", "--bundle", "bundles/custom", "--max-tokens", "5", "--seed", "1")
    assert (ran.code, ran.stdout[:4]) == (0, "Once")


def test_special_tokens_that_no_text_can_reach_are_left_out(slmx: Slmx, stories: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    model = made_model(folder, made_tokenizer(stories, ["<pad>", "<unk>", END]), vocab_size=VOCABULARY + 8)
    ran = slmx("import", folder, "--out", "mine")
    assert ran.code == 0
    assert "left out 10 rows of the token table that no text can reach" in ran.stderr
    checkpoint = load_checkpoint(Path("mine"))
    assert checkpoint.tokenizer.vocab_size == VOCABULARY - 2
    rows = import_tokenizer(folder).rows
    assert rows[-1] == 2
    ids = [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode(stories[0])][:40]
    with torch.inference_mode():
        theirs = model(torch.tensor([[rows[i] for i in ids]])).logits[0][:, rows]
        torch.testing.assert_close(checkpoint.model(torch.tensor([ids]))[0], theirs, rtol=1e-4, atol=1e-5)


def test_shards_are_put_together(slmx: Slmx, made: tuple[Path, Model], tokenizer: HFTokenizer) -> None:
    made[1].save_pretrained("hf", max_shard_size="40KB")
    assert len(list(Path("hf").glob("model-*.safetensors"))) > 1
    hugging_face.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained("hf")
    for source, out in ((made[0], "one"), (Path("hf"), "two")):
        assert slmx("import", source, "--out", out).code == 0
    one, two = (load_checkpoint(Path(name)).model.state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_shape_of_a_preset_is_recognized(tmp_path: Path) -> None:
    tokenizer = HFTokenizer.from_file(str(PRETRAINED / "nano" / "tokenizer.json"))
    made_model(tmp_path / "hf", tokenizer, vocab_size=8000, n_positions=256, n_embd=128, n_layer=4, n_head=4)
    assert import_gpt2(tmp_path / "hf", tmp_path / "mine", False, print) == get_preset("nano").config
    assert load_checkpoint(tmp_path / "mine").preset == "nano"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("model_type", "llama", "a model of type 'llama'; slmx takes GPT-2 shaped ones (model_type gpt2)"),
        ("activation_function", "gelu", "activation_function 'gelu'; slmx computes gelu_new or gelu_pytorch_tanh"),
        ("layer_norm_epsilon", 1e-6, "layer_norm_epsilon is 1e-06; slmx computes 1e-05 only"),
        ("scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx is True; slmx computes False only"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False; slmx computes True only"),
        ("n_inner", 64, "n_inner is 64; slmx computes 4 x n_embd (128)"),
        ("n_head", 3, "model shape: 3 heads do not divide n_embd 32"),
        ("n_positions", 64, "n_positions is 64, the position table has 48 rows; mend config.json"),
        ("n_layer", 3, "its weights hold no h.2.ln_1.weight; config.json promises 3 layers"),
        ("n_layer", 1, "its weights have 2 layers, config.json promises 1"),
        ("n_embd", 64, "wte.weight is [400, 32], config.json promises [400, 64]; mend either"),
    ],
)
def test_what_slmx_does_not_compute_is_refused(
    slmx: Slmx, copy: Path, tmp_path: Path, setting: str, value: object, said: str
) -> None:
    edit(copy / "config.json", lambda content: content.update({setting: value}))
    assert slmx.refuses("import", copy, "--out", "mine").endswith(said)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "missing; this is no Hugging Face model folder"),
        ("tokenizer.json", "missing; save_pretrained of a fast AutoTokenizer writes one"),
        ("model.safetensors", "no model.safetensors; slmx reads safetensors only"),
    ],
)
def test_a_missing_file_is_named(slmx: Slmx, copy: Path, name: str, said: str) -> None:
    (copy / name).unlink()
    assert slmx.refuses("import", copy, "--out", "mine").endswith(said)


def test_pickled_weights_say_how_to_save_them_otherwise(slmx: Slmx, copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    line = slmx.refuses("import", copy, "--out", "mine")
    assert line.endswith(
        "pytorch_model.bin is pickled: save the model again with save_pretrained(..., safe_serialization=True)"
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(slmx: Slmx, copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:50])
    assert slmx.refuses("import", copy, "--out", "mine").startswith(f"{copy / name}: ")


def test_a_head_of_its_own_is_refused(slmx: Slmx, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] * 2
    save_file(tensors, copy / "model.safetensors")
    assert slmx.refuses("import", copy, "--out", "mine").endswith("slmx computes tied heads only")


def test_a_tokenizer_that_splits_otherwise_is_refused(slmx: Slmx, copy: Path, stories: list[str]) -> None:
    lower = made_tokenizer(stories, [END])
    lower.normalizer = normalizers.Lowercase()
    lower.save(str(copy / "tokenizer.json"))
    assert "splits text otherwise than GPT-2 does" in slmx.refuses("import", copy, "--out", "mine")
    edit(copy / "tokenizer.json", lambda content: content.update(normalizer=None))
    edit(copy / "tokenizer.json", lambda content: content["pre_tokenizer"].update(use_regex=False))
    assert "splits text otherwise than GPT-2 does" in slmx.refuses("import", copy, "--out", "mine")


def test_a_tokenizer_without_an_end_is_refused(slmx: Slmx, copy: Path) -> None:
    edit(copy / "config.json", lambda content: content.update(eos_token_id=None))
    edit(copy / "tokenizer.json", lambda content: content["added_tokens"][0].update(content="<eos>"))
    edit(copy / "tokenizer.json", lambda content: content["model"]["vocab"].pop(END))
    line = slmx.refuses("import", copy, "--out", "mine")
    assert line.endswith("no end-of-text token; name its id as eos_token_id in config.json")


def test_what_stands_there_is_kept_without_force(slmx: Slmx, made: tuple[Path, Model]) -> None:
    Path("mine").mkdir()
    (Path("mine") / "notes.txt").write_text("mine", "utf-8")
    for force in ((), ("--force",)):
        assert "notes.txt was not made by slmx" in slmx.refuses("import", made[0], "--out", "mine", *force)
    assert (Path("mine") / "notes.txt").read_text("utf-8") == "mine"
    assert slmx("import", made[0], "--out", "other").code == 0
    assert "not empty; choose another --out, or --force" in slmx.refuses("import", made[0], "--out", "other")
    assert slmx("import", made[0], "--out", "other", "--force").code == 0


def test_no_folder(slmx: Slmx) -> None:
    assert slmx.refuses("import", "nowhere", "--out", "mine").startswith("nowhere: no folder here; name one with")
