"""`slmx generate` as a user runs it: the text is on stdout, messages are on stderr, and an error is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.store import Bundle
from runtimes.types import Completion
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx

pytestmark = pytest.mark.slow

SEEDED = ("--seed", "3", "--max-tokens", "12")


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


@pytest.fixture
def exported(bundle: Path, tmp_path: Path) -> Path:
    """A working folder in which `bundles/nano` was exported."""
    bundles.copy_of(bundle, tmp_path / "bundles" / "nano")
    return tmp_path


def ours(bundle: Path, prompt: str) -> Completion:
    return load(bundle).generate(prompt, max_tokens=12, seed=3)


def refuses(bundle: Path, cwd: Path, *args: str) -> str:
    """The one line with which a command fails."""
    ran = run_slmx("generate", "Once", "--bundle", str(bundle), *args, cwd=cwd)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("slmx: ")
    return str(line).removeprefix("slmx: ")


def test_text_goes_to_stdout_and_one_line_of_figures_to_stderr(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx("generate", "Once upon", "--bundle", str(bundle), *SEEDED, cwd=tmp_path)
    assert ran.returncode == 0
    story = ours(bundle, "Once upon")
    assert ran.stdout == story.full_text + "\n"
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"{len(story.ids)} tokens, ")
    assert line.endswith(f"stopped by {story.stats.stop} (int8, seed 3, 1 thread)")
    assert list(tmp_path.iterdir()) == []


def test_one_token_has_no_speed(bundle: Path, slmx: Slmx) -> None:
    told = [slmx("generate", "Once", "--bundle", bundle, "--max-tokens", count).stderr for count in ("1", "2")]
    assert ["tokens/s" in line for line in told] == [False, True]


def test_json_is_one_object_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx("generate", 'Once "é"', "--bundle", str(bundle), "--json", *SEEDED, cwd=tmp_path)
    assert ran.returncode == 0
    assert ran.stdout.count("\n") == 1
    record: dict[str, Any] = json.loads(ran.stdout)
    story = ours(bundle, 'Once "é"')
    assert record["prompt"] == 'Once "é"'
    assert record["text"] == story.full_text
    assert record["ids"] == story.ids
    assert record["tokens"] == len(story.ids)
    assert record["prompt_tokens"] == story.stats.prompt_tokens
    assert (record["variant"], record["seed"], record["stop"]) == ("int8", 3, story.stats.stop)
    assert (record["finish_reason"], record["stop_string"]) == (story.stats.finish_reason, None)
    assert record["bundle"] == str(bundle)
    assert record["time_to_first_token"] > 0
    assert record["tokens_per_second"] > 0
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_temperature_zero_is_the_greedy_of_the_session(bundle: Path, tmp_path: Path, variant: str) -> None:
    args = ("--bundle", str(bundle), "--variant", variant, "--temperature", "0", "--json", "--max-tokens", "20")
    record = json.loads(run_slmx("generate", "Once", *args, cwd=tmp_path).stdout)
    session, tokenizer = bundles.session(bundle, variant), Bundle.open(bundle).tokenizer()
    ids: list[int] = []
    logits = session.prefill([tokenizer.end_of_text, *tokenizer.encode("Once")])
    while len(ids) < 20 and int(logits.argmax()) != tokenizer.end_of_text:
        ids.append(int(logits.argmax()))
        logits = session.step(ids[-1])
    assert record["ids"] == ids
    assert record["variant"] == variant


def test_settings_reach_the_sampler(bundle: Path, tmp_path: Path) -> None:
    options = {"temperature": 1.5, "top_k": 9, "top_p": 0.7, "repetition_penalty": 1.4, "seed": 11, "max_tokens": 15}
    args = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    record = json.loads(run_slmx("generate", "Once", "--bundle", str(bundle), "--json", *args, cwd=tmp_path).stdout)
    assert record["ids"] == load(bundle).generate("Once", **options).ids  # type: ignore[call-overload]


def test_no_prompt_starts_from_nothing(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx("generate", "--bundle", str(bundle), *SEEDED, cwd=tmp_path)
    assert ran.returncode == 0
    assert ran.stdout == ours(bundle, "").full_text + "\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--temperature", "-1"), "temperature must be a finite number, 0 (greedy) or more, not -1.0"),
        (("--temperature", "nan"), "temperature must be a finite number, 0 (greedy) or more, not nan"),
        (("--top-p", "0"), "top-p must lie above 0 and up to 1 (off), not 0.0"),
        (("--top-p", "1.5"), "top-p must lie above 0 and up to 1 (off), not 1.5"),
        (("--top-k", "-1"), "top-k must be 0 (off) or more, not -1"),
        (("--repetition-penalty", "0"), "repetition penalty must be above 0, up to 1e+30 (1 is off), not 0.0"),
        (("--seed", "-1"), "seed must be 0 or more, not -1"),
        (("--threads", "0"), "threads must be 1 to 256, not 0"),
        (("--max-tokens", "0"), "max tokens must be at least 1, not 0"),
    ],
)
def test_a_bad_value_is_one_line(bundle: Path, slmx: Slmx, args: tuple[str, ...], said: str) -> None:
    assert slmx.refuses("generate", "Once", "--bundle", bundle, *args, code=2) == said


def test_an_unknown_variant_or_a_folder_that_is_no_bundle_is_one_line(bundle: Path, tmp_path: Path) -> None:
    assert refuses(bundle, tmp_path, "--variant", "q4") == f"{bundle}: no variant 'q4'; it holds int8, fp32"
    nowhere = tmp_path / "nowhere"
    assert refuses(nowhere, tmp_path).startswith(f"{nowhere}: no bundle here (no such file or folder); slmx list ")


def test_a_prompt_that_does_not_fit_is_one_line(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx("generate", "zq" * 500, "--bundle", str(bundle), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("slmx: the prompt is ")
    assert line.endswith('the context holds 64 tokens; shorten it, or set on_full to "slide" (--on-full slide)')


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such arguments themselves")
@pytest.mark.parametrize("output", [[], ["--json"]])
def test_bytes_that_are_not_utf_8_are_one_line(bundle: Path, tmp_path: Path, output: list[str]) -> None:
    ran = run_slmx("generate", os.fsdecode(b"caf\xe9"), "--bundle", str(bundle), *output, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert line == "slmx: the prompt holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8"


def test_an_exported_bundle_is_the_default_and_is_named(exported: Path, bundle: Path) -> None:
    ran = run_slmx("generate", "Once upon", *SEEDED, cwd=exported)
    assert ran.returncode == 0
    assert ran.stdout == ours(bundle, "Once upon").full_text + "\n"
    first, second = ran.stderr.splitlines()
    assert first == f"bundle: {Path('bundles') / 'nano'}, exported here (the name nano is for the one that ships)"
    assert "tokens/s" in second


def test_the_shipped_bundle_is_taken_by_its_name_unless_there_is_such_a_folder(exported: Path, bundle: Path) -> None:
    arguments = ("generate", "Once upon", "--bundle", "nano", "--json", *SEEDED)
    shipped = run_slmx(*arguments, cwd=exported)
    assert json.loads(shipped.stdout)["bundle"] == str(SHIPPED_BUNDLES / "nano")
    assert len(shipped.stderr.splitlines()) == 1
    bundles.copy_of(bundle, exported / "nano")
    assert json.loads(run_slmx(*arguments, cwd=exported).stdout)["bundle"] == "nano"


def test_elsewhere_the_packaged_bundle_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "nano").mkdir(parents=True)
    record = json.loads(run_slmx("generate", "Once upon a time", "--json", *SEEDED, cwd=tmp_path).stdout)
    assert record["bundle"] == str(SHIPPED_BUNDLES / "nano")
    assert record["text"] == load().generate("Once upon a time", max_tokens=12, seed=3).full_text


def test_a_working_folder_that_cannot_be_written_is_enough(exported: Path) -> None:
    folders = [exported, *(path for path in exported.rglob("*") if path.is_dir())]
    before = bundles.snapshot(exported)
    for folder in folders:
        folder.chmod(0o555)
    try:
        ran = run_slmx("generate", "Once", *SEEDED, cwd=exported)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert ran.returncode == 0
    assert bundles.snapshot(exported) == before


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_a_reader_that_went_away_ends_it_quietly(bundle: Path, tmp_path: Path, output: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [shutil.which("slmx", path=Path(sys.executable).parent) or "slmx", "generate", "Once"]
    try:
        ran = subprocess.run(
            [*command, "--bundle", str(bundle), *output],
            cwd=tmp_path,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert "BrokenPipeError" not in ran.stderr
    assert len(ran.stderr.splitlines()) <= 1


def test_a_terminal_that_knows_only_ascii_still_gets_a_story(bundle: Path, tmp_path: Path) -> None:
    wild = ("--temperature", "5", "--top-k", "0", "--top-p", "1", "--seed", "3", "--max-tokens", "50")
    assert (
        not load(bundle)
        .generate("Once é", max_tokens=50, temperature=5.0, top_k=0, top_p=1.0, seed=3)
        .completion_text.isascii()
    )
    for output in ((), ("--json",)):
        ran = run_slmx(
            "generate",
            "Once é",
            "--bundle",
            str(bundle),
            *wild,
            *output,
            cwd=tmp_path,
            env={"PYTHONIOENCODING": "ascii"},
        )
        assert "Traceback" not in ran.stderr
        assert ran.returncode == 0
        assert "Once " in ran.stdout


def test_words_without_quotes_are_one_prompt(bundle: Path, slmx: Slmx) -> None:
    flags = ("--bundle", bundle, *SEEDED)
    assert (
        slmx("generate", *flags, "Once", "upon", "a time").stdout == slmx("generate", "Once upon a time", *flags).stdout
    )


def test_every_command_knows_a_shipped_bundle_by_its_name(slmx: Slmx) -> None:
    assert slmx("info", "nano").stdout.startswith("nano: a Llama of 1,827,968 parameters")
    assert slmx("verify", "nano").stdout.endswith("every hash matches\n")
    assert not (SHIPPED_BUNDLES / "nano" / "verification.json").exists()
