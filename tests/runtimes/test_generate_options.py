"""The options of `slmx generate`: where the prompt comes from, where a story stops, several at once, a saved copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.batch import write_batch
from runtimes.engine.generator import GenerationConfig
from runtimes.engine.sampler import SamplingParams
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx

SEEDED = ("--seed", "3", "--max-tokens", "12")


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


def test_the_prompt_may_come_from_a_pipe_or_a_file(bundle: Path, tmp_path: Path, slmx: Slmx) -> None:
    told = slmx("generate", "Zoë was big", "--bundle", bundle, *SEEDED).stdout
    piped = run_slmx("generate", "-", "--bundle", bundle, *SEEDED, cwd=tmp_path, input="Zoë was big\n")
    assert piped.stdout == told
    Path("prompt.txt").write_bytes("Zoë was big\r\n".encode())
    assert slmx("generate", "--prompt-file", "prompt.txt", "--bundle", bundle, *SEEDED).stdout == told


def test_a_prompt_that_cannot_be_read_is_one_line(bundle: Path, slmx: Slmx) -> None:
    Path("latin.txt").write_bytes("café".encode("latin-1"))
    arguments = ("generate", "--bundle", bundle, "--prompt-file")
    assert slmx.refuses(*arguments, "latin.txt") == "latin.txt: not UTF-8 text; convert it to UTF-8"
    assert slmx.refuses(*arguments, "nowhere.txt") == "nowhere.txt: No such file or directory"
    line = slmx.refuses("generate", "Once", "--bundle", bundle, "--prompt-file", "latin.txt")
    assert line == "a prompt and --prompt-file exclude each other: drop one"


def test_several_stories_are_those_of_a_batch(bundle: Path, slmx: Slmx) -> None:
    ran = slmx("generate", "Lily", "--bundle", bundle, "-n", "3", *SEEDED, "--variant", "fp32")
    stories = write_batch(load(bundle, "fp32"), ["Lily"] * 3, GenerationConfig(12), SamplingParams(seed=3))
    assert ran.stdout == "\n\n---\n\n".join(story.text for story in stories) + "\n"
    assert ran.stderr.startswith(f"3 stories, {sum(len(story.ids) for story in stories)} tokens, ")
    lines = slmx("generate", "Lily", "--bundle", bundle, "-n", "3", *SEEDED, "--variant", "fp32", "--json").stdout
    told = [json.loads(line) for line in lines.splitlines()]
    assert [one["text"] for one in told] == [story.text for story in stories]
    assert [one["seed"] for one in told] == [3, 4, 5]


@pytest.mark.parametrize("flags", [(), ("--json",), ("-n", "2")])
def test_a_copy_is_saved(bundle: Path, slmx: Slmx, flags: tuple[str, ...]) -> None:
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "story.txt", *flags)
    saved = Path("story.txt").read_text("utf-8")
    assert saved == (json.loads(ran.stdout)["text"] + "\n" if flags == ("--json",) else ran.stdout)


def test_a_copy_that_cannot_be_saved_is_one_line_behind_the_story(bundle: Path, slmx: Slmx) -> None:
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "no/such/folder/story.txt")
    assert ran.code == 1
    assert ran.stdout.startswith("Lily")
    assert ran.stderr.splitlines()[-1] == "slmx: no/such/folder/story.txt: No such file or directory"


def test_stop_strings_and_limits_reach_the_story(bundle: Path, slmx: Slmx) -> None:
    greedy = ("generate", "One day", "--bundle", bundle, "--variant", "fp32", "--temperature", "0", "--json")
    whole = json.loads(slmx(*greedy).stdout)
    cut = whole["text"][len("One day") :].split(".")[0]
    told = json.loads(slmx(*greedy, "--stop", "no such text", "--stop", ".").stdout)
    assert (told["text"], told["stop"]) == ("One day" + cut, "stop string")
    longer = json.loads(slmx(*greedy, "--min-tokens", "100", "--max-tokens", "100", "--on-full", "slide").stdout)
    assert (len(longer["ids"]), longer["stop"]) == (100, "max tokens")


def test_penalties_and_bias_reach_the_sampler(bundle: Path, slmx: Slmx) -> None:
    greedy = ("generate", "One day", "--bundle", bundle, "--variant", "fp32", "--temperature", "0", "--json")
    first = json.loads(slmx(*greedy).stdout)["ids"]
    assert json.loads(slmx(*greedy, "--logit-bias", f"{first[0]}=-100").stdout)["ids"][0] != first[0]
    for flags in (("--presence-penalty", "100"), ("--frequency-penalty", "100"), ("--no-repeat-ngram", "1")):
        ids = json.loads(slmx(*greedy, *flags, "--max-tokens", "30").stdout)["ids"]
        assert len(set(ids)) == len(ids)
    least = json.loads(slmx(*greedy[:-3], "--min-p", "1", "--top-k", "0", "--top-p", "1", "--json").stdout)["ids"]
    assert least == first


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--min-p", "2"), "min-p must lie between 0 (off) and 1, not 2.0"),
        (("--stop", ""), "a stop string must not be empty"),
        (("--on-full", "shift"), "on full must be one of stop, slide, not 'shift'"),
        (("--logit-bias", "dog=1"), "--logit-bias takes ID=VALUE, such as 42=-5, not 'dog=1'"),
        (("--logit-bias", "99999=1"), "logit bias: no id 99999; ids go up to 399"),
        (("--no-repeat-ngram", "-1"), "no-repeat n-gram must be 0 (off) or more, not -1"),
        (
            ("-n", "2", "--on-full", "slide"),
            "a batch cannot slide its context: write one story, or let it stop",
        ),
    ],
)
def test_a_value_outside_its_range_is_one_line(bundle: Path, slmx: Slmx, flags: tuple[str, ...], said: str) -> None:
    ran = slmx("generate", "--bundle", bundle, *flags)
    assert ran.code == 1
    assert ran.stderr.splitlines()[-1] == f"slmx: {said}"


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    env = {**os.environ, "_SLMX_COMPLETE": "complete_bash", "COMP_WORDS": "slmx ge", "COMP_CWORD": "1"}
    command = Path(sys.executable).with_name("slmx")
    ran = subprocess.run([command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.split() == ["generate"]
