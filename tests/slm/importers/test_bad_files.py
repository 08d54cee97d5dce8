"""Files that are damaged, hostile or of another kind are refused with one line, and nothing is written."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer

from slm.console.errors import SlmxError
from slm.importers.importer import ImportSettings, import_model
from slm.tokenizers.tokenizer import Tokenizer as SlmxTokenizer
from tests.bundles import Slmx
from tests.slm.importers import models
from tests.slm.importers.test_files import ARGS, as_nanogpt, meta_names, write_gguf, write_llama2c

pytestmark = pytest.mark.slow


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return open, ("unpickled.txt", "w")  # type: ignore[return-value]


@pytest.fixture
def tokenizer_folder(tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint


def refused(slmx: Slmx, path: Path, *flags: str | Path, code: int = 1) -> str:
    line = slmx.refuses("import", path, "--out", "mine", *flags, code=code)
    assert not Path("mine").exists()
    return line


def test_a_pickle_with_more_than_tensors_is_not_unpickled(slmx: Slmx, tokenizer_folder: Path, tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "trick": Payload()}, "ckpt é.pt")
    line = refused(slmx, Path("ckpt é.pt"), "--tokenizer", tokenizer_folder)
    assert "holds more than tensors and plain values, and reading that can run code" in line
    assert not Path("unpickled.txt").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(slmx: Slmx, tokenizer: HFTokenizer, tiny_checkpoint: Path) -> None:
    os.mkfifo("pipe.gguf")
    for flags in ((), ("--tokenizer", tiny_checkpoint)):
        assert refused(slmx, Path("pipe.gguf"), *flags).startswith("pipe.gguf: not a regular file; ")
    model = models.gpt2(500)
    torch.save({"model": as_nanogpt(model), "model_args": ARGS}, "model.pt")
    assert refused(slmx, Path("model.pt"), "--tokenizer", "pipe.gguf").startswith("pipe.gguf: not a regular file; ")
    assert refused(slmx, Path("model.pt"), "--shape", "pipe.gguf", "--tokenizer", tiny_checkpoint).startswith(
        "pipe.gguf: no JSON (not a regular file)"
    )
    assert "pipe.gguf: a file, not a slmx checkpoint" in slmx.refuses("export", "--checkpoint", "pipe.gguf")
    folder = models.save(model, tokenizer, Path("folder"))
    os.mkfifo(folder / "README.md")  # the licence is not in it
    assert slmx("import", folder, "--out", "mine").code == 0
    ranks = Path(shutil.copytree(tiny_checkpoint, "tokens")) / "tokenizer.tiktoken"
    ranks.unlink()
    os.mkfifo(ranks)
    with pytest.raises(SlmxError, match="cannot read the tokenizer \\(not a regular file\\)"):
        SlmxTokenizer.load(ranks.parent)


def test_a_zip_that_is_no_model_is_named_before_a_tokenizer_is_asked_for(slmx: Slmx) -> None:
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "not a whole file of torch.save" in refused(slmx, Path("photos.zip"))


def test_the_advice_about_a_pickle_works(slmx: Slmx, tokenizer: HFTokenizer, tiny_checkpoint: Path) -> None:
    model = models.gpt2(500)
    torch.save({"model": as_nanogpt(model), "model_args": ARGS, "trick": Payload()}, "c.pt")
    line = refused(slmx, Path("c.pt"), "--tokenizer", tiny_checkpoint)
    command = line.split("this writes a file that slmx reads: ")[1]
    assert command.startswith("python -c ")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert slmx("import", "weights.pt", "--out", "mine", "--tokenizer", tiny_checkpoint).code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds no weights of a model; save one with torch.save(model.state_dict(), FILE)"),
        ({"model": 3}, "holds no weights of a model"),
        ({"model": {"a": 3}}, "'a' is no float tensor; save the model's state_dict() alone"),
        ({"wte.weight": torch.zeros(3, 2, dtype=torch.int8)}, "'wte.weight' is no float tensor"),
        (
            {"transformer.wte.weight": torch.zeros(3, 2), "wte.weight": torch.zeros(3, 2)},
            "holds 'wte.weight' twice, with different prefixes",
        ),
        ({"wte.weight": torch.full((3, 2), float("nan"))}, "'wte.weight' holds NaN or infinity"),
        (
            {"encoder.layer.0.attention.self.query.weight": torch.zeros(2, 2), "wte.weight": torch.zeros(3, 2)},
            "its weights have the names of no model that slmx imports (GPT-2 or nanoGPT, Llama, llama2.c). "
            "The nearest is GPT-2 or nanoGPT, but there is no ln_f.weight",
        ),
    ],
)
def test_other_content_of_torch_save_is_named(slmx: Slmx, tokenizer_folder: Path, content: object, said: str) -> None:
    torch.save(content, "x.pt")
    assert said in refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder)


def test_arguments_that_contradict_the_weights(slmx: Slmx, tokenizer_folder: Path) -> None:
    torch.save({"model": as_nanogpt(models.gpt2(300)), "model_args": ARGS | {"n_layer": 3}}, "x.pt")
    line = refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder)
    assert line.endswith("its model_args say n_layer 3, its weights 2; the file is of no one model")


def test_heads_that_contradict_what_the_file_says(slmx: Slmx, tokenizer_folder: Path) -> None:
    torch.save({"model": as_nanogpt(models.gpt2(300)), "model_args": ARGS}, "x.pt")
    line = refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder, "--n-head", "2", code=2)
    assert line.endswith("has 4 heads, as its model_args say; leave out --n-head")


def test_a_context_of_one_token(slmx: Slmx, hf_folder: Path) -> None:
    assert "a context of one token predicts nothing" in refused(slmx, hf_folder, "--block-size", "1")


def test_heads_that_do_not_fit(slmx: Slmx, tokenizer_folder: Path) -> None:
    torch.save(models.gpt2(300).state_dict(), "x.pt")
    line = refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder, "--n-head", "5")
    assert line.endswith("model shape: 5 heads do not divide n_embd 32")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("[]", "no JSON object"),
        ('{"heads": 4}', "'heads' is no part of a shape; there are block_size, "),
        ("{", "no JSON ("),
        ('{"n_head": 4, "activation": "tanh"}', "activation must be one of gelu_tanh, gelu, relu, silu, not 'tanh'"),
    ],
)
def test_a_shape_file_that_is_wrong(slmx: Slmx, tokenizer_folder: Path, shape: str, said: str) -> None:
    torch.save(models.gpt2(300).state_dict(), "x.pt")
    Path("shape.json").write_text(shape, "utf-8")
    assert said in refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder, "--shape", "shape.json")


def test_a_file_without_a_tokenizer_and_options_for_other_kinds(slmx: Slmx, hf_folder: Path) -> None:
    torch.save(models.gpt2(300).state_dict(), "x.pt")
    assert "x.pt: holds no tokenizer; add --tokenizer PATH" in refused(slmx, Path("x.pt"), "--n-head", "2", code=2)
    line = refused(slmx, hf_folder, "--n-head", "2", code=2)
    assert line.endswith("--n-head is for files that do not hold it, and a folder does; leave it out")
    assert "nowhere: no such file or folder; --tokenizer names one" in refused(
        slmx, Path("x.pt"), "--n-head", "2", "--tokenizer", "nowhere"
    )
    assert f"one file of a Hugging Face folder; name the folder, {hf_folder}" in refused(
        slmx, hf_folder / "model.safetensors"
    )


def test_a_vocabulary_of_characters_is_named_with_and_without_a_tokenizer(slmx: Slmx, tokenizer_folder: Path) -> None:
    torch.save({"model": as_nanogpt(models.gpt2(65)), "model_args": ARGS}, "char.pt")
    torch.save(models.gpt2(256).state_dict(), "bytes.pt")
    for path, rows in (("char.pt", 65), ("bytes.pt", 256)):
        said = f"{path}: its token table has {rows} rows, fewer than 257, so its vocabulary is of single characters "
        for flags in ((), ("--tokenizer", tokenizer_folder)):
            assert refused(slmx, Path(path), *flags).startswith(said)
    torch.save({"model": as_nanogpt(models.gpt2(257)), "model_args": ARGS}, "x.pt")
    assert "x.pt: holds no tokenizer" in refused(slmx, Path("x.pt"), code=2)


def test_a_vocabulary_larger_than_the_table(slmx: Slmx, tokenizer: HFTokenizer) -> None:
    models.save(models.gpt2(10), tokenizer, Path("hf"))
    line = refused(slmx, Path("hf"))
    assert f"the tokenizer has the id {tokenizer.get_vocab_size() - 1}, the token table only 10 rows" in line


@pytest.mark.parametrize("version", [0, 1])
def test_a_bin_file_that_is_cut_off_or_quantized(version: int, slmx: Slmx, tokenizer_folder: Path) -> None:
    path = Path("stories é.bin")
    write_llama2c(path, meta_names(models.llama(300)), False, version)
    whole = path.read_bytes()
    flags = ("--tokenizer", tokenizer_folder)
    path.write_bytes(whole[:-5])
    assert "it is cut off or of another kind" in refused(slmx, path, *flags)
    path.write_bytes(whole[:100])
    assert "100 bytes, too few for a model of llama2.c" in refused(slmx, path, *flags)
    assert "100 bytes, too few for a model of llama2.c" in refused(slmx, path), "before it is asked for a tokenizer"
    path.write_bytes(struct.pack("<7i", -1, 2**31 - 1, 3, 4, 2, 300, 40).ljust(300, b"\0"))
    assert "n_embd must be a whole number from 1" in refused(slmx, path, *flags)
    path.write_bytes(struct.pack("<Ii", 0x616B3432, 2) + whole[8:])
    assert "version 2 of llama2.c's format; slmx reads the float32 versions 0 and 1" in refused(slmx, path, *flags)
    path.write_bytes(whole[:400] + struct.pack("<f", float("nan")) + whole[404:])
    assert "holds NaN or infinity; copy it again" in refused(slmx, path, *flags)


@pytest.fixture(scope="module")
def small_gguf(tokenizer: HFTokenizer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, models.llama(tokenizer.get_vocab_size()), tokenizer, "Q8_0")
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_half_a_gguf(share: float, slmx: Slmx, small_gguf: bytes) -> None:
    Path("é.gguf").write_bytes(small_gguf[: int(len(small_gguf) * share)])
    refused(slmx, Path("é.gguf"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_gguf_with_changed_bytes_is_read_or_refused_in_one_line(
    data: st.DataObject, small_gguf: bytes, tmp_path: Path
) -> None:
    content = bytearray(small_gguf)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 20_000) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    message = ""
    try:
        import_model(ImportSettings(str(path), tmp_path / "out", force=True), lambda line: None)
    except SlmxError as error:
        message = str(error)
    assert "\n" not in message


def changed_gguf(path: Path, architecture: str, **values: object) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in values.items():
        writer.add_key_value(name.replace("__", "."), value, gguf.GGUFValueType.get_type(value))
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_of_another_architecture_or_without_sizes(slmx: Slmx) -> None:
    changed_gguf(Path("a.gguf"), "mamba")
    assert "a GGUF of the architecture 'mamba'; slmx imports llama, gpt2" in refused(slmx, Path("a.gguf"))
    changed_gguf(Path("b.gguf"), "llama")
    assert "its metadata lacks llama.block_count; download it again" in refused(slmx, Path("b.gguf"))
    changed_gguf(Path("c.gguf"), "llama", llama__block_count=7)
    assert "says 7 layers and holds 0; download it again" in refused(slmx, Path("c.gguf"))


def test_neither_a_path_nor_a_repository(slmx: Slmx) -> None:
    assert "nowhere: no such file or folder; name a Hugging Face folder, " in refused(slmx, Path("nowhere"))
    Path("x.txt").write_text("hello", "utf-8")
    assert "not a file of torch.save, GGUF or llama2.c" in refused(slmx, Path("x.txt"))


@pytest.mark.parametrize("name", ["wpe.weight", "wte.weight", "h.0.mlp.c_fc.weight", "h.0.attn.c_attn.weight"])
@pytest.mark.parametrize("change", ["missing", "a number"])
def test_a_weight_that_tells_the_shape_and_is_none(name: str, change: str, slmx: Slmx, tokenizer_folder: Path) -> None:
    state = as_nanogpt(models.gpt2(300))
    del state[f"_orig_mod.transformer.{name}"]
    if change == "a number":
        state[name] = torch.tensor(1.0)
    torch.save({"model": state, "model_args": ARGS}, "x.pt")
    line = refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder)
    assert f"holds no weight {name}" in line or f"there is no {name}" in line


def test_arguments_that_are_no_plain_values_are_left_out(slmx: Slmx, tokenizer_folder: Path) -> None:
    torch.save({"model": as_nanogpt(models.gpt2(300)), "model_args": ARGS | {"n_head": torch.ones(3, 3)}}, "x.pt")
    line = refused(slmx, Path("x.pt"), "--tokenizer", tokenizer_folder, code=2)
    assert line.endswith("the weights do not tell the number of attention heads; add --n-head N")
