"""Fixtures of several test modules: generated stories, a small trained checkpoint, the command in a process."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch.nn import functional as F

from slm.checkpoint import save_checkpoint
from slm.data.corpus import TokenStream, encode_stories
from slm.metrics import bits_per_byte
from slm.model import GPT
from slm.presets import GPTConfig
from slm.tokenizers.settings import END_OF_TEXT
from slm.tokenizers.tokenizer import train_tokenizer
from slm.train.evaluate import total_loss
from tests.shared import SHARED_HOME, made_once

WHOLLY_SLOW = re.compile(r"^pytestmark = .*pytest\.mark\.slow", re.MULTILINE)
pytest_plugins = ["tests.runs", "tests.bundles", "tests.hubs", "tests.chromium"]

# Every run has the same examples, so the result of a test does not change.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
# If there are more threads than free cores, PyTorch's threads wait tens of times longer than these models compute.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that the processes of this run share; those that pytest-xdist starts inherit its name.

    A shell starts a program in the background with SIGINT ignored, and nohup ignores SIGHUP. Processes that the tests
    start would inherit this, and a test of Ctrl-C would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # Windows has none
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        os.environ[SHARED_HOME] = tempfile.mkdtemp(prefix="slmx-tests-shared-")
        os.environ["XDG_CONFIG_HOME"] = os.path.join(os.environ[SHARED_HOME], "config")  # without choices of doctor


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes that folder."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED_HOME))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out modules that are slow as a whole when slow tests are not wanted: their imports take seconds."""
    if config.getoption("markexpr") != "not slow and not heavy" or collection_path.suffix != ".py":
        return None
    return True if WHOLLY_SLOW.search(collection_path.read_text("utf-8")) else None


NAMES = ("Lily", "Tom", "Anna", "Ben", "Mia", "Sam", "Zoë", "Max")
ANIMALS = ("dog", "cat", "bird", "frog", "bear", "rabbit", "mouse", "fish")
PLACES = ("park", "garden", "forest", "kitchen", "river", "school")
THINGS = ("ball", "cake", "kite", "box", "flower", "boat", "drum", "hat")
QUALITIES = ("big", "little", "red", "shiny", "sad", "happy", "soft", "brave")
OPENINGS = (
    "Once upon a time, there was a {quality} {animal} named {name}.",
    "One day, {name} went to the {place} with a {quality} {thing}.",
    "{name} was a {quality} {animal} who lived near the {place}.",
)
SENTENCES = (
    "{name} saw a {quality} {animal} in the {place}.",
    "The {animal} had {number} {thing}s and didn't want to share.",
    '"Look at my {thing}!" said {name}.',
    "They played with the {quality} {thing} until it was dark.",
    "{name} couldn't find the {thing}, so the {animal} helped.",
    "It wasn't easy, but the {animal} was very {quality}.",
)
ENDINGS = ("They were happy and went home.", "From that day on, they were friends.", "The end.")


def _story(rng: random.Random) -> str:
    def fill(template: str) -> str:
        return template.format(
            name=rng.choice(NAMES),
            animal=rng.choice(ANIMALS),
            place=rng.choice(PLACES),
            thing=rng.choice(THINGS),
            quality=rng.choice(QUALITIES),
            number=rng.randint(2, 12),
        )

    middle = [fill(rng.choice(SENTENCES)) for _ in range(rng.randint(3, 6))]
    return fill(rng.choice(OPENINGS)) + " " + " ".join(middle) + "\n" + rng.choice(ENDINGS)


def generate_stories(count: int) -> list[str]:
    """Short stories from a few words. They are the same in every run."""
    rng = random.Random(0)
    return [_story(rng) for _ in range(count)]


def as_corpus(stories: list[str]) -> str:
    """Stories as a corpus file holds them."""
    return "".join(f"{story}\n{END_OF_TEXT}\n" for story in stories)


@pytest.fixture(scope="session")
def stories() -> list[str]:
    """300 generated stories."""
    return generate_stories(300)


@pytest.fixture(scope="session")
def corpus_file(stories: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stories as a text file. Tests must not change it."""
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    path.write_text(as_corpus(stories), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(stories: list[str]) -> Path:
    """A checkpoint called nano, of a tiny model that had some training. Tests must not change it."""
    return made_once("checkpoint", lambda folder: _train_tiny(folder, stories))


def _train_tiny(folder: Path, stories: list[str]) -> None:
    tokenizer, merges = train_tokenizer(stories, 400)
    config = GPTConfig(block_size=64, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=32)
    torch.manual_seed(0)
    model = GPT(config)
    stream = encode_stories(stories, tokenizer)
    curve = _fit(model, stream, steps=120)
    folder.mkdir()
    save_checkpoint(folder, "nano", model.eval(), tokenizer, merges, _record(config, stream, curve))


def _fit(model: GPT, stream: TokenStream, steps: int) -> list[dict[str, float]]:
    inputs, targets = (torch.from_numpy(side) for side in stream.windows(model.config.block_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    curve = []
    for step in range(1, steps + 1):
        rows = torch.randint(len(inputs), (8,))
        loss = F.cross_entropy(model(inputs[rows]).flatten(0, 1), targets[rows].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 40 == 0:
            nats = total_loss(model, inputs[:64].numpy(), targets[:64].numpy())
            figure = bits_per_byte(nats, targets[:64].numel(), stream.bytes_per_token)
            curve.append({"step": step, "loss": round(float(loss.detach()), 4), "bits_per_byte": round(figure, 5)})
    return curve


def _record(config: GPTConfig, stream: TokenStream, curve: list[dict[str, float]]) -> dict[str, Any]:
    steps = int(curve[-1]["step"])
    return {
        "data": [{"side": "training", "file": "stories.txt", "bytes": stream.text_bytes, "sha256": "0" * 64}],
        "licence": "generated by the tests",
        "plan": {"steps": steps, "batch_size": 8, "learning_rate": 1e-2, "seed": 0},
        "parameters": config.parameters,
        "training_tokens": len(stream.ids),
        "steps_done": steps,
        "tokens_seen": steps * 8 * config.block_size,
        "seconds": 1.0,
        "precision": "float32",
        "device": "cpu",
        "torch": torch.__version__,
        "best": curve[-1],
        "curve": curve,
    }


def run_slmx(
    *args: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs the command in a new process, on one thread, with `env` added to the environment of this process."""
    return subprocess.run(
        [sys.executable, "-c", "from slm.cli import main; main()", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        input=input or "",  # without it, the command would read what pytest was started with
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
