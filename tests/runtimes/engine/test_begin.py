"""Stories of a model like Llama-2: another token begins a text, and the first word of a text has a space in front."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from export.exporter import export_bundle
from export.settings import ExportSettings
from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.generate.interactive import InteractiveStory
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.presets import GPTConfig
from tests import bundles
from tests.shared import made_once
from tests.slm.importers.strings import made_strings
from tests.slm.importers.trained import config_of, folder_of

pytestmark = pytest.mark.slow
KINDS = ("sentencepiece always", "digits")
BLOCK = 48


def checkpoint_of(kind: str) -> Path:
    """A model with random weights and a tokenizer of this kind, in which another token begins a text."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as source:
            config = config_of(kind) | ({} if kind.startswith("sentencepiece") else {"bos_token_id": 1})
            imported = import_tokenizer(folder_of(kind, Path(source)), config)
        shape = GPTConfig(BLOCK, imported.tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=32)
        folder.mkdir()
        save_checkpoint(folder, "nano", bundles.random_model(shape), imported.tokenizer, imported.merges, {})

    return made_once(f"checkpoint-{kind.replace(' ', '-')}", make)


def bundle_of(kind: str) -> Path:
    def make(out: Path) -> None:
        with bundles.brief_checks():
            export_bundle(ExportSettings("nano", out, checkpoint_of(kind)), lambda line: None)

    return made_once(f"bundle-{kind.replace(' ', '-')}", make)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def generator(kind: str) -> Generator:
    return load(bundle_of(kind), allow_special=True)


@pytest.fixture(scope="module")
def llama() -> Generator:
    return load(bundle_of(KINDS[0]))


def always(token: int) -> SamplingParams:
    """Settings that choose this id only."""
    return SamplingParams(0.0, rules=LogitsRules(logit_bias={token: 1000.0}))


def test_the_bundle_has_the_tokenizer_of_the_checkpoint(kind: str) -> None:
    assert Bundle.open(bundle_of(kind)).tokenizer() == load_checkpoint(checkpoint_of(kind)).tokenizer
    assert Bundle.open(bundle_of(kind)).manifest.tokenizer.begin is not None


def test_every_prompt_starts_with_the_begin(generator: Generator) -> None:
    tokenizer = generator.tokenizer
    assert tokenizer.begin == tokenizer.end_of_text + 1
    assert generator.encode("") == [tokenizer.begin]
    assert generator.encode("The dog") == [tokenizer.begin, *tokenizer.encode("The dog")]
    assert generator.encode("The dog " * 99, on_full="slide")[0] == tokenizer.begin
    assert generator.stream("Tom").prompt_ids[0] == tokenizer.begin
    settings = tokenizer.settings
    written = f"a{settings.end}{settings.begin}b"
    assert generator.encode(written)[-3:-1] == [tokenizer.end_of_text, tokenizer.begin]


def test_the_end_ends_a_story_and_the_begin_has_no_text(generator: Generator) -> None:
    tokenizer = generator.tokenizer
    ended = generator.stream("Tom", GenerationConfig(5), always(tokenizer.end_of_text))
    assert "".join(ended) == ""
    assert ended.stats.stop == "end of text"
    begun = generator.stream("Tom", GenerationConfig(5), always(tokenizer.begin))
    assert "".join(begun) == ""
    assert begun.ids == [tokenizer.begin] * 5


def test_other_runtimes_get_both_ids(kind: str, generator: Generator) -> None:
    folder, tokenizer = bundle_of(kind), generator.tokenizer
    wanted = (tokenizer.begin, tokenizer.end_of_text)
    config = AutoConfig.from_pretrained(folder)
    assert (config.bos_token_id, config.eos_token_id) == wanted
    for name in ("generation_config.json", "genai_config.json"):
        values = json.loads((folder / name).read_text("utf-8"))
        values = values.get("model", values)
        assert (values["bos_token_id"], values["eos_token_id"]) == wanted


def test_transformers_gives_our_ids_and_our_text(kind: str, generator: Generator) -> None:
    theirs: Any = AutoTokenizer.from_pretrained(bundle_of(kind))  # type: ignore[no-untyped-call]
    ours = generator.tokenizer
    assert (theirs.bos_token_id, theirs.eos_token_id, len(theirs)) == (ours.begin, ours.end_of_text, ours.vocab_size)
    specials = [*ours.specials]
    strings = [text for text in made_strings(500, seed=5) if not any(special in text for special in specials)]
    for text, ids in zip(strings, theirs(strings)["input_ids"], strict=True):
        assert ids == ours.encode(text)
        assert theirs.decode(ids) == ours.decode(ids)
    assert theirs.encode("".join(specials)) == [ours.end_of_text, ours.begin]


def test_a_text_starts_without_the_space_and_a_story_that_goes_on_keeps_it(llama: Generator) -> None:
    word, ending = (llama.tokenizer.encode(text)[-1] for text in ("the", "the."))
    assert [llama.tokenizer.token_bytes(token) for token in (word, ending)] == [b" the", b"."]
    limits = GenerationConfig(3)
    for prompt, text in (("", "the the the"), ("Once upon", " the the the"), ("Once ", " the the the")):
        stream = llama.stream(prompt, limits, always(word))
        pieces = list(stream)
        assert "".join(pieces) == stream.completion.completion_text == text
        assert stream.completion.full_text == prompt + text
        (batch,) = llama.batch([prompt], limits, always(word))
        assert batch.completion_text == text
    assert llama.detokenize([word, word, ending]) == "the the."
    assert "".join(llama.stream("", GenerationConfig(2), always(ending))) == ".."


def test_only_one_space_is_taken_away(llama: Generator) -> None:
    space = llama.tokenizer.encode("  ")[0]
    assert llama.tokenizer.token_bytes(space) == b" "
    assert "".join(llama.stream("", GenerationConfig(3), always(space))) == "  "
    assert llama.detokenize([space] * 3) == "  "


def test_a_stop_string_is_found_in_the_text_that_is_shown(llama: Generator) -> None:
    word = llama.tokenizer.encode("the")[0]
    stream = llama.stream("", GenerationConfig(5, stop=" the"), always(word))
    assert "".join(stream) == "the"
    assert stream.stats.stop_string == " the"


def test_a_story_in_turns_keeps_its_spaces(llama: Generator) -> None:
    word = llama.tokenizer.encode("the")[0]
    story = InteractiveStory(llama, GenerationConfig(2), always(word))
    written: list[str] = []
    for added in ("", "", " dog"):
        story.go_on(added, written.append)
    assert story.text == "the the the the dog the the"
    assert "".join(written) == "the the the the the the"
