"""A GPT-2 made with transformers becomes a checkpoint that computes the same, or is refused with one line."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as HFTokenizer

from slm.checkpoint import load_checkpoint
from slm.folder_kind import PRETRAINED
from slm.importers.hugging_face import ACTIVATIONS
from slm.importers.importer import ImportSettings, import_model
from slm.presets import get_preset
from tests import bundles
from tests.bundles import Slmx
from tests.slm.importers.gpt2_folders import END, VOCABULARY, Model, edit, hugging_face, made_model, rows_of

pytestmark = pytest.mark.slow


def test_it_computes_the_same_and_splits_text_the_same(
    slmx: Slmx, made: tuple[Path, Model], tokenizer: HFTokenizer, stories: list[str]
) -> None:
    folder, model = made
    ran = slmx("import", folder, "--out", "mine")
    assert (ran.code, ran.stdout) == (0, "mine\n")
    assert ran.stderr.endswith("parameters; now: slmx export --checkpoint mine --int8 --out bundles/mine\n")
    checkpoint = load_checkpoint(Path("mine"))
    assert checkpoint.preset == "custom"
    rows = rows_of(folder)
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
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", "mine", "--int8").stdout.startswith("bundles/mine\n")
    ran = slmx("generate", "Once", "--bundle", "bundles/mine", "--max-tokens", "5", "--seed", "1")
    assert (ran.code, ran.stdout[:4]) == (0, "Once")


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
    assert (
        import_model(ImportSettings(str(tmp_path / "hf"), tmp_path / "mine"), print).config == get_preset("nano").config
    )
    assert load_checkpoint(tmp_path / "mine").preset == "nano"


GELUS = f"slmx computes {', '.join(ACTIVATIONS)} only"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("model_type", "bert", "a model of type 'bert'; slmx imports models of the types gpt2, gpt_neo, llama"),
        ("model_type", [["x"]], "a model of type [['x']]; slmx imports models of the types gpt2, gpt_neo, llama"),
        ("activation_function", "gelu_10", f"activation_function is 'gelu_10'; {GELUS}"),
        ("activation_function", None, f"activation_function is None; {GELUS}"),
        ("activation_function", {}, f"activation_function is {{}}; {GELUS}"),
        (
            "scale_attn_by_inverse_layer_idx",
            1,
            "scale_attn_by_inverse_layer_idx is 1, not true or false; correct config.json",
        ),
        ("tie_word_embeddings", False, "holds no weight lm_head.weight; copy or download it again, whole"),
        ("scale_attn_weights", None, "scale_attn_weights is None, not true or false; correct config.json"),
        ("add_cross_attention", True, "add_cross_attention is True; slmx computes False only"),
        ("layer_norm_epsilon", "1e-5", "layer_norm_epsilon is '1e-5', not a positive number; correct config.json"),
        ("layer_norm_epsilon", None, "layer_norm_epsilon is None, not a positive number; correct config.json"),
        ("pruned_heads", {"0": [1]}, "pruned_heads is {'0': [1]}; slmx computes models without it only"),
        (
            "quantization_config",
            {"bits": 4},
            "quantization_config is {'bits': 4}; slmx computes models without it only",
        ),
        ("auto_map", {"AutoModel": "m.M"}, "auto_map is {'AutoModel': 'm.M'}; slmx computes models without it only"),
        (
            "n_inner",
            64,
            "h.0.mlp.c_fc.weight is [128, 32], and the shape of the model asks for [64, 32]; correct the shape",
        ),
        ("n_inner", "x", "model shape: n_inner must be a whole number from 0 to 1099511627776, not 'x'"),
        ("num_attention_heads", 4, "n_head and num_attention_heads differ; correct config.json"),
        ("n_head", 2.0, "model shape: n_head must be a whole number from 1 to 1099511627776, not 2.0"),
        ("n_layer", 10**9, "n_layer is 1000000000, but that of the weights is 2; correct config.json"),
        ("n_embd", 10**9, "n_embd is 1000000000, but that of the weights is 32; correct config.json"),
        ("n_positions", 10**9, "n_positions is 1000000000, but that of the weights is 48; correct config.json"),
        ("eos_token_id", "x", "eos_token_id is 'x'; set it to the id that ends a text"),
        ("eos_token_id", True, "eos_token_id is True; set it to the id that ends a text"),
        ("eos_token_id", [0, 1], "eos_token_id is [0, 1]; set it to the id that ends a text"),
        ("n_head", 3, "model shape: 3 heads do not divide n_embd 32"),
        ("n_positions", 64, "n_positions is 64, but that of the weights is 48; correct config.json"),
        ("n_layer", 3, "n_layer is 3, but that of the weights is 2; correct config.json"),
        ("n_layer", 1, "n_layer is 1, but that of the weights is 2; correct config.json"),
        ("n_embd", 64, "n_embd is 64, but that of the weights is 32; correct config.json"),
    ],
)
def test_what_slmx_does_not_compute_is_refused(
    slmx: Slmx, hf_folder: Path, tmp_path: Path, setting: str, value: object, said: str
) -> None:
    edit(hf_folder / "config.json", lambda content: content.update({setting: value}))
    assert slmx.refuses("import", hf_folder, "--out", "mine").endswith(said)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "missing; name a Hugging Face folder, with config.json, model.safetensors and a tokenizer"),
        (
            "tokenizer.json",
            "holds no tokenizer.json; copy the tokenizer that the model was trained with into the folder; transformers "
            'writes that of GPT-2: AutoTokenizer.from_pretrained("gpt2").save_pretrained(DIR)',
        ),
        (
            "model.safetensors",
            "no model.safetensors and no pytorch_model.bin here; slmx reads these two: get the model in one of them",
        ),
    ],
)
def test_a_missing_file_is_named(slmx: Slmx, hf_folder: Path, name: str, said: str) -> None:
    (hf_folder / name).unlink()
    assert slmx.refuses("import", hf_folder, "--out", "mine").endswith(said)


def test_a_folder_with_a_tokenizer_that_transformers_converts_is_told_how(slmx: Slmx, hf_folder: Path) -> None:
    (hf_folder / "tokenizer.json").rename(hf_folder / "tokenizer.model")
    assert slmx.refuses("import", hf_folder, "--out", "mine") == (
        f"{hf_folder}: holds no tokenizer.json; transformers writes one: "
        "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
    )


def test_pickled_weights_are_read_if_they_are_tensors_only(
    slmx: Slmx, hf_folder: Path, made: tuple[Path, Model]
) -> None:
    (hf_folder / "model.safetensors").unlink()
    made[1].save_pretrained(hf_folder, safe_serialization=False)
    assert slmx("import", hf_folder, "--out", "mine").code == 0
    assert slmx("import", made[0], "--out", "same").code == 0
    one, two = (load_checkpoint(Path(name)).model.state_dict() for name in ("mine", "same"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.save({"a": torch.zeros(1), "trick": Path("x")}, hf_folder / "pytorch_model.bin")
    line = slmx.refuses("import", hf_folder, "--out", "other")
    assert "pytorch_model.bin: holds more than tensors and plain values" in line


def test_a_pointer_of_git_lfs_is_named(slmx: Slmx, hf_folder: Path) -> None:
    (hf_folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "utf-8")
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.endswith("model.safetensors: a pointer of Git LFS, not the file itself; run git lfs pull in its folder")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tf_model.h5", ", only tf_model.h5; slmx reads these two: get the model in one of them"),
        ("pytorch_model-00001-of-00002.bin", "; pytorch_model-00001-of-00002.bin is pickled, and reading it can run "),
    ],
)
def test_other_weights_are_named(slmx: Slmx, hf_folder: Path, name: str, problem: str) -> None:
    (hf_folder / "model.safetensors").rename(hf_folder / name)
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.startswith(f"{hf_folder}: no model.safetensors and no pytorch_model.bin here{problem}")


@pytest.mark.parametrize("config", [True, False], ids=["with config.json", "without"])
def test_the_command_for_a_model_in_one_file_works(
    slmx: Slmx, hf_folder: Path, made: tuple[Path, Model], config: bool
) -> None:
    (hf_folder / "model.safetensors").unlink()
    torch.save(made[1].state_dict(), hf_folder / "model.pt")
    if not config:
        (hf_folder / "config.json").unlink()
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    head, _, command = line.partition("; name the file model.pt itself: slmx ")
    assert head.endswith("no model.safetensors and no pytorch_model.bin here" if config else "config.json: missing")
    assert slmx(*shlex.split(command), "--n-head", "2").code == 0
    (hf_folder / "model.gguf").touch()
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.endswith(f"itself: slmx import {shlex.quote(str(hf_folder / 'model.gguf'))} --out DIR")


def test_the_command_for_a_folder_of_nanogpt_works(slmx: Slmx, hf_folder: Path, made: tuple[Path, Model]) -> None:
    out = Path("my out")
    out.mkdir()
    torch.save(made[1].state_dict(), out / "ckpt.pt")
    (out / "best.pt").touch()
    (hf_folder / "model.safetensors").unlink()
    command = "name the file ckpt.pt itself: slmx import 'my out/ckpt.pt' --tokenizer"
    assert slmx.refuses("import", out, "--out", "mine").endswith(f"{command} TOKENIZER_FOLDER --out DIR")
    line = slmx.refuses("import", out, "--tokenizer", hf_folder, "--out", "mine")
    assert line.endswith(f"{command} {shlex.quote(str(hf_folder))} --out DIR")
    assert slmx(*shlex.split(line.partition(": slmx ")[2]), "--n-head", "2").code == 0
    (out / "model.gguf").touch()
    assert slmx.refuses("import", out, "--tokenizer", "nano", "--out", "mine").endswith(
        "name the file model.gguf itself: slmx import 'my out/model.gguf' --tokenizer nano --out DIR"
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(slmx: Slmx, hf_folder: Path, name: str) -> None:
    (hf_folder / name).write_bytes((hf_folder / name).read_bytes()[:50])
    assert slmx.refuses("import", hf_folder, "--out", "mine").startswith(f"{hf_folder / name}: ")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(slmx: Slmx, hf_folder: Path, value: float) -> None:
    name = "transformer.h.1.mlp.c_fc.bias"
    change_tensors(hf_folder, lambda tensors: tensors[name].__setitem__(0, value))
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.startswith(f"{hf_folder / 'model.safetensors'}: '{name}' holds NaN or infinity; ")
    assert not Path("mine").exists()


def test_weights_of_whole_numbers_are_refused(slmx: Slmx, hf_folder: Path) -> None:
    name = "transformer.h.1.mlp.c_fc.weight"
    change_tensors(hf_folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert f"'{name}' is torch.int8, not a float tensor" in slmx.refuses("import", hf_folder, "--out", "mine")


@pytest.mark.parametrize("name", ["score.weight", "lm_head.bias", "transformer.h.0.crossattention.c_attn.weight"])
def test_tensors_that_slmx_does_not_compute_are_named(slmx: Slmx, hf_folder: Path, name: str) -> None:
    change_tensors(hf_folder, lambda tensors: tensors.update({name: torch.zeros(2)}))
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.endswith(
        f"holds a weight '{name.removeprefix('transformer.')}', which slmx does not compute; "
        "docs/import.md lists what it does"
    )


def test_a_tensor_of_another_shape_or_missing_is_named(slmx: Slmx, hf_folder: Path) -> None:
    change_tensors(hf_folder, lambda tensors: tensors.update({"transformer.ln_f.bias": torch.zeros(1, 32)}))
    assert "ln_f.bias is [1, 32], and the shape of the model asks for [32]" in slmx.refuses(
        "import", hf_folder, "--out", "mine"
    )
    change_tensors(hf_folder, lambda tensors: tensors.pop("transformer.ln_f.bias"))
    assert "holds no weight ln_f.bias; copy or download" in slmx.refuses("import", hf_folder, "--out", "mine")
    change_tensors(hf_folder, lambda tensors: tensors.update({"ln_f.weight": torch.zeros(32)}))
    assert "hold a tensor twice" in slmx.refuses("import", hf_folder, "--out", "mine")


def test_constants_of_older_folders_are_left_out(slmx: Slmx, hf_folder: Path) -> None:
    mask = {
        "transformer.h.0.attn.masked_bias": torch.tensor(-math.inf),
        "h.0.attn.bias": torch.ones(1, dtype=torch.bool),
    }
    change_tensors(hf_folder, lambda tensors: tensors.update(mask))
    assert slmx("import", hf_folder, "--out", "mine").code == 0


INDEX = "model.safetensors.index.json"


def test_the_whole_file_counts_where_there_is_an_index_too(slmx: Slmx, hf_folder: Path) -> None:
    """As in transformers: the index can be of an earlier version."""
    (hf_folder / INDEX).write_text("{}", "utf-8")
    assert slmx("import", hf_folder, "--out", "mine").code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an index of safetensors files (Expecting value"),
        (b'{"weight_map": {"a"', "not an index of safetensors files (Expecting ':'"),
        (b"[" * 100_000, "not an index of safetensors files (more than 16 levels"),
        (b"[]", "not an index of safetensors files (no JSON object)"),
        (b"{}", "not an index of safetensors files (weight_map is missing)"),
        (b'{"weight_map": []}', "not an index of safetensors files (weight_map is not an object)"),
        (b'{"weight_map": {}}', "lists no tensor"),
        (b'{"weight_map": {"a": 5}}', "not an index of safetensors files (weight_map.a is not a text"),
        (
            b'{"weight_map": {"a": "../m.safetensors"}}',
            "lists '../m.safetensors', which is no safetensors file",
        ),
        (b'{"weight_map": {"a": "/m.safetensors"}}', "lists '/m.safetensors', which is no safetensors file of this"),
        (b'{"weight_map": {"a": "model.bin"}}', "lists 'model.bin', which is no safetensors file of this"),
        (b'{"weight_map": {"a": "m.safetensors"}}', "missing, but model.safetensors.index.json lists it"),
        (b'{"weight_map": {"a": "whole.safetensors"}}', "holds no 'a', but model.safetensors.index.json says so"),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else "",
)
def test_a_hostile_index_is_one_line(slmx: Slmx, hf_folder: Path, content: bytes, said: str) -> None:
    (hf_folder / "model.safetensors").rename(hf_folder / "whole.safetensors")
    (hf_folder / INDEX).write_bytes(content)
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert said in line
    assert line.startswith(f"{hf_folder}/")
    assert len(line) < 500


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 100_000, id="deep list"),
        pytest.param(b'{"a":' * 100_000, id="deep object"),
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"{}",
        b'{"a": 1, "a": 1}',
    ],
)
def test_hostile_json_is_one_line(slmx: Slmx, hf_folder: Path, name: str, content: bytes) -> None:
    (hf_folder / name).write_bytes(content)
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.startswith(f"{hf_folder / name}: ")
    assert len(line) < 500
    assert not Path("mine").exists()


def test_a_config_without_a_model_type_is_one_line(slmx: Slmx, hf_folder: Path) -> None:
    edit(hf_folder / "config.json", lambda content: content.pop("model_type"))
    assert ": has no model_type; slmx imports models of the types" in slmx.refuses("import", hf_folder, "--out", "mine")


def test_options_that_change_no_result_are_accepted(slmx: Slmx, hf_folder: Path, stories: list[str]) -> None:
    changes = {"reorder_and_upcast_attn": True, "resid_pdrop": 0.3, "attn_pdrop": 0.3, "embd_pdrop": 0.3}
    edit(hf_folder / "config.json", lambda content: content.update(changes))
    assert slmx("import", hf_folder, "--out", "mine").code == 0
    model = hugging_face.GPT2LMHeadModel.from_pretrained(hf_folder, attn_implementation="eager").eval()
    assert model.config.reorder_and_upcast_attn
    checkpoint, rows = load_checkpoint(Path("mine")), rows_of(hf_folder)
    ids = checkpoint.tokenizer.encode(stories[0])[:40]
    with torch.inference_mode():
        theirs = model(torch.tensor([[rows[i] for i in ids]])).logits[0][:, rows]
        torch.testing.assert_close(checkpoint.model(torch.tensor([ids]))[0], theirs, rtol=1e-4, atol=1e-5)


def test_a_head_of_its_own_is_refused(slmx: Slmx, hf_folder: Path) -> None:
    tensors = load_file(hf_folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] * 2
    save_file(tensors, hf_folder / "model.safetensors")
    assert slmx.refuses("import", hf_folder, "--out", "mine").endswith(
        "but tie_word_embeddings is true; correct config.json"
    )


def test_what_stands_there_is_kept_without_force(slmx: Slmx, made: tuple[Path, Model]) -> None:
    Path("mine").mkdir()
    (Path("mine") / "notes.txt").write_text("mine", "utf-8")
    for force in ((), ("--force",)):
        assert "mine: not empty: it holds other files, such as notes.txt, and" in slmx.refuses(
            "import", made[0], "--out", "mine", *force
        )
    assert (Path("mine") / "notes.txt").read_text("utf-8") == "mine"
    assert slmx("import", made[0], "--out", "other").code == 0
    assert "not empty; choose another --out, or --force" in slmx.refuses("import", made[0], "--out", "other")
    assert slmx("import", made[0], "--out", "other", "--force").code == 0


def test_no_folder(slmx: Slmx) -> None:
    line = slmx.refuses("import", "nowhere", "--out", "mine")
    assert line.startswith("nowhere: no such file or folder; name a Hugging Face folder, a .pt, .gguf or .bin file, ")
