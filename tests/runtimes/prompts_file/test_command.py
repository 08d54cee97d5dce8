"""`slmx generate --prompts` as a user runs it: killed, stopped, in a pipe, on a full disk, with many lines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm.console.counted import count_stories
from tests import bundles
from tests.bundles import Slmx, snapshot
from tests.conftest import run_slmx
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from slm.cli import main; main()", "generate", "--variant", "fp32", "--seed", "5"]


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


def write_prompts(path: Path, count: int) -> None:
    lines = ("Once upon a time", "One day, Lily", '{"prompt": "Tom"', "A")
    text = "".join((lines[i % 4] if i % 4 == 2 else json.dumps(lines[i % 4])) + "\n" for i in range(count))
    path.write_text(text, "utf-8")


def start(bundle: Path, *options: str | Path, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, "--bundle", bundle, *options], **streams)  # type: ignore[call-overload,no-any-return]


def wait_for(path: Path, size: int) -> None:
    wait_until(lambda: path.exists() and path.stat().st_size >= size, 60)


def run(bundle: Path, *options: str | Path) -> int:
    return start(bundle, *options, stderr=subprocess.DEVNULL).wait(120)


@pytest.mark.heavy
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_with_the_same_bytes(bundle: Path, tmp_path: Path, signal_: signal.Signals) -> None:
    prompts, whole, out = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", tmp_path / "o.jsonl"
    write_prompts(prompts, 2000)
    assert run(bundle, "--prompts", prompts, "--out", whole) == 1
    rng, size, stops = random.Random(int(signal_)), whole.stat().st_size, 0
    for _ in range(4):
        process = start(bundle, "--prompts", prompts, "--out", out, stderr=subprocess.PIPE)
        before = out.stat().st_size if out.exists() else 0
        wait_for(out, before + rng.randrange(1, size // 6))
        process.send_signal(signal_)
        _, told = process.communicate(timeout=60)
        stops += process.returncode in (-signal_, 128 + signal_)
        if signal_ != signal.SIGKILL:
            assert process.returncode == 128 + signal_
            assert b"the same command goes on\n" in told
            assert out.read_bytes().endswith(b"\n")
    assert stops
    assert out.stat().st_size < size
    assert run(bundle, "--prompts", prompts, "--out", out) == 1
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if "whole" not in path.name) == [
        "o.jsonl",
        "o.jsonl.run",
        "p.jsonl",
    ]


def test_standard_input_gives_rows_while_it_is_open(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    process = start(bundle, "--prompts", "-", "--out", out, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"Once upon a time\n")
    process.stdin.flush()
    wait_for(out, 10)
    process.send_signal(signal.SIGINT)  # while a thread waits for the next line
    assert process.wait(60) == 130
    process.stdin.close()
    assert process.stderr is not None
    assert b"stopped with 1 story in" in process.stderr.read()
    lines = "Once upon a time\nTom\n\nAnna\n"
    for shard in ((), ("--shard", "1/1", "--force")):
        whole = subprocess.run(
            [*COMMAND, "--bundle", bundle, "--prompts", "-", "--out", out, *shard],
            input=lines.encode(),
            stderr=subprocess.PIPE,
            check=True,
        )
        assert b"3 rows in " in whole.stderr
        assert [json.loads(line)["line"] for line in out.read_text("utf-8").splitlines()] == [1, 2, 4]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few stories."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user or this system may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_all_whole_rows_are_kept(bundle: Path, tmp_path: Path, small_disk: Path, slmx: Slmx) -> None:
    prompts, whole, out = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", small_disk / "o.jsonl"
    write_prompts(prompts, 400)
    options = ("generate", "--variant", "fp32", "--seed", "5", "--bundle", bundle, "--prompts", prompts, "--out")
    assert slmx(*options, whole).code == 1
    line = slmx.refuses(*options, out)
    kept = out.read_bytes()
    assert line == (
        f"{out}: cannot write (No space left on device); it keeps {count_stories(len(kept.splitlines()))}; "
        "make room, and the same command goes on"
    )
    assert kept
    assert whole.read_bytes().startswith(kept)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert slmx(*options, out).code == 1
    assert out.read_bytes() == whole.read_bytes()


MEMORY = """
import resource, sys
from pathlib import Path
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.prompts_file.runner import PromptsJob, write_stories
from runtimes.types import Settings

settings = Settings(logit_bias={}, stop=(), ban_words=(), logprobs=False, seed=5, max_tokens=3)
generator = Generator(Bundle.open(Path(sys.argv[1])), "fp32", threads=1)
for name in ("few", "many"):
    write_stories(generator, PromptsJob(Path(f"{name}.txt"), Path(f"{name}.jsonl"), settings), print)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_the_memory_does_not_grow_with_the_file(bundle: Path, tmp_path: Path) -> None:
    for name, count in (("few", 1000), ("many", 20_000)):
        (tmp_path / f"{name}.txt").write_text("Once upon a time, Lily saw a dog\n" * count, "utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, bundle], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    )
    few, many = map(int, ran.stderr.split())
    assert many - few < 4096  # KiB; the rows alone are 4,000 KiB
    assert (tmp_path / "many.jsonl").stat().st_size > 3_500_000


@pytest.mark.parametrize(
    ("name", "content", "holds"),
    [
        ("p.txt", "", "a prompt"),
        ("p.txt", "\n \r\n", "a prompt"),
        ("p.jsonl", "\n", "JSON: a text, or an object with a prompt"),
        ("-", "", "a prompt"),
    ],
)
def test_a_file_without_a_prompt_is_one_line_and_leaves_no_file(
    bundle: Path, tmp_path: Path, name: str, content: str, holds: str
) -> None:
    (tmp_path / "p.txt").write_text("Tom\n")
    command = ("generate", "--bundle", bundle, "--max-tokens", "3", "--seed", "1", "--out", "o.jsonl", "--prompts")
    assert run_slmx(*command, "p.txt", cwd=tmp_path).returncode == 0
    before = snapshot(tmp_path)
    if name != "-":
        (tmp_path / name).write_text(content)
    ran = run_slmx(*command[:-3], "--out", "new.jsonl", "--prompts", name, cwd=tmp_path, input=content)
    shown = "standard input" if name == "-" else name
    assert (ran.returncode, ran.stderr) == (1, f"slmx: {shown}: no prompt in it; each line must hold {holds}\n")
    assert {*snapshot(tmp_path)} == {*before, *([] if name == "-" else [name])}
    (tmp_path / "p.txt").write_text("Tom\n")
    again = run_slmx(*command, "p.txt", cwd=tmp_path)
    assert (again.returncode, again.stderr.splitlines()[0]) == (0, "nothing to do: o.jsonl has all 1 row")


def test_a_wrong_use_is_one_line(bundle: Path, tmp_path: Path, slmx: Slmx) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("Tom\n", "utf-8")
    begin = ("generate", "--bundle", bundle)
    assert "--prompts needs a file" in slmx.refuses(*begin, "--prompts", prompts, code=2)
    assert "add --prompts FILE" in slmx.refuses(*begin, "--out", "o.jsonl", code=2)
    whole = (*begin, "--prompts", prompts, "--out", "o.jsonl")
    assert slmx.refuses(*whole, "Tom", "-i", code=2) == "--prompts has its own output: drop the prompt and -i"
    assert "--shard takes I/N" in slmx.refuses(*whole, "--seed", "1", "--shard", "3/2", code=2)
    assert "--shard needs --seed" in slmx.refuses(*whole, "--shard", "1/2", code=2)
    assert "n must be a whole number from 1 to 64" in slmx.refuses(*whole, "-n", "65", code=2)
    same = (*begin, "--prompts", prompts, "--out", "p.txt", "--force")
    assert "it would replace the file of prompts" in slmx.refuses(*same, code=2)
    named_text = (*begin, "--prompts", prompts, "--out", "stories.txt")
    assert "stories.txt: its lines are JSON; name it stories.jsonl" in slmx.refuses(*named_text, code=2)
    assert "no.txt: No such file" in slmx.refuses(*begin, "--prompts", "no.txt", "--out", "o.jsonl")
    assert "not a regular file" in slmx.refuses(*begin, "--prompts", prompts, "--out", "/dev/null")
    for folder in (".", "/", ".."):
        line = slmx.refuses(*begin, "--prompts", prompts, "--out", folder, code=2)
        assert line == f"--out {folder}: a folder; name a file, such as {Path(folder) / 'stories.jsonl'}"
    most = "--seed must be at most 9223372036854775807 with --prompts, not 9223372036854775808"
    assert slmx.refuses(*whole, "--seed", str(2**63), code=2) == most
    assert "no file of prompts here" in slmx.refuses(*begin, "--prompts", tmp_path, "--out", "o.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.txt"]
    ran = slmx(*whole, "--max-tokens", "3", "--seed", "1")
    assert (ran.code, ran.stdout) == (0, "")
    done, record = ran.stderr.splitlines()
    assert done.startswith("1 row in o.jsonl, 3 tokens, ")
    assert done.endswith(", seed 1, 1 at the same time)")
    assert record == "o.jsonl.run lets the same command go on with further prompts; delete it if there are none"
    assert "nothing to do" in slmx(*whole, "--max-tokens", "3", "--seed", "1").stderr.splitlines()[0]
