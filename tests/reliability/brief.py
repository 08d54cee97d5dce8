"""Makes training and export short in the process that imports this, and makes their inputs."""

from __future__ import annotations

from pathlib import Path

import torch

from slm.presets import PRESETS, GPTConfig, Preset
from tests.bundles import brief_checks
from tests.reliability.forks import Forks, Job

TINY = GPTConfig(32, 300, 1, 2, 32)

PRESETS["tiny"] = Preset("tiny", TINY, learning_rate=1e-2, batch_size=4)
_checks = brief_checks()
_checks.__enter__()  # until the process ends


def write_sources(folder: Path) -> None:
    """Writes stories, and a model of nanoGPT for a vocabulary of 300 tokens, into a folder."""
    from tests.conftest import as_corpus, generate_stories
    from tests.slm.importers import models
    from tests.slm.importers.test_files import ARGS, as_nanogpt

    (folder / "stories.txt").write_text(as_corpus(generate_stories(300)))
    torch.save({"model": as_nanogpt(models.gpt2(300)), "model_args": ARGS | {"vocab_size": 300}}, folder / "in.pt")


def make_inputs(folder: Path, run: Forks) -> None:
    """Makes the sources, a data set and a training run in a folder."""
    write_sources(folder)
    for argv in (
        ("prepare", "stories.txt", "--out", "data", "--vocab-size", "300"),
        ("train", "--text", "data", "--out", "run", "--preset", "tiny", "--no-compile", "--steps", "6"),
    ):
        ended = run.run(Job(argv, folder))
        if ended.code:
            raise RuntimeError(f"{' '.join(argv)}: {ended.stderr}")
