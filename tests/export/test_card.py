"""The model card in a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.card import model_card
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.store import Bundle
from tests import bundles


def test_the_model_card_is_whole_markdown(tiny_checkpoint: Path) -> None:
    lines = (bundles.tiny_bundle(tiny_checkpoint) / "README.md").read_text("utf-8").splitlines()
    start = lines.index("| variant | bytes | against PyTorch | bits per byte |")
    assert [line.count("|") for line in lines[start : start + 4]] == [5, 5, 5, 5]
    assert [line.split()[1] for line in lines[start + 2 : start + 4]] == ["fp32", "int8"]


@pytest.mark.parametrize("key", ["split", "side"])
def test_the_card_names_the_texts_of_new_and_of_older_training_records(key: str) -> None:
    record = {"data": [{"file": "a.txt", key: "train"}, {"file": "b.txt", key: "valid"}]}
    assert "| data | a.txt (train), b.txt (valid) |" in model_card(
        Bundle.open(SHIPPED_BUNDLES / "nano").manifest, record
    )
