"""A model that holds a tokenizer is moved to the vocabulary of another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models as hf_models
from torch import Tensor

from runtimes.bundle.store import Bundle
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.folder_kind import CHECKPOINT_LISTING, PRETRAINED
from slm.importers import importer
from slm.importers.vocabulary import Move
from slm.storage.listing import write_listing
from slm.tokenizers.settings import TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from tests import bundles
from tests.bundles import Slmx
from tests.slm.importers import models
from tests.slm.importers.gpt2_folders import edit
from tests.slm.importers.test_files import write_gguf
from tests.slm.importers.trained import config_of, folder_of

BYTES = [bytes([value]) for value in range(256)]
TABLES = ("wte.weight", "lm_head.weight")


def move(own: Sequence[bytes], new: Sequence[bytes], begin: str | None = None) -> Move:
    return Move.between(Tokenizer(own), Tokenizer([*BYTES, *new], TokenizerSettings(begin=begin)))


def test_the_parts_of_new_tokens() -> None:
    own = [*BYTES, b"th", b"the", b" c"]
    new = [b"the", b"thec", b" ca", "é".encode(), b"\xc3\xa9t", b"\xe2\x80", b"th\xff"]
    moved = move(own, new)
    assert moved.parts[:256] == [[value] for value in range(256)]
    assert moved.parts[256:-1] == [
        [257],
        [257, ord("c")],
        [258, ord("a")],
        [0xC3, 0xA9],
        [0xC3, 0xA9, ord("t")],
        [0xE2, 0x80],
        [ord("t"), ord("h"), 0xFF],  # its bytes are not UTF-8, so they are taken one by one
    ]
    assert moved.parts[-1] == [len(own)]  # the end of a text
    assert moved.whole == 257


def test_bytes_that_the_model_lacks() -> None:
    own = [byte for byte in BYTES if byte not in (b"\x01", b"\xfe", b"\xff")]
    moved = move(own, [b"\xff\xfe", b"\xffa", b"\x01\x01", b"\x01a"])
    a = own.index(b"a")
    assert [moved.parts[value] for value in (1, 0xFE, 0xFF)] == [[], [], []]
    assert moved.parts[256:-1] == [[], [a], [], [a]]
    assert moved.whole == 253
    rows = torch.randn(len(own) + 1, 3)
    assert torch.equal(moved.table(rows)[256], rows.mean(0))
    assert torch.equal(moved.table(rows)[257], rows[a])


def test_a_row_is_the_mean_of_its_parts() -> None:
    rows = torch.arange(8.0).view(4, 2) ** 2  # [[0, 1], [4, 9], [16, 25], [36, 49]]
    moved = Move([[2], [0, 1], [1, 3, 3], []], whole=1).table(rows)
    expected = [[16, 25], [2, 5], [76 / 3, 107 / 3], [14, 21]]
    torch.testing.assert_close(moved, torch.tensor(expected))
    assert torch.equal(moved[:2], torch.tensor(expected[:2]))


@pytest.mark.parametrize(("own", "new"), [(None, None), (None, "<s>"), ("<s>", None), ("<s>", "<s>")])
def test_the_tokens_that_end_and_begin_a_text(own: str | None, new: str | None) -> None:
    model = Tokenizer(BYTES, TokenizerSettings(begin=own))
    parts = Move.between(model, Tokenizer(BYTES, TokenizerSettings(begin=new))).parts[256:]
    assert parts == [[model.end_of_text], [model.begin]][: 1 if new is None else 2]


@pytest.mark.parametrize("prefix", ["always", "first", "never"])
def test_the_model_has_sentencepiece(prefix: str) -> None:
    own = Tokenizer([*BYTES, b"a", b"t", b" ", b"at", b" a"], TokenizerSettings("sentencepiece", prefix=prefix))
    moved = Move.between(own, Tokenizer([*BYTES, b"at", b"ta", b" at", b" ta", "é".encode()]))
    # Of a byte and a character the character is taken, because texts have no such bytes.
    assert moved.parts[ord("a")] == [256]
    assert moved.parts[ord("b")] == [ord("b")]
    assert moved.parts[256:-1] == [[259], [257, 256], [258, 259], [258, 257, 256], [0xC3, 0xA9]]


def test_the_new_tokens_are_those_of_sentencepiece() -> None:
    new = Tokenizer([*BYTES, b"a", b" a", "é".encode()], TokenizerSettings("sentencepiece"))
    moved = Move.between(Tokenizer([*BYTES, b" a"]), new)
    assert moved.parts == [*([value] for value in range(256)), [ord("a")], [256], [0xC3, 0xA9], [257]]


def expected_table(rows: Tensor, own: Tokenizer, new: Tokenizer) -> Tensor:
    """The rule in other words: a whole token, or the mean of what the model's own tokenizer makes of the text."""
    last = {token: len(own.tokens) - 1 - own.tokens[::-1].index(token) for token in own.tokens}
    bare = Tokenizer(own.tokens, replace(own.settings, prefix="never"))
    found = []
    for token in new.tokens:
        try:
            ids = [own.tokens.index(token)] if own.tokens.count(token) == 1 else bare.encode(token.decode("utf-8"))
        except UnicodeDecodeError:
            ids = [last[bytes([value])] for value in token]
        found.append(rows[ids].mean(0))
    ends = [own.end_of_text, own.begin][: len(new.specials)]
    return torch.stack([*found, *rows[ends]])


def check_moved(plain: Checkpoint, moved: Checkpoint, new: Tokenizer) -> None:
    """Only the tables differ from those of a plain import, and they hold the rows of the new tokens."""
    own, state = plain.tokenizer, moved.model.state_dict()
    assert moved.tokenizer == new
    assert moved.model.config == replace(plain.model.config, vocab_size=new.vocab_size)
    for name, tensor in plain.model.state_dict().items():
        expected = expected_table(tensor, own, new) if name in TABLES else tensor
        assert torch.equal(state[name], expected), name
    whole = sum(token in own.tokens for token in new.tokens)
    assert moved.record["imported"] == {
        **plain.record["imported"],
        "vocabulary": {"tokens": new.vocab_size, "whole": whole},
    }
    assert moved.record["licence"] == plain.record["licence"]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "tied"), [("a folder é", False), ("a folder é", True), ("model é.gguf", False)])
def test_a_model_is_moved_and_tells_a_story(source: str, tied: bool, slmx: Slmx, tokenizer: HFTokenizer) -> None:
    new = Path("the tokenizer é")
    shutil.copytree(PRETRAINED / "nano", new)
    padded = tokenizer.get_vocab_size() + 7
    model = models.llama(padded, tie_word_embeddings=tied, rms_norm_eps=1e-6)
    if source.endswith(".gguf"):
        write_gguf(Path(source), model, tokenizer, "F32")
    else:
        models.save(model, tokenizer, Path(source))
    assert slmx("import", source, "--out", "plain").code == 0
    ran = slmx("import", source, "--out", "moved", "--tokenizer", new)
    assert (ran.code, ran.stdout) == (0, "moved\n")
    plain, moved = load_checkpoint(Path("plain")), load_checkpoint(Path("moved"))
    assert moved.model.config.tied is tied
    check_moved(plain, moved, load_checkpoint(new).tokenizer)
    said, last = ran.stderr.splitlines()
    whole = moved.record["imported"]["vocabulary"]["whole"]
    assert said == (
        f"moved from {plain.tokenizer.vocab_size} tokens to the 8,000 of --tokenizer, of which {whole} are whole "
        "tokens of the model; fine-tune it, because it predicts worse until then"
    )
    parameters = moved.model.config.parameters
    assert last == f"{parameters:,} parameters; now: slmx train --init moved --text STORIES --out NEW"
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", "moved").code == 0
    assert Bundle.open(Path("bundles/moved")).tokenizer() == moved.tokenizer
    ran = slmx("generate", "Once upon", "--bundle", "bundles/moved", "--max-tokens", "5", "--seed", "1")
    assert (ran.code, ran.stdout[:9]) == (0, "Once upon")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "new"),
    [
        ("sentencepiece always", "gpt2"),
        ("gpt2", "sentencepiece always"),
        ("sentencepiece first", "sentencepiece of phrases"),
        ("qwen2", "digits"),
    ],
)
def test_every_kind_of_tokenizer_can_be_on_both_sides(own: str, new: str, slmx: Slmx) -> None:
    for kind, name in ((own, "own"), (new, "new")):
        size = len(json.loads((folder_of(kind, Path(name)) / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
        models.llama(size, n_layer=1).save_pretrained(name)  # type: ignore[operator]
        edit(Path(name) / "config.json", partial(dict.update, **config_of(kind)))
        assert slmx("import", name, "--out", f"plain {name}").code == 0
    assert slmx("import", "own", "--out", "moved", "--tokenizer", "new").code == 0
    wanted = load_checkpoint(Path("plain new")).tokenizer
    check_moved(load_checkpoint(Path("plain own")), load_checkpoint(Path("moved")), wanted)


@pytest.mark.slow
def test_a_shipped_model_is_named_by_its_name(slmx: Slmx, hf_folder: Path) -> None:
    assert slmx("import", hf_folder, "--out", "mine", "--tokenizer", "nano").code == 0
    assert load_checkpoint(Path("mine")).tokenizer == load_checkpoint(Path("nano")).tokenizer


@pytest.mark.slow
def test_what_no_model_can_be_moved_to(slmx: Slmx, hf_folder: Path, tiny_checkpoint: Path) -> None:
    def refused(path: str | Path, code: int = 1) -> str:
        return slmx.refuses_unchanged("import", hf_folder, "--out", "mine", "--tokenizer", path, code=code)

    shipped = sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir())
    names = f"--tokenizer names one that holds a tokenizer, or a shipped model: {', '.join(shipped)}"
    assert refused("no é") == f"no é: no such file or folder; {names}"
    Path("empty").mkdir()
    assert refused("empty").startswith("empty: holds no tokenizer.json; ")
    assert refused("nan") == f"nan: no such file or folder (did you mean nano?); {names}"
    assert refused("emptyy").startswith("emptyy: no such file or folder (did you mean empty?); ")
    assert refused(".").startswith(".: holds no tokenizer.json; ")
    Path("words").mkdir()
    HFTokenizer(hf_models.WordPiece({"a": 0}, unk_token="a")).save("words/tokenizer.json")
    assert refused("words").startswith("words/tokenizer.json: not a BPE tokenizer that slmx knows (")
    assert refused("words/tokenizer.json", code=2).endswith(f"name the folder of this file, {Path('words').absolute()}")
    ranks = tiny_checkpoint / "tokenizer.tiktoken"
    assert refused(ranks, code=2) == f"--tokenizer {ranks}: name the folder of this file, {tiny_checkpoint}"
    bundle = PRETRAINED.parents[1] / "runtimes/bundles/nano"
    assert slmx("pack", bundle, "--out", "nano é.slmx").code == 0
    assert refused("nano é.slmx") == (
        "nano é.slmx: a packed bundle; slmx unpack makes a folder of it, which --tokenizer takes"
    )
    Path("model.gguf").write_bytes(b"GGUF")
    assert refused("model.gguf") == (
        "model.gguf: a file; --tokenizer names a folder that holds a tokenizer, or a tokenizer.bin"
    )
    assert refused(hf_folder, code=2) == (
        f"--tokenizer {hf_folder}: {hf_folder} has this tokenizer already; leave it out"
    )
    broken = bundles.copy_of(tiny_checkpoint, Path("broken"))
    (broken / "tokenizer.tiktoken").unlink()
    assert refused("broken").startswith("broken/tokenizer.tiktoken: missing, but config.json lists it; ")


def test_no_model_is_moved_to_a_vocabulary_that_cannot_be_trained(slmx: Slmx, hf_folder: Path, tmp_path: Path) -> None:
    tokens = [*BYTES, *(bytes([i >> 8, i & 255]) for i in range(65536 - 256))]
    large = tmp_path / "large é"
    large.mkdir()
    Tokenizer(tokens).save(large, [])
    write_listing(large, CHECKPOINT_LISTING)
    (large / "training.json").write_text("{}", "utf-8")
    assert slmx.refuses_unchanged("import", hf_folder, "--out", "mine", "--tokenizer", large) == (
        f"--tokenizer {large}: has 65,537 tokens; a moved model must be fine-tuned, and slmx trains models of at most "
        "65,536; name a smaller one, such as nano"
    )


def test_a_shipped_model_needs_no_import(slmx: Slmx) -> None:
    assert slmx.refuses_unchanged("import", "nano", "--out", "mine") == (
        "nano: a checkpoint that ships with slmx, which needs no import: slmx export --checkpoint nano takes it"
    )


def test_the_out_folder_is_checked_before_a_download(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_download", lambda name: pytest.fail("it was downloaded"))
    Path("mine é").mkdir()
    Path("mine é/notes.txt").write_text("x", "utf-8")
    line = slmx.refuses_unchanged("import", "someone/model", "--out", "mine é")
    assert line.startswith("mine é: not empty: it holds other files, such as notes.txt")
    shutil.copytree(PRETRAINED / "nano", "full")
    line = slmx.refuses_unchanged("import", "someone/model", "--out", "full")
    assert line.startswith("full: not empty; choose another --out, or --force to replace it")


def test_the_tokenizer_is_read_before_a_download(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_download", lambda name: pytest.fail("it was downloaded"))
    line = slmx.refuses("import", "someone/model", "--out", "mine", "--tokenizer", "nowhere")
    assert line.startswith("nowhere: no such file or folder")
