"""A byte-level BPE of another tool becomes a slmx tokenizer with the same splits, or is refused with one line."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.tokenizers.tokenizer_json import to_unicode
from tests.bundles import Slmx
from tests.slm.importers.gpt2_folders import END, VOCABULARY, edit, hugging_face, made_model, made_tokenizer, rows_of

pytestmark = pytest.mark.slow


def test_special_tokens_of_no_story_are_left_out(slmx: Slmx, stories: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    model = made_model(folder, made_tokenizer(stories, ["<pad>", "<unk>", END]), vocab_size=VOCABULARY + 8)
    ran = slmx("import", folder, "--out", "mine")
    assert ran.code == 0
    assert "left out the special tokens '<pad>', '<unk>': slmx reads them as plain text\n" in ran.stderr
    assert "left out 8 rows of the token table that no text can reach\n" in ran.stderr
    checkpoint = load_checkpoint(Path("mine"))
    assert checkpoint.tokenizer.vocab_size == VOCABULARY - 2
    rows = rows_of(folder)
    assert rows[-1] == 2
    ids = [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode(stories[0])][:40]
    with torch.inference_mode():
        theirs = model(torch.tensor([[rows[i] for i in ids]])).logits[0][:, rows]
        torch.testing.assert_close(checkpoint.model(torch.tensor([ids]))[0], theirs, rtol=1e-4, atol=1e-5)


def test_a_table_with_much_padding_is_that_of_the_tokenizer_beside_it(
    slmx: Slmx, stories: list[str], tmp_path: Path
) -> None:
    made_model(tmp_path / "hf", made_tokenizer(stories, [END]), vocab_size=VOCABULARY + 3000)
    ran = slmx("import", tmp_path / "hf", "--out", "mine")
    assert ran.code == 0
    assert "left out 3,000 rows of the token table that no text can reach\n" in ran.stderr


@pytest.mark.parametrize("key", ["continuing_subword_prefix", "end_of_word_suffix", "dropout"])
def test_a_setting_that_slmx_does_not_have_is_named(slmx: Slmx, hf_folder: Path, key: str) -> None:
    """`tokenizers` panics for a prefix that is longer than a part of a merge."""
    path = hf_folder / "tokenizer.json"
    edit(path, lambda content: content["model"].update({key: 0.5 if key == "dropout" else END}))
    assert slmx.refuses("import", hf_folder, "--out", "mine").startswith(f"{path}: {key} is ")


def test_a_panic_of_tokenizers_is_one_line(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_: str) -> None:
        raise BaseException("byte index 13 is out of bounds")

    monkeypatch.setattr("tokenizers.Tokenizer", SimpleNamespace(from_str=panic))
    with pytest.raises(SlmxError, match=r"tokenizers cannot read it \(byte index 13 is out of bounds\); "):
        import_tokenizer(hf_folder, {})


@pytest.mark.parametrize(
    "change",
    [
        {"version": "\n\x1b[31m"},
        {"model": None},
        {"model": {"type": "BPE"}},
        {"added_tokens": 5},
        {"added_tokens": [5]},
        {"added_tokens": [{"content": "x"}]},
        {"added_tokens": [{"content": "x", "id": -1}]},
        {"added_tokens": [{"content": "x", "id": 1.5}]},
        {"pre_tokenizer": 5},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": "no"}},
        {"normalizer": {"type": "NFC"}},
    ],
    ids=str,
)
def test_a_tokenizer_of_wrong_types_is_one_line(slmx: Slmx, hf_folder: Path, change: dict[str, object]) -> None:
    edit(hf_folder / "tokenizer.json", lambda content: content.update(change))
    assert slmx.refuses("import", hf_folder, "--out", "mine").startswith(f"{hf_folder / 'tokenizer.json'}: ")


@pytest.mark.parametrize("number", [-1, 1.5, "x", None, True])
def test_a_vocabulary_of_wrong_types_is_one_line(slmx: Slmx, hf_folder: Path, number: object) -> None:
    edit(hf_folder / "tokenizer.json", lambda content: content["model"]["vocab"].update(a=number))
    assert "vocab.a is not a whole number" in slmx.refuses("import", hf_folder, "--out", "mine")


def test_two_tokens_of_one_id_are_refused(slmx: Slmx, hf_folder: Path) -> None:
    edit(
        hf_folder / "tokenizer.json", lambda content: content["model"]["vocab"].update(a=content["model"]["vocab"]["b"])
    )
    assert slmx.refuses("import", hf_folder, "--out", "mine").endswith("two tokens have one id; download it again")


def test_tokens_that_the_user_added_are_refused_and_the_advice_works(
    slmx: Slmx, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    """`Zoë` is one id in its model. In tiktoken's rank format it would be several ordinary tokens."""
    folder = tmp_path / "my é # folder"
    model = made_model(folder, tokenizer)
    theirs = hugging_face.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"pad_token": "<my pad>", "additional_special_tokens": ["<|user|>", "<|bot|>"]})
    theirs.add_tokens(["Zoë", "  ", "\t"])
    theirs.save_pretrained(folder)
    model.resize_token_embeddings(len(theirs), mean_resizing=False)
    model.save_pretrained(folder)
    edit(folder / "tokenizer.json", lambda content: content["added_tokens"].pop())
    line = slmx.refuses("import", folder, "--out", "mine")
    assert line == (
        f"{folder / 'tokenizer.json'}: has the added tokens 'Zo\\xeb', '  ', which slmx cannot keep; "
        "if no text needs them, delete them from added_tokens in this file and import again"
    )
    edit(
        folder / "tokenizer.json",
        lambda content: content.update(added_tokens=[token for token in content["added_tokens"] if token["special"]]),
    )
    ran = slmx("import", folder, "--out", "mine")
    assert ran.code == 0
    assert "left out the special tokens '<my pad>', '<|user|>', '<|bot|>': " in ran.stderr
    assert "left out 3 rows of the token table that no text can reach" in ran.stderr
    assert load_checkpoint(Path("mine")).tokenizer.vocab_size == VOCABULARY


def test_an_end_that_is_an_ordinary_word_is_refused_and_the_advice_works(
    slmx: Slmx, hf_folder: Path, tokenizer: HFTokenizer
) -> None:
    edit(hf_folder / "config.json", lambda content: content.update(eos_token_id=300))
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    end = tokenizer.token_to_id(END)
    assert re.fullmatch(
        rf".*config\.json: eos_token_id is 300, the id of the ordinary token '.+'; set it to {end} \(<\|endoftext\|>\)",
        line,
    )
    edit(hf_folder / "config.json", lambda content: content.update(eos_token_id=[end]))
    assert slmx("import", hf_folder, "--out", "mine").code == 0
    rows = rows_of(hf_folder)
    assert len(set(rows)) == len(rows)


def test_an_end_that_is_no_token_is_the_usual_one(slmx: Slmx, hf_folder: Path) -> None:
    edit(hf_folder / "config.json", lambda content: content.update(eos_token_id=50256))
    assert slmx("import", hf_folder, "--out", "mine").code == 0


def test_a_token_of_its_own_begins_a_text(slmx: Slmx, stories: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    made_model(folder, made_tokenizer(stories, ["<s>", END]), bos_token_id=0)
    assert slmx("import", folder, "--out", "mine").code == 0
    tokenizer = load_checkpoint(Path("mine")).tokenizer
    assert (tokenizer.settings.begin, tokenizer.settings.end) == ("<s>", END)
    assert rows_of(folder)[tokenizer.begin] == 0
    assert rows_of(folder)[tokenizer.end_of_text] == 1


def test_a_beginning_that_is_an_ordinary_word_is_refused(slmx: Slmx, hf_folder: Path) -> None:
    edit(hf_folder / "config.json", lambda content: content.update(bos_token_id=300))
    assert "bos_token_id is 300, the id of the ordinary token" in slmx.refuses("import", hf_folder, "--out", "mine")
    edit(hf_folder / "config.json", lambda content: content.update(bos_token_id=None))
    assert slmx("import", hf_folder, "--out", "mine").code == 0


def test_padding_and_truncation_of_a_tokenizer_do_not_matter(slmx: Slmx, hf_folder: Path) -> None:
    theirs = HFTokenizer.from_file(str(hf_folder / "tokenizer.json"))
    theirs.enable_padding(length=64)
    theirs.enable_truncation(4)
    theirs.save(str(hf_folder / "tokenizer.json"))
    assert slmx("import", hf_folder, "--out", "mine").code == 0


def test_a_tokenizer_that_splits_otherwise_is_refused(slmx: Slmx, hf_folder: Path, stories: list[str]) -> None:
    lower = made_tokenizer(stories, [END])
    lower.normalizer = normalizers.Lowercase()
    lower.save(str(hf_folder / "tokenizer.json"))
    assert "splits text in another way ('Lowercase, ByteLevel') than" in slmx.refuses(
        "import", hf_folder, "--out", "mine"
    )
    edit(hf_folder / "tokenizer.json", lambda content: content.update(normalizer=None))
    edit(hf_folder / "tokenizer.json", lambda content: content["pre_tokenizer"].update(use_regex=False))
    assert "splits text in another way ('ByteLevel') than" in slmx.refuses("import", hf_folder, "--out", "mine")


def test_a_tokenizer_without_an_end_is_refused(slmx: Slmx, hf_folder: Path) -> None:
    edit(hf_folder / "config.json", lambda content: content.update(eos_token_id=None))
    edit(hf_folder / "tokenizer.json", lambda content: content["added_tokens"][0].update(content="<eos>"))
    edit(hf_folder / "tokenizer.json", lambda content: content["model"]["vocab"].pop(END))
    line = slmx.refuses("import", hf_folder, "--out", "mine")
    assert line.endswith("no end-of-text token; name its id as eos_token_id in config.json")


def test_bytes_without_a_token_are_left_out_as_hugging_face_does(stories: list[str], tmp_path: Path) -> None:
    tokenizer = HFTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rare = {to_unicode(bytes([byte])) for byte in (0x04, 0x06, 0x1D, 0xF1, 0xFF)}
    alphabet = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in rare]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(stories, trainer)
    folder = tmp_path / "hf"
    made_model(folder, tokenizer)
    imported = import_tokenizer(folder, {})
    for text in ("a\x04b", "\x06", "One \x1d\x1d day", "x\U00050000 y", "no rare byte", stories[0]):
        ours = imported.tokenizer.encode(text)
        assert [imported.rows[i] for i in ours] == tokenizer.encode(text).ids, text
        assert imported.tokenizer.encode_to_numpy(text).tolist() == ours
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END])
    tokenizer.train_from_iterator(stories, trainer)
    made_model(tmp_path / "few", tokenizer)
    with pytest.raises(SlmxError, match=r"of the 256 bytes are not tokens, so most text cannot be encoded"):
        import_tokenizer(tmp_path / "few", {})
