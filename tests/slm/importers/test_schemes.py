"""Imported tokenizers of every scheme give the ids and the texts of Hugging Face's `tokenizers`."""

from __future__ import annotations

import functools
import json
import random
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from slm.console.errors import SlmxError
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.importers.imported_tokenizer import ImportedTokenizer
from slm.storage.file_names import JSON_FILE
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import load_merges
from tests.slm.importers.strings import made_strings
from tests.slm.importers.trained import END, KINDS, SPECIALS, changed, config_of, folder_of, made

STRINGS = 10_000
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def imported(kind: str) -> ImportedTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return import_tokenizer(folder_of(kind, Path(folder)), config_of(kind))


def theirs_of(kind: str) -> tokenizers.Tokenizer:
    """The tokenizer that was imported."""
    return tokenizers.Tokenizer.from_str(made(kind))


def written(kind: str) -> tokenizers.Tokenizer:
    """The tokenizer.json that slmx writes, as `tokenizers` reads it."""
    ours = imported(kind)
    with tempfile.TemporaryDirectory() as folder:
        ours.tokenizer.save(Path(folder), ours.merges)
        assert Tokenizer.load(Path(folder), ours.tokenizer.settings) == ours.tokenizer
        assert load_merges(Path(folder)) == ours.merges
        return tokenizers.Tokenizer.from_file(f"{folder}/{JSON_FILE}")


@pytest.mark.slow
@EVERY_KIND
def test_ten_thousand_strings_have_the_same_ids_and_survive(kind: str) -> None:
    ours, strings = imported(kind), made_strings(STRINGS, seed=2)
    source, copy = theirs_of(kind), written(kind)
    source.encode_special_tokens = copy.encode_special_tokens = True
    found = [ours.tokenizer.encode(string) for string in strings]
    in_source = source.encode_batch(strings, add_special_tokens=False)
    assert [
        string
        for string, ids, encoding in zip(strings, found, in_source, strict=True)
        if [ours.rows[token] for token in ids] != encoding.ids
    ] == []
    assert [encoding.ids for encoding in copy.encode_batch(strings, add_special_tokens=False)] == found
    texts = [ours.tokenizer.decode(ids) for ids in found]
    assert texts == copy.decode_batch(found)
    assert texts == source.decode_batch([encoding.ids for encoding in in_source])
    for string, text in zip(strings, texts, strict=True):
        assert text == expected_text(kind, string)


def expected_text(kind: str, string: str) -> str:
    """The text that encoding keeps of a string."""
    if kind.startswith("sentencepiece"):
        string = string.replace("\u2581", " ")
        return string.removeprefix(" ") if kind.endswith("first") else string
    return unicodedata.normalize("NFC", string) if kind == "qwen2" else string


@EVERY_KIND
def test_any_ids_have_the_same_text(kind: str) -> None:
    ours, copy, pick = imported(kind).tokenizer, written(kind), random.Random(0)
    halves = 0
    for _ in range(2000):
        wanted = pick.choice((range(256), range(ours.vocab_size)))
        ids = [pick.choice(wanted) for _ in range(pick.randrange(12))]
        whole = b"".join(map(ours.token_bytes, ids))
        assert ours.decode_bytes(ids) == (whole.removeprefix(b" ") if ours.drops_space else whole)
        assert ours.decode(ids) == ours.decode_bytes(ids).decode("utf-8", "replace")
        halves += "\ufffd" in ours.decode(ids)
        if kind.startswith("sentencepiece") and "\ufffd" in copy.decode(ids):
            continue  # `tokenizers` writes an U+FFFD for each byte of a run of bytes that is not UTF-8 as a whole
        assert ours.decode(ids) == copy.decode(ids)
    assert halves > 500


@EVERY_KIND
def test_special_tokens_in_a_text_are_ids_only_if_they_are_allowed(kind: str) -> None:
    ours, copy, pick = imported(kind).tokenizer, written(kind), random.Random(0)
    for string in made_strings(1000, seed=3):
        cut = pick.randrange(len(string) + 1)
        text = string[:cut] + pick.choice((*ours.specials, "".join(ours.specials))) + string[cut:]
        allowed = ours.encode(text, allow_special=True)
        assert allowed == copy.encode(text).ids
        assert max(allowed) >= ours.end_of_text
        assert max(ours.encode(text)) < ours.end_of_text


@EVERY_KIND
def test_the_longest_token_bounds_the_number_of_tokens(kind: str) -> None:
    ours = imported(kind).tokenizer
    longest = max(ours.tokens, key=len).decode("utf-8", "replace")
    for text in (longest * 9, longest.replace(" ", "\u2581") * 9, "".join(ours.specials) * 9, "\u1112\u1161\u11ab" * 9):
        assert len(ours.encode(text, allow_special=True)) >= len(text.encode()) / ours.longest_token


def test_every_kind_has_its_own_begin_and_end() -> None:
    for kind in KINDS:
        ours = imported(kind)
        tokenizer = ours.tokenizer
        assert len(set(ours.rows)) == len(ours.rows) == tokenizer.vocab_size
        if kind.startswith("sentencepiece"):
            assert [ours.rows[tokenizer.begin], ours.rows[tokenizer.end_of_text]] == [1, 2]
            assert list(tokenizer.specials) == ["</s>", "<s>"]
            assert ours.left_out == ["<unk>"]
        else:
            assert ours.rows[tokenizer.begin] == ours.rows[tokenizer.end_of_text] == 0
            assert list(tokenizer.specials) == [END]
            assert ours.left_out == SPECIALS[1:]


def test_begin_and_end_can_be_any_special_tokens(tmp_path: Path) -> None:
    ours = import_tokenizer(folder_of("digits", tmp_path / "a"), {"bos_token_id": 1, "eos_token_id": 0})
    assert list(ours.tokenizer.specials) == [END, "<|im_start|>"]
    assert ours.rows[-2:] == [0, 1]
    other = import_tokenizer(folder_of("digits", tmp_path / "a"), {"bos_token_id": 1, "eos_token_id": 1})
    assert (other.tokenizer.begin, other.rows[-1], other.left_out) == (other.tokenizer.end_of_text, 1, [END])


def test_a_token_that_no_merges_lead_to_is_taken_whole_if_the_model_does_so(tmp_path: Path) -> None:
    """Llama-3 has such tokens."""

    def add(content: dict[str, Any], whole: bool) -> None:
        content["model"]["vocab"]["Ġzqxj"] = len(content["model"]["vocab"])
        content["model"]["ignore_merges"] = whole

    folder = changed(folder_of("cl100k", tmp_path / "a"), lambda content: add(content, True))
    ours = import_tokenizer(folder, config_of("cl100k"))
    ours.tokenizer.save(tmp_path, ours.merges)
    copy = tokenizers.Tokenizer.from_file(str(tmp_path / JSON_FILE))
    source = tokenizers.Tokenizer.from_file(str(folder / JSON_FILE))
    for text in (" zqxj", "a zqxj", "zqxj", " zqxja", "  zqxj 1"):
        ids = ours.tokenizer.encode(text)
        assert ids == copy.encode(text).ids
        assert [ours.rows[token] for token in ids] == source.encode(text).ids
    assert len(ours.tokenizer.encode(" zqxj")) == 1
    without = import_tokenizer(changed(folder, lambda content: add(content, False)), config_of("cl100k"))
    assert len(without.tokenizer.encode(" zqxj")) > 1
    assert without.tokenizer.vocab_size == ours.tokenizer.vocab_size - 1


def refusal(folder: Path, kind: str) -> str:
    with pytest.raises(SlmxError) as caught:
        import_tokenizer(folder, config_of(kind))
    line = str(caught.value)
    assert line.startswith(f"{folder / JSON_FILE}: ")
    assert line.isprintable()
    return line


SPLIT = {"type": "Split", "pattern": {"Regex": r"(a+)+$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("cl100k", "pre_tokenizer", {"type": "Sequence", "pretokenizers": [SPLIT, BYTES]}, "('Split, ByteLevel')"),
        ("gpt2", "pre_tokenizer", {"type": "Whitespace"}, "('Whitespace')"),
        ("gpt2", "pre_tokenizer", {"type": "\x1b[2J" * 50}, "in another way"),
        ("gpt2", "pre_tokenizer", None, "('without any')"),
        ("gpt2", "pre_tokenizer", {"type": "Sequence", "pretokenizers": 5}, "a sequence has no list of steps"),
        ("gpt2", "pre_tokenizer", {"type": "Sequence", "pretokenizers": [5]}, "is no object"),
        ("digits", "pre_tokenizer", {"type": "Digits", "individual_digits": True}, "('Digits')"),
        ("qwen2", "normalizer", {"type": "NFKC"}, "('NFKC, Split, ByteLevel')"),
        ("sentencepiece always", "pre_tokenizer", {"type": "Metaspace", "split": True}, "Replace, Metaspace')"),
        ("sentencepiece always", "normalizer", None, "('without any')"),
    ],
)
def test_other_ways_to_split_are_refused_by_name(tmp_path: Path, kind: str, key: str, value: object, said: str) -> None:
    folder = changed(folder_of(kind, tmp_path / "a"), lambda content: content.update({key: value}))
    assert said in refusal(folder, kind)


def test_other_models_are_refused(tmp_path: Path) -> None:
    def change(**values: object) -> Path:
        folder = folder_of("sentencepiece always", tmp_path / "a")
        return changed(folder, lambda content: content["model"].update(values))

    kind = "sentencepiece always"
    assert "its model is 'Unigram', and slmx knows BPE only" in refusal(change(type="Unigram"), kind)
    assert "byte_fallback is false" in refusal(change(byte_fallback=False), kind)
    folder = changed(folder_of(kind, tmp_path / "a"), lambda content: content["model"]["vocab"].pop("<0x41>"))
    assert "the token '<0x41>' is missing" in refusal(folder, kind)
    folder = changed(
        folder_of(kind, tmp_path / "a"),
        lambda content: content["model"]["merges"].append(content["model"]["merges"][0]),
    )
    assert "in two places" in refusal(folder, kind)


def test_a_token_whose_parts_slmx_would_join_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["model"]["vocab"]["zq"] = len(content["model"]["vocab"])
        content["model"]["ignore_merges"] = True

    folder = changed(folder_of("cl100k", tmp_path / "a"), change)
    assert "has no merge of 'zq', but slmx would join its parts" in refusal(folder, "cl100k")


def gpt2_files(folder: Path) -> Path:
    """The folder with GPT-2's older files, as its slow tokenizer writes them."""
    model = json.loads(made("gpt2"))["model"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines), "utf-8")
    return folder


def test_a_folder_with_the_older_files_is_read(tmp_path: Path) -> None:
    folder = gpt2_files(tmp_path / "a")
    ours, expected = import_tokenizer(folder, config_of("gpt2")), imported("gpt2")
    assert (ours.tokenizer, ours.rows, ours.merges) == (expected.tokenizer, expected.rows, expected.merges)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (folder / "added_tokens.json").write_text('{"<pad>": 5000}')
    assert import_tokenizer(folder, config_of("gpt2")).left_out == ["<pad>"]
    (folder / "added_tokens.json").write_text('{"   ": 5000}')
    with pytest.raises(SlmxError, match=r"vocab\.json: has the added tokens '   ', which slmx cannot keep"):
        import_tokenizer(folder, config_of("gpt2"))


def test_older_files_of_other_tokenizers_are_refused(tmp_path: Path) -> None:
    folder = gpt2_files(tmp_path / "a")
    for settings in ({"tokenizer_class": "RobertaTokenizer"}, {"add_prefix_space": True}):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(SlmxError, match=r"vocab\.json: of the tokenizer '.*reads GPT2Tokenizer without"):
            import_tokenizer(folder, {"eos_token_id": 0})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", "[]", "vocab is not an object"),
        ("vocab.json", '{"a": "b"}', "not a whole number"),
        ("merges.txt", "#version: 0.2\na b c\n", "merge 0 is not a pair"),
        ("merges.txt", b"\xff", "not a BPE tokenizer"),
    ],
)
def test_damaged_older_files_are_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    folder = gpt2_files(tmp_path / "a")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SlmxError, match=said):
        import_tokenizer(folder, {"eos_token_id": 0})
