"""A small GPT-2 of transformers, for the tests of `slmx import`. Only tests that use it import transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import bundles
from tests.slm.storage.folders import home, target, writer  # noqa: F401

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HFTokenizer

    from tests.slm.importers.gpt2_folders import Model


@pytest.fixture(scope="session")
def tokenizer(stories: list[str]) -> HFTokenizer:
    """A tokenizer with `<|endoftext|>`."""
    from tests.slm.importers.gpt2_folders import END, made_tokenizer

    return made_tokenizer(stories, [END])


@pytest.fixture(scope="session")
def made(tokenizer: HFTokenizer) -> tuple[Path, Model]:
    """A Hugging Face folder and its model. Tests must not change it."""
    from tests.slm.importers.gpt2_folders import made_model

    folder = bundles.folder("gpt2")
    return folder, made_model(folder, tokenizer)


@pytest.fixture
def hf_folder(made: tuple[Path, Model], tmp_path: Path) -> Path:
    """A copy of the folder that the test may damage."""
    return bundles.copy_of(made[0], tmp_path / "my é %20 # copy")
