"""The options of `slmx generate`: the source of the prompt, the end of a story, several stories, a saved copy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

from runtimes import load
from runtimes.engine.batch import Batch
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import SLOTS
from runtimes.engine.session import Session
from runtimes.generate.output import check_new_file
from runtimes.types import GenerationConfig, SamplingParams
from slm.console.errors import SlmxError
from slm.storage.disk import is_temporary
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx
from tests.error_lines import said
from tests.runtimes.interrupts import interrupt_after

NOT_A_BIAS = "--logit-bias takes ID=VALUE, such as 42=-5"
BIAS = "logit bias must be the id of a token and a number up to 1e+30"
ONE_WORD = "a banned word holds only letters, digits and inner apostrophes, not"
SEEDED = ("--seed", "3", "--max-tokens", "12")


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


def test_the_prompt_may_come_from_a_pipe_or_a_file(bundle: Path, tmp_path: Path, slmx: Slmx) -> None:
    expected = slmx("generate", "Zoë was big", "--bundle", bundle, *SEEDED).stdout
    piped = run_slmx("generate", "-", "--bundle", bundle, *SEEDED, cwd=tmp_path, input="Zoë was big\n")
    assert piped.stdout == expected
    Path("prompt.txt").write_bytes("Zoë was big\r\n".encode())
    assert slmx("generate", "--prompt-file", "prompt.txt", "--bundle", bundle, *SEEDED).stdout == expected


def test_a_prompt_that_cannot_be_read_is_one_line(bundle: Path, slmx: Slmx) -> None:
    Path("latin.txt").write_bytes("café".encode("latin-1"))
    arguments = ("generate", "--bundle", bundle, "--prompt-file")
    assert slmx.refuses(*arguments, "latin.txt") == "latin.txt: not UTF-8 text; convert it to UTF-8"
    assert slmx.refuses(*arguments, "nowhere.txt") == "nowhere.txt: No such file or directory; check the path"
    line = slmx.refuses("generate", "Once", "--bundle", bundle, "--prompt-file", "latin.txt", code=2)
    assert line == "a prompt and --prompt-file exclude each other: drop one"


def test_several_stories_are_those_of_a_batch(bundle: Path, slmx: Slmx) -> None:
    ran = slmx("generate", "Lily", "--bundle", bundle, "-n", "3", *SEEDED, "--variant", "fp32")
    stories = load(bundle, "fp32").batch(["Lily"] * 3, GenerationConfig(12), SamplingParams(seed=3))
    assert ran.stdout == "\n\n---\n\n".join(story.full_text for story in stories) + "\n"
    assert ran.stderr.startswith(f"3 stories, {sum(len(story.ids) for story in stories)} tokens, ")
    assert {story.stats.stop for story in stories} == {"max tokens"}
    assert " tokens/s together, 3 stopped by max tokens (fp32, seed 3, " in ran.stderr
    lines = slmx("generate", "Lily", "--bundle", bundle, "-n", "3", *SEEDED, "--variant", "fp32", "--json").stdout
    records = [json.loads(line) for line in lines.splitlines()]
    assert [one["text"] for one in records] == [story.full_text for story in stories]
    assert [one["seed"] for one in records] == [3, 4, 5]


@pytest.mark.parametrize("flags", [(), ("--json",), ("-n", "2")])
def test_a_copy_is_saved(bundle: Path, slmx: Slmx, flags: tuple[str, ...]) -> None:
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "story.txt", *flags)
    saved = Path("story.txt").read_text("utf-8")
    assert saved == (json.loads(ran.stdout)["text"] + "\n" if flags == ("--json",) else ran.stdout)


@pytest.mark.parametrize("flags", [(), ("-n", "2"), ("-i",)])
def test_a_copy_that_cannot_be_saved_is_known_before_the_story(
    bundle: Path, slmx: Slmx, flags: tuple[str, ...]
) -> None:
    arguments: list[str | Path] = ["generate", "Lily", "--bundle", bundle, *SEEDED, *flags, "--save"]
    assert slmx.refuses(*arguments, "no/such é #1/s.txt").endswith(
        "no/such é #1/s.txt: cannot write (No such file or directory); use another folder"
    )
    Path("100% folder").mkdir()
    line = slmx.refuses(*arguments, "100% folder")
    assert re.search(
        r"100% folder: a folder; give --save the name of a file, such as /.*/100% folder/story\.txt$", line
    )
    assert slmx.refuses(*arguments, "a" * 300).endswith("; choose a shorter name")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["100% folder"]


def test_the_check_of_a_copy_makes_no_file_that_a_kill_would_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    unlink = os.unlink

    def watched(path: str) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        unlink(path)

    monkeypatch.setattr(os, "unlink", watched)
    check_new_file(tmp_path / "story.txt")
    assert len(seen) == 1
    assert is_temporary(seen[0])
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_leaves_no_copy(bundle: Path, slmx: Slmx) -> None:
    Path("link.txt").symlink_to("later.txt")
    for copy in ("new.txt", "link.txt"):
        assert (
            "no token has the id 99999"
            in slmx("generate", "Lily", "--bundle", bundle, "--logit-bias", "99999=1", "--save", copy).stderr
        )
    assert [path.name for path in Path.cwd().iterdir()] == ["link.txt"]


@pytest.mark.parametrize("flags", [(), ("-n", "2"), ("-i",)])
def test_a_file_that_exists_is_not_replaced(bundle: Path, slmx: Slmx, flags: tuple[str, ...]) -> None:
    Path("été 100%.txt").write_text("mine", "utf-8")
    Path("link.txt").symlink_to("été 100%.txt")
    for copy in ("été 100%.txt", "link.txt"):
        line = slmx.refuses_unchanged("generate", "Lily", "--bundle", bundle, *flags, "--save", copy)
        assert line.endswith("été 100%.txt: exists already; choose another --save, or delete the file")


def test_a_copy_goes_to_a_pipe_too(bundle: Path, slmx: Slmx) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text("utf-8")))
    reader.start()
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "pipe")
    reader.join()
    assert read == [ran.stdout]


def test_a_batch_is_printed_as_its_stories_end(bundle: Path) -> None:
    generator = load(bundle, "fp32", slots=2)
    batch = Batch(generator, ["Lily"] * 5, GenerationConfig(6), SamplingParams(seed=3))
    running = batch.run()
    first = next(running)
    assert first.stats.finish_reason == "length"
    assert batch.completions[-1].ids == []
    assert [first, *running] == batch.completions


@pytest.mark.parametrize("flags", [(), ("-n", "2"), ("--json",)])
def test_a_story_that_ends_in_an_error_is_saved_as_far_as_it_came(
    bundle: Path, slmx: Slmx, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    finite = iter([True] * 8)
    monkeypatch.setattr("runtimes.engine.sampler.isfinite", lambda value: next(finite, False))
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "é 1.txt", *flags)
    assert ran.code == 1
    assert "its logits are no numbers" in ran.stderr.splitlines()[-1]
    saved = Path("é 1.txt").read_text("utf-8")
    assert saved.startswith("Lily")
    assert len(saved) > len("Lily\n")
    if not flags:
        assert ran.stdout == saved


def test_ctrl_c_ends_a_story_and_saves_it(bundle: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(4, Session, monkeypatch)
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, "--save", "s.txt", "--stop", "never written")
    assert ran.code == 130
    assert Path("s.txt").read_text("utf-8") == ran.stdout
    assert "5 tokens, " in ran.stderr
    assert "stopped by interrupted" in ran.stderr


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_ctrl_c_leaves_out_stories_that_never_began(
    bundle: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch, steps: int, flags: tuple[str, ...]
) -> None:
    interrupt_after(steps, Batcher, monkeypatch)
    options = ("--min-tokens", "9", "-n", str(SLOTS + 9), "--save", "s.txt", *flags)
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, *options)
    assert ran.code == 130
    written = ran.stdout.splitlines() if flags else ran.stdout.split("\n---\n") if ran.stdout else []
    assert len(written) == (SLOTS if steps else 0)
    assert ran.stderr.startswith(f"{len(written)} of {SLOTS + 9} stories, {len(written) * (steps + 1)} tokens")
    last = ran.stderr.splitlines()[-1]
    assert (last == "s.txt: not written, because no story had begun") != bool(written)
    assert Path("s.txt").exists() == bool(written)


@pytest.mark.parametrize(("flags", "shown"), [((), "Lily\n"), (("--json",), "")])
def test_ctrl_c_before_the_first_token_writes_no_object(
    bundle: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], shown: str
) -> None:
    monkeypatch.setattr(Session, "prefill", mock.Mock(side_effect=KeyboardInterrupt))
    ran = slmx("generate", "Lily", "--bundle", bundle, *SEEDED, *flags)
    assert (ran.code, ran.stdout, ran.stderr.startswith("0 tokens, ")) == (130, shown, True)


def test_stop_strings_and_limits_reach_the_story(bundle: Path, slmx: Slmx) -> None:
    greedy = ("generate", "One day", "--bundle", bundle, "--variant", "fp32", "--temperature", "0", "--json")
    whole = json.loads(slmx(*greedy).stdout)
    cut = whole["text"][len("One day") :].split(".")[0]
    record = json.loads(slmx(*greedy, "--stop", "no such text", "--stop", ".").stdout)
    assert (record["text"], record["stop"], record["stop_string"]) == ("One day" + cut, "stop string", ".")
    assert record["finish_reason"] == "stop"
    longer = json.loads(slmx(*greedy, "--min-tokens", "100", "--max-tokens", "100", "--on-full", "slide").stdout)
    assert (len(longer["ids"]), longer["stop"], longer["finish_reason"]) == (100, "max tokens", "length")
    several = slmx(*greedy, "--min-tokens", "90", "--max-tokens", "90", "--on-full", "slide", "-n", "2", "--logprobs")
    for line in several.stdout.splitlines():
        assert len(json.loads(line)["logprobs"]) == 90


def spoken(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


@pytest.mark.parametrize("flags", [(), ("-n", "3"), ("-i",)])
def test_banned_words_are_in_no_text_of_the_command(bundle: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    arguments: list[str | Path] = ["generate", "One day, Zoë", "--bundle", bundle, "--seed", "2", *flags]
    arguments += ["--max-tokens", "40"]
    turns = "\n\n/quit\n"
    before = run_slmx(*arguments, "--save", "before.txt", cwd=tmp_path, input=turns).stdout
    words = ("THE", "was", "Lily", "to", "They", "zoë", "day")
    banned = [part for word in words for part in ("--ban-word", word)]
    ran = run_slmx(*arguments, *banned, "--save", "after.txt", cwd=tmp_path, input=turns)
    assert ran.returncode == 0
    assert (tmp_path / "after.txt").read_text("utf-8") == ran.stdout
    old, new = (spoken(text.replace("One day, Zoë", "")) for text in (before, ran.stdout))
    assert len({word.casefold() for word in words} & old) >= 2
    assert not {word.casefold() for word in words} & new


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
    ("flags", "message"),
    [
        (("--min-p", "2"), "min-p must lie between 0 (off) and 1, not 2.0"),
        (("--stop", ""), "--stop: the value is empty; give one"),
        (("--on-full", "shift"), "--on-full: unknown choice 'shift': choose one of stop, slide"),
        (
            ("--logit-bias", "dog=1"),
            f"{NOT_A_BIAS}, not 'dog=1'; --json prints the ids of a story",
        ),
        (("--ban-word", ""), "--ban-word: the value is empty; give one"),
        (("--ban-word", "cat", "--ban-word", "two words"), f"{ONE_WORD} 'two words'; ban each word by itself"),
        (("--ban-word", os.fsdecode(b"caf\xe9")), f"{ONE_WORD} 'caf\\udce9'; ban each word by itself"),
        (("--ban-word", "42"), "a banned word must have a letter, not '42'"),
        (("--logit-bias", "99999=1"), "logit bias: no token has the id 99999; ids go from 0 to 399"),
        (("--no-repeat-ngram", "-1"), "no-repeat n-gram must be 0 (off) or more, not -1"),
        (
            ("--logit-bias", f"{10**30}=1"),
            f"{BIAS}, not {10**30}=1.0",
        ),
    ],
)
def test_a_value_outside_its_range_is_one_line(bundle: Path, slmx: Slmx, flags: tuple[str, ...], message: str) -> None:
    ran = slmx("generate", "--bundle", bundle, *flags)
    code = 1 if "no token has the id" in message else 2  # only the bundle knows which ids there are
    assert (ran.code, ran.stdout) == (code, "")
    assert said(ran.stderr.splitlines()[-1], code) == message


def test_a_text_of_the_command_line_is_utf8_in_every_locale(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def take(**settings: object) -> None:
        given.update(settings)
        raise SlmxError("taken")

    monkeypatch.setattr("runtimes.generate.commands.read_settings", take)
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("latin-1"))  # as the locale has read the arguments
    argument = "Zoë".encode().decode("latin-1")
    slmx.refuses("generate", "--stop", argument, "--ban-word", argument)
    assert given["stop"] == given["ban_words"] == ["Zoë"]


@pytest.mark.parametrize("text", [" ", "a", "\n"])
def test_a_prompt_of_a_million_characters_is_one_line(bundle: Path, slmx: Slmx, text: str) -> None:
    Path("é 100%.txt").write_text(text * 1_000_000 + "x", "utf-8")
    line = slmx.refuses("generate", "--prompt-file", "é 100%.txt", "--bundle", bundle)
    assert line.startswith("the prompt is far too long (1,000,001 bytes), the context holds 64 tokens; shorten it, ")


def test_an_archive_is_a_bundle_too(bundle: Path, slmx: Slmx) -> None:
    archive = shutil.make_archive("é 100% #1", "zip", bundle)
    arguments = ("generate", "Lily", *SEEDED, "--bundle")
    for flags in ((), ("-n", "2")):
        assert slmx(*arguments, archive, *flags).stdout == slmx(*arguments, bundle, *flags).stdout != ""


def test_a_top_k_beyond_all_bounds_is_the_vocabulary(bundle: Path, slmx: Slmx) -> None:
    arguments = ("generate", "Lily", "--bundle", bundle, *SEEDED, "--top-k")
    assert slmx(*arguments, "1000000000000").stdout == slmx(*arguments, "400").stdout != ""


def test_rules_that_forbid_every_token_end_the_story_and_say_so(bundle: Path, slmx: Slmx) -> None:
    arguments = ("--no-repeat-ngram", "1", "--min-tokens", "999", "--on-full", "slide")
    ran = slmx("generate", "Lily", "--bundle", bundle, *arguments, "--seed", "1", "--json")
    record = json.loads(ran.stdout)
    assert record["finish_reason"] == "exhausted"
    assert len(set(record["ids"])) == len(record["ids"]) > 300
    assert "stopped by rules that forbid every token" in ran.stderr


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    env = {**os.environ, "_SLMX_COMPLETE": "complete_bash", "COMP_WORDS": "slmx ge", "COMP_CWORD": "1"}
    command = Path(sys.executable).with_name("slmx")
    ran = subprocess.run([command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.split() == ["generate"]
