"""An outside model reads endings after their openings; its perplexity never stands alone; other files are one line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as HFTokenizer

from benchmarks.evaluation.scorer.kinds import LogitArray, hash_of, nats_of, open_scorer
from benchmarks.evaluation.scorer.suite import SCORER, measure, scorer_table
from benchmarks.evaluation.stories import Ending
from slm.console.errors import SlmxError
from tests.bundles import Slmx
from tests.slm.importers import models
from tests.slm.importers.gpt2_folders import made_tokenizer
from tests.slm.importers.test_files import write_gguf

pytestmark = pytest.mark.slow

OPENING, ENDING = "Once upon a time, there was a big dog named Tom.", " Tom saw a cat."
VOCABULARY = 300


def ignore(_: int) -> None:
    """Takes no notice of progress."""


class Even:
    """Finds every byte equally likely. Each byte is a token."""

    context = 100

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def logits(self, ids: Sequence[int]) -> LogitArray:
        return np.zeros((len(ids), 256), np.float32)


@pytest.fixture(scope="module")
def tokenizer(stories: list[str]) -> HFTokenizer:
    return made_tokenizer(stories, [models.END])


@pytest.fixture(scope="module")
def folder(tokenizer: HFTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with random weights."""
    model = models.gpt2(tokenizer.get_vocab_size(), n_positions=512)
    return models.save(model, tokenizer, tmp_path_factory.mktemp("scorer") / "outside é")


def expected(tokenizer: HFTokenizer, model: Any) -> tuple[float, int]:  # noqa: ANN401  # transformers has no types
    """The nats of the ending as transformers' own loss gives them, with the opening masked."""
    opening, ending = (tokenizer.encode(text).ids for text in (OPENING, ENDING))
    ids, labels = opening + ending, [-100] * len(opening) + ending
    with torch.inference_mode():
        loss = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss
    return float(loss) * len(ending), len(ending)


def test_only_the_ending_is_counted_and_all_of_the_text_is_read(folder: Path, tokenizer: HFTokenizer) -> None:
    found = nats_of(open_scorer(folder), OPENING, ENDING)
    assert found is not None
    model = models.hugging_face.AutoModelForCausalLM.from_pretrained(folder).eval()
    nats, tokens = expected(tokenizer, model)
    assert found == pytest.approx((nats, tokens), rel=1e-4)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs llama-cpp-python, which is compiled")
def test_a_gguf_agrees_with_transformers(tokenizer: HFTokenizer, tmp_path: Path) -> None:
    model = models.llama(tokenizer.get_vocab_size(), rms_norm_eps=1e-6)
    write_gguf(tmp_path / "model.gguf", model, tokenizer, "F32")
    found = nats_of(open_scorer(tmp_path / "model.gguf"), OPENING, ENDING)
    assert found is not None
    nats, tokens = expected(tokenizer, model)
    assert found == pytest.approx((nats, tokens), rel=1e-3)


def test_a_model_that_finds_all_bytes_equally_likely_has_their_number_as_perplexity() -> None:
    endings = [Ending(OPENING, f" Tom saw {number} cats.", True) for number in range(5)]
    found = measure(Even(), Path("even.gguf"), "0", endings, ignore)
    for unit in ("byte", "token"):
        assert found[f"perplexity per {unit}"] == pytest.approx({"value": 256, "low": 256, "high": 256})
    assert (found["endings"], found["too long"]) == (5, 0)


def test_endings_that_do_not_fit_are_counted_and_empty_ones_change_nothing() -> None:
    endings = [Ending(OPENING, text, True) for text in (" A cat.", " A cat." * 50, "")]
    found = measure(Even(), Path("even.gguf"), "0", endings, ignore)
    assert (found["endings"], found["too long"]) == (2, 1)
    assert found["perplexity per byte"]["value"] == pytest.approx(256)
    with pytest.raises(SlmxError, match="no story fits its context of 100 tokens"):
        measure(Even(), Path("even.gguf"), "0", endings[1:2], ignore)


def test_a_perplexity_that_is_no_float_is_cut() -> None:
    class Wrong(Even):
        def logits(self, ids: Sequence[int]) -> LogitArray:
            return np.eye(256, dtype=np.float32)[[0] * len(ids)] * 10_000

    figures = measure(Wrong(), Path("scorer"), "0", [Ending(OPENING, ENDING, True)] * 2, ignore)
    assert figures["perplexity per byte"]["value"] == math.exp(700)


def test_nan_is_one_line() -> None:
    class Broken(Even):
        def logits(self, ids: Sequence[int]) -> LogitArray:
            return np.full((len(ids), 256), math.nan, np.float32)

    with pytest.raises(SlmxError, match="NaN or infinite"):
        measure(Broken(), Path("x"), "0", [Ending(OPENING, ENDING, True)], ignore)


def test_no_perplexity_stands_without_the_variety_beside_it() -> None:
    endings = [Ending(OPENING, f" Tom saw {number} cats.", True) for number in range(5)]
    figures = measure(Even(), Path("even.gguf"), "0", endings, ignore)
    assert scorer_table({"nano": {SCORER: figures}}) == []
    variety = {"distinct-2": {"value": 0.5, "low": 0.4, "high": 0.6}, "distinct-2 of all": 0.44}
    (table,) = scorer_table({"nano": {SCORER: figures, "stories": variety}})
    assert table.rows == (("nano", "256.000 ± 0.000", "256.000 ± 0.000", "0.500 ± 0.100", "0.440", "5", "0"),)
    assert "likes repetition" in table.note


def edited(folder: Path, target: Path, **changes: object) -> Path:
    """A copy with another config.json."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return target


def test_a_scorer_of_another_kind_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("Once.", "utf-8")
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\x00")
    (tmp_path / "bare").mkdir()
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\x00" * 7)
    for path, said in (
        (tmp_path / "none", "not found"),
        (tmp_path / "story.txt", "neither a GGUF file nor a Hugging Face folder"),
        (tmp_path / "bare", "neither a GGUF file nor a Hugging Face folder"),
        (tmp_path / "half.gguf", "needs llama-cpp-python: pip|cannot read"),
        (tmp_path / "cut", "cannot read"),
        (
            edited(folder, tmp_path / "bert", architectures=["BertForMaskedLM"]),
            "BertForMaskedLM, which predicts no next",
        ),
        (edited(folder, tmp_path / "nameless", architectures=None), "no architecture, which predicts no next token"),
        (edited(folder, tmp_path / "strange", model_type="\x1bstrange"), "cannot read"),
    ):
        with pytest.raises(SlmxError, match=said) as error:
            open_scorer(path)
        assert str(error.value).startswith(f"--scorer {path}: ")
        assert str(error.value).isprintable()


def test_the_hash_changes_with_the_weights(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert hash_of(other) == hash_of(folder)
    with (other / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert hash_of(other) != hash_of(folder)


def test_the_command_shows_both_and_measures_once(folder: Path, stories: list[str], slmx: Slmx, tmp_path: Path) -> None:
    long = [" ".join(stories[number : number + 2]).replace("\n", " ") for number in range(0, 12, 2)]
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join(long), "utf-8")
    command: list[str | Path] = ["evaluate", "nano", "--text", "stories.txt", "--count", "3", "--out", "found"]
    command += ["--scorer", folder]
    first = slmx(*command)
    assert first.code == 0, first.stderr
    assert "## Outside model" in first.stdout
    assert "outside é reads" in first.stderr
    again = slmx(*command)
    assert again.stdout == first.stdout
    assert "reads" not in again.stderr
    assert "neither a GGUF file nor" in slmx.refuses("evaluate", *command[1:-1], tmp_path / "stories.txt")
