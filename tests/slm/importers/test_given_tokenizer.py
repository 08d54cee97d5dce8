"""The tokenizer of a Hugging Face folder without a model: where the tokens that begin and end a text are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer

from slm.checkpoint import load_checkpoint
from slm.tokenizers.settings import TokenizerSettings
from tests.bundles import Slmx
from tests.slm.importers import models
from tests.slm.importers.gpt2_folders import END, edit, hugging_face, made_tokenizer

pytestmark = pytest.mark.slow
STOP, START = "<|im_end|>", "<|im_start|>"


@pytest.fixture
def folder(stories: list[str], tmp_path: Path) -> Path:
    """A folder of a tokenizer as transformers saves it. Another token than the usual one ends texts."""
    tokenizer = made_tokenizer(stories, [END, STOP, START])
    fast = hugging_face.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=STOP, bos_token=START)
    fast.save_pretrained(tmp_path / "a tokenizer é")
    torch.save(models.gpt2(tokenizer.get_vocab_size(), n_layer=1).state_dict(), "x.pt")
    return tmp_path / "a tokenizer é"


def imported(slmx: Slmx, folder: Path) -> TokenizerSettings:
    shutil.rmtree("mine", ignore_errors=True)
    assert slmx("import", "x.pt", "--n-head", "2", "--tokenizer", folder, "--out", "mine").code == 0
    return load_checkpoint(Path("mine")).tokenizer.settings


def refused(slmx: Slmx, folder: Path) -> str:
    return slmx.refuses_unchanged("import", "x.pt", "--n-head", "2", "--tokenizer", folder, "--out", "mine")


@pytest.mark.parametrize("as_object", [False, True])
def test_a_folder_that_transformers_saved_names_its_end(as_object: bool, slmx: Slmx, folder: Path) -> None:
    if as_object:
        edit(folder / "tokenizer_config.json", lambda values: values.update(eos_token={"content": STOP}))
    assert imported(slmx, folder) == TokenizerSettings(end=STOP, begin=START)


def test_an_end_that_is_named_nowhere_is_refused_and_the_advice_works(slmx: Slmx, folder: Path) -> None:
    for change in ("without eos_token", "without the file"):
        if change == "without eos_token":
            edit(folder / "tokenizer_config.json", lambda values: values.pop("eos_token"))
        else:
            (folder / "tokenizer_config.json").unlink()
        assert refused(slmx, folder) == (
            f"{folder / 'config.json'}: missing, and tokenizer_config.json names no eos_token; write "
            '{"eos_token_id": ID} into config.json, with the id of the token that ends a text'
        )
    number = HFTokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(STOP)
    (folder / "config.json").write_text(f'{{"eos_token_id": {number}}}', "utf-8")
    assert imported(slmx, folder).end == STOP


@pytest.mark.parametrize("token", ["<|no such|>", "e"])
def test_an_end_that_is_no_special_token_is_refused(token: str, slmx: Slmx, folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    edit(path, lambda values: values.update(eos_token=token))
    assert f"{path}: eos_token is '{token}', which is no special token of this tokenizer" in refused(slmx, folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("damage", ["cut", "no object", "a folder", "a dangling link"])
def test_a_damaged_configuration_is_named(name: str, damage: str, slmx: Slmx, folder: Path) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if damage == "a folder":
        path.mkdir()
    elif damage == "a dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_text('{"eos_token_id": ' if damage == "cut" else "[]", "utf-8")
    assert refused(slmx, folder).startswith(f"{path}: {'cannot read' if damage == 'a dangling link' else 'not a '}")
