"""A data set with the tokenizer of something else: `slmx prepare --tokenizer`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.prepare import PrepareSettings, prepare
from slm.folder_kind import CHECKPOINT_LISTING
from slm.storage.listing import write_listing
from slm.tokenizers.tokenizer import Tokenizer
from tests.bundles import Slmx
from tests.runs import QUIET

pytestmark = pytest.mark.slow


def test_a_tokenizer_with_too_many_tokens_is_refused(plan: PrepareSettings, tmp_path: Path) -> None:
    tokens = [*(bytes([i]) for i in range(256)), *(bytes([i >> 8, i & 255]) for i in range(65536 - 256))]
    large = tmp_path / "large é"
    large.mkdir()
    Tokenizer(tokens).save(large, [])
    write_listing(large, CHECKPOINT_LISTING)
    with pytest.raises(SlmxError) as caught:
        prepare(replace(plan, vocab_size=None, tokenizer=large), QUIET)
    assert str(caught.value) == (  # slmx train, which has no --tokenizer, says it of --init and --teacher
        f"{large}: a vocabulary of 65,537 does not fit the 16-bit ids of a data set; use one of at most 65,536 tokens, "
        "which slmx import SOURCE --tokenizer nano makes"
    )


def test_a_tokenizer_can_be_taken_from_elsewhere(plan: PrepareSettings, tiny_checkpoint: Path) -> None:
    dataset = prepare(replace(plan, vocab_size=None, tokenizer=tiny_checkpoint), QUIET)
    assert dataset.tokenizer == load_checkpoint(tiny_checkpoint).tokenizer
    again = replace(plan, vocab_size=None, tokenizer=plan.out, out=plan.out.with_name("again"))
    assert prepare(again, QUIET).tokenizer == dataset.tokenizer
    assert prepare(again, QUIET).merges == load_checkpoint(tiny_checkpoint).merges


@pytest.mark.parametrize("files", [("tokenizer.json", "tokenizer_config.json"), ("vocab.json", "merges.txt")])
def test_a_hugging_face_tokenizer_is_imported_first(files: tuple[str, ...], slmx: Slmx, corpus_file: Path) -> None:
    advice = (
        "--tokenizer names a slmx checkpoint, run, data set or bundle, or a shipped model (micro, nano, small); "
        "for a Hugging Face tokenizer, slmx import SOURCE --out NEW takes a model that has it, and then --tokenizer NEW"
    )
    folder = Path("my tokenizer")
    folder.mkdir()
    for name in files:
        (folder / name).write_text("{}", "utf-8")
    for path, problem in (
        (folder, "a Hugging Face tokenizer"),
        (folder / files[0], "a Hugging Face tokenizer"),
        (Path("openai-community/gpt2"), "no such file or folder"),
        (Path("nan"), "no such file or folder (did you mean nano?)"),
    ):
        line = slmx.refuses("prepare", corpus_file, "--out", "new", "--tokenizer", path)
        assert line == f"{path}: {problem}; {advice}"
