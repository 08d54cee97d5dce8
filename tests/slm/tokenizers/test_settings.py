"""Every kind of folder keeps the settings of its tokenizer, and folders with the defaults are as before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runtimes.bundle.manifest import Manifest
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError
from slm.console.plain_text import is_plain_text
from slm.data.corpus import encode_stories
from slm.data.dataset import Dataset
from slm.data.prepare import PrepareSettings, prepare
from slm.folder_kind import PRETRAINED
from slm.presets import GPTConfig
from slm.storage.json_reader import Fields
from slm.tokenizers.byte_level import SINGLE_BYTES
from slm.tokenizers.listed import load_listed
from slm.tokenizers.settings import PREFIXES, SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from slm.train.evaluate import read_stream
from slm.train.sample_text import sample_stories
from tests import bundles

QUIET = Console(quiet=True)
LLAMA = TokenizerSettings("sentencepiece", "</s>", "<s>")
SPECIAL = st.text(min_size=1, max_size=20).filter(is_plain_text)


@given(
    scheme=st.sampled_from(sorted(SCHEMES)),
    specials=st.lists(SPECIAL, min_size=1, max_size=2, unique=True),
    prefix=st.sampled_from(PREFIXES),
)
def test_what_a_listing_says_is_read(scheme: str, specials: list[str], prefix: str) -> None:
    settings = TokenizerSettings(scheme, specials[0], specials[1] if len(specials) > 1 else None, prefix)
    listing = json.loads(json.dumps({"other": 1} | settings.listed()))
    assert TokenizerSettings.read(Fields(listing)) == settings
    assert settings.specials == specials


def test_a_listing_does_not_mention_the_defaults() -> None:
    assert TokenizerSettings().listed() == {}
    assert TokenizerSettings.read(Fields({})) == TokenizerSettings()
    assert TokenizerSettings("digits").listed() == {"tokenizer": {"scheme": "digits"}}


WRONG = [
    (5, "tokenizer is not an object"),
    ({"scheme": 5}, "tokenizer.scheme is not a text"),
    ({"scheme": "(a+)+"}, "knows no tokenizer scheme '(a+)+'"),
    ({"prefix": "x" * 900}, "tokenizer.prefix is 'xxx"),
    ({"end": ""}, "the special token '' is not 1 to 100 printable characters"),
    ({"end": "x" * 101}, "is not 1 to 100 printable characters"),
    ({"begin": "a\x1b[2J"}, "tokenizer.begin is not a text of printable characters"),
    ({"begin": "<|endoftext|>"}, "which is already the end"),
]


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_wrong_settings_are_named(values: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer|special token") as caught:
        TokenizerSettings.read(Fields({"tokenizer": values}))
    assert said in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer": values}))
    with pytest.raises(SlmxError) as refused:
        load_listed(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}: cannot read what it says of the tokenizer (")


def test_the_shipped_checkpoints_and_bundle_are_written_as_before(tmp_path: Path) -> None:
    for name in ("nano", "micro"):
        shipped = load_checkpoint(PRETRAINED / name)
        shipped.tokenizer.save(tmp_path, shipped.merges)
        for file in ("tokenizer.tiktoken", "tokenizer.json"):
            assert (tmp_path / file).read_bytes() == (PRETRAINED / name / file).read_bytes()
        assert "tokenizer" not in json.loads((PRETRAINED / name / "config.json").read_text("utf-8"))
    content = Path("runtimes/bundles/nano/manifest.json")
    root = Path(__file__).parents[3]
    assert Manifest.read((root / content).read_bytes(), "m").to_bytes() == (root / content).read_bytes()


def test_a_bundle_keeps_them() -> None:
    root = Path(__file__).parents[3]
    manifest = Manifest.read((root / "runtimes/bundles/nano/manifest.json").read_bytes(), "m")
    assert manifest.tokenizer == TokenizerSettings()
    changed = replace(manifest, tokenizer=LLAMA)
    assert Manifest.read(changed.to_bytes(), "m") == changed


@pytest.fixture(scope="module")
def llama(stories: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer like Llama-2's. Tests must not change it."""
    characters = sorted({*"".join(stories)})
    pairs = sorted({text[at : at + 2] for text in stories[:50] for at in range(len(text) - 1)})
    tokenizer = Tokenizer([*SINGLE_BYTES, *(piece.encode() for piece in [*characters, *pairs])], LLAMA)
    merges = [(pair[0].replace(" ", "\u2581"), pair[1].replace(" ", "\u2581")) for pair in pairs]
    config = GPTConfig(block_size=48, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=32)
    folder = tmp_path_factory.mktemp("llama")
    save_checkpoint(folder, "nano", bundles.random_model(config), tokenizer, merges, {})
    return folder


def test_a_checkpoint_keeps_them(llama: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(llama)
    assert checkpoint.tokenizer.settings == LLAMA
    again = tmp_path / "again"
    again.mkdir()
    save_checkpoint(again, "nano", checkpoint.model, checkpoint.tokenizer, checkpoint.merges, checkpoint.record)
    assert bundles.snapshot(again) == bundles.snapshot(llama)


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_wrong_settings_of_a_checkpoint_are_one_line(llama: Path, tmp_path: Path, values: object, said: str) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    stored = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(stored | {"tokenizer": values}))
    with pytest.raises(SlmxError, match=r"config\.json: not the config\.json of a slmx checkpoint") as caught:
        load_checkpoint(folder)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path, llama: Path) -> PrepareSettings:
    return PrepareSettings((str(corpus_file),), "nano", tmp_path / "set", tokenizer=llama)


def test_a_data_set_keeps_them(plan: PrepareSettings, llama: Path, stories: list[str]) -> None:
    dataset = prepare(plan, QUIET)
    tokenizer = load_checkpoint(llama).tokenizer
    assert dataset.tokenizer == tokenizer
    assert Dataset.open(plan.out).tokenizer == tokenizer
    assert dataset.valid.ids[:1].tolist() == [tokenizer.begin]
    assert read_stream([str(plan.out)], load_checkpoint(llama)).stories == dataset.valid.stories
    copy = prepare(replace(plan, tokenizer=plan.out, out=plan.out.with_name("copy")), QUIET)
    assert copy.tokenizer == tokenizer
    prepare(plan, QUIET)  # up to date


def test_a_data_set_of_another_scheme_is_another_one(plan: PrepareSettings, llama: Path, tmp_path: Path) -> None:
    prepare(plan, QUIET)
    other = Path(shutil.copytree(llama, tmp_path / "other"))
    stored = json.loads((other / "config.json").read_text("utf-8"))
    stored["tokenizer"]["prefix"] = "never"
    (other / "config.json").write_text(json.dumps(stored))
    with pytest.raises(SlmxError, match="holds a data set made with another --tokenizer; "):
        prepare(replace(plan, tokenizer=other), QUIET)
    with pytest.raises(SlmxError, match="has another tokenizer"):
        read_stream([str(plan.out)], load_checkpoint(other))


def test_wrong_settings_of_a_data_set_are_one_line(plan: PrepareSettings) -> None:
    prepare(plan, QUIET)
    path = plan.out / "dataset.json"
    stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(stored | {"tokenizer": {"scheme": "no such"}}))
    with pytest.raises(SlmxError, match=r"dataset\.json: not a data set of slmx prepare .*no tokenizer scheme"):
        Dataset.open(plan.out)


def test_a_bundle_gives_its_tokenizer_to_a_data_set(plan: PrepareSettings) -> None:
    shipped = Path(__file__).parents[3] / "runtimes/bundles/nano"
    dataset = prepare(replace(plan, tokenizer=shipped), QUIET)
    assert dataset.tokenizer == Tokenizer.load(shipped)


def test_each_story_has_a_begin_and_an_end(llama: Path) -> None:
    tokenizer = load_checkpoint(llama).tokenizer
    stream = encode_stories(["The end.", "Tom"], tokenizer)
    begin, end = tokenizer.begin, tokenizer.end_of_text
    assert begin != end
    assert stream.ids[:].tolist() == [begin, *tokenizer.encode("The end."), end, begin, *tokenizer.encode("Tom"), end]


def test_sampled_stories_start_without_a_space(llama: Path) -> None:
    checkpoint = load_checkpoint(llama)
    space = checkpoint.tokenizer.encode("the")[0]
    assert checkpoint.tokenizer.token_bytes(space) == b" t"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("torch.multinomial", lambda probabilities, *_, **__: probabilities[:, :1].long() * 0 + space)
        (story,) = sample_stories(checkpoint.model, checkpoint.tokenizer, seed=0, count=1)
    assert story == " ".join("t" * (checkpoint.model.config.block_size - 1))
