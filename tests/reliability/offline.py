"""Without a network, a home folder and a writable working folder, every command that downloads nothing works."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.console.notice import Log
from tests.reliability.outcome import Check, Outcome

NANO = str(SHIPPED_BUNDLES / "nano")
SLMX = (sys.executable, "-c", "from slm.cli import main; main()")
CONNECT = re.compile(r"\b(?:connect|sendto|sendmsg)\(.*sa_family=AF_INET6?\b.*")
LOOPBACK = re.compile(r'"127\.|"::1"')
SCRATCH = "scratch"
# Runs a command that can write nowhere but in an empty folder for temporary files, which is $TMPDIR.
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'while read -r _ point _; do mount -o remount,bind,ro "$point" 2>/dev/null; done </proc/mounts; '
    'mount -t tmpfs tmpfs "$TMPDIR" && cd / && exec "$@"',
    "sh",
)
PORT = 8765
SERVE_SECONDS = 60.0
STORY = ("generate", "One day", "--seed", "1", "--max-tokens", "8")
TINY = ("--n-layer", "1", "--n-head", "2", "--n-embd", "32", "--block-size", "32")


@dataclass(frozen=True)
class Command:
    """A command that needs no network.

    Attributes:
        argv: Its words. IN is the folder with stories and what earlier commands made.
        quick: Whether the short form of the check runs it.
    """

    argv: tuple[str, ...]
    quick: bool = False


COMMANDS = (
    Command(("--help",)),
    Command(("--version",)),
    Command((*STORY,), quick=True),
    Command((*STORY, "--bundle", NANO, "--save", "IN/story.txt")),
    Command(("generate", "--prompts", "IN/prompts.txt", "--out", "IN/out.jsonl", "--max-tokens", "8")),
    Command(("list",), quick=True),
    Command(("presets",)),
    Command(("info", NANO), quick=True),
    Command(("verify", NANO)),
    Command(("doctor",)),
    Command(("pack", NANO, "--out", "IN/nano.slmx")),
    Command(("unpack", "IN/nano.slmx", "--out", "IN/bundles/tales")),
    Command(("keygen", "--out", "IN/mine")),
    Command(("sign", "IN/bundles/tales", "--key", "IN/mine.key")),
    Command(("verify", "IN/bundles/tales", "--key", "IN/mine.pub")),
    Command(("web", NANO, "--out", "IN/site")),
    Command(("prepare", "IN/stories.txt", "--out", "IN/data", "--vocab-size", "300")),
    Command(("train", "--text", "IN/data", "--dry-run", "--no-compile", *TINY)),
    Command(("train", "--text", "IN/data", "--out", "IN/run", "--no-compile", "--steps", "4", *TINY)),
    Command(("average", "IN/run/step-0000000", "IN/run", "--text", "IN/data", "--out", "IN/mean")),
    Command(("export", "--checkpoint", "IN/run", "--out", "IN/mine", "--text", "IN/stories.txt")),
    Command(("verify", "IN/mine", "--quality", "--checkpoint", "IN/run", "--text", "IN/stories.txt")),
    Command(("evaluate", NANO, "--text", "IN/stories.txt", "--max-tokens", "500", "--out", "IN/figures")),
    Command(("bench", NANO, "--quick", "--peers", "none", "--threads", "1", "--out", "IN/bench")),
    Command(("compare", "IN/bench/report/report.json", "IN/bench/report/report.json")),
    Command(("import", "IN/in.pt", "--tokenizer", "IN/run", "--out", "IN/imported")),
    Command(("rm", "tales", "--yes")),
)
# Those that a machine with a read-only disk runs.
READERS = ((*STORY,), ("info", NANO), ("list",), ("verify", NANO))
QUICK_READERS = 1


def run(quick: bool, log: Log) -> Outcome:
    """Tries the promise."""
    found = Outcome(0, "commands")
    with tempfile.TemporaryDirectory(prefix="slmx-offline-") as name:
        inputs = Path(name)
        if subprocess.run(_traced(inputs / "trace", ["true"]), capture_output=True, check=False).returncode:
            log("skipped, because no network of its own or no strace is allowed here")
            return found
        (inputs / "prompts.txt").write_text("One day\nOnce there was a dog.\n")
        if not quick:
            from tests.reliability.brief import write_sources

            write_sources(inputs)
        for command in COMMANDS:
            if command.quick or not quick:
                argv = tuple(word.replace("IN/", f"{inputs}/") for word in command.argv)
                _try(found, log, argv, lambda argv: _offline(argv, inputs))
        _try(found, log, ("serve",), lambda _: _serve(inputs, ()))
        (inputs / SCRATCH).mkdir()
        if subprocess.run([*READ_ONLY, "true"], env=_homeless(inputs), capture_output=True, check=False).returncode:
            log("no commands on a read-only system, because no file system can be mounted here")
            return found
        for argv in READERS[: QUICK_READERS if quick else None]:
            _try(found, log, argv, lambda argv: _read_only(argv, inputs))
        if not quick:
            _try(found, log, ("serve", "on a read-only system"), lambda _: _serve(inputs, READ_ONLY))
    return found


def _try(found: Outcome, log: Log, argv: tuple[str, ...], act: Callable[[tuple[str, ...]], str]) -> None:
    found.tried += 1
    problem = act(argv)
    log(f"slmx {' '.join(argv)}: {problem or 'works'}")
    if problem:
        found.failures.append(f"slmx {' '.join(argv)}: {problem}")


def _traced(log: Path, command: Sequence[str]) -> list[str]:
    """A command in a network of its own, which has only loopback, with the record of its connections."""
    up = 'command -v ip >/dev/null && ip link set lo up; exec "$@"'
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg", "-o", str(log)]
    return ["unshare", "--net", "sh", "-c", up, "sh", *trace, *command]


def _strangers(log: Path) -> str:
    """The first connection that does not go to this machine; "" if there is none."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else ["no record of strace"]
    found = [line for line in lines if line.startswith("no ") or (CONNECT.search(line) and not LOOPBACK.search(line))]
    return f"connects: {found[0]}" if found else ""


def _offline(argv: tuple[str, ...], inputs: Path) -> str:
    trace = inputs / "trace"
    trace.unlink(missing_ok=True)
    ran = subprocess.run(
        _traced(trace, [*SLMX, *argv]), cwd=inputs, env=_env(inputs), capture_output=True, text=True, check=False
    )
    return f"ends with {ran.returncode}: {ran.stderr[-300:]}" if ran.returncode else _strangers(trace)


def _env(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_"))}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def _homeless(inputs: Path) -> dict[str, str]:
    return {**_env(Path("/nonexistent")), "TMPDIR": str(inputs / SCRATCH)}


def _read_only(argv: tuple[str, ...], inputs: Path) -> str:
    ran = subprocess.run(
        [*READ_ONLY, *SLMX, *argv], cwd=inputs, env=_homeless(inputs), capture_output=True, text=True, check=False
    )
    return f"ends with {ran.returncode}: {ran.stderr[-300:]}" if ran.returncode else ""


def _serve(inputs: Path, around: Sequence[str]) -> str:
    """Starts a server, asks it for a story over loopback, and stops it."""
    command = [*SLMX, "serve", NANO, "--port", str(PORT)]
    if around:
        return ask_served([*around, *command], _homeless(inputs))
    trace = inputs / "trace"
    trace.unlink(missing_ok=True)
    code = "import sys; from tests.reliability.offline import ask_served; sys.exit(ask_served(sys.argv[1:]) or None)"
    ran = subprocess.run(
        _traced(trace, [sys.executable, "-c", code, *command]),
        cwd=Path(__file__).resolve().parents[2],
        env=_env(inputs),
        capture_output=True,
        text=True,
        check=False,
    )
    return f"ends with {ran.returncode}: {ran.stderr[-300:]}" if ran.returncode else _strangers(trace)


def ask_served(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Starts a server with a command, asks it for a story and stops it. Returns what went wrong, or ""."""
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            return _ask(time.monotonic() + SERVE_SECONDS)
        finally:
            server.send_signal(signal.SIGTERM)


def _ask(until: float) -> str:
    body = b'{"prompt": "One day", "max_tokens": 8}'
    while True:
        try:
            request = urllib.request.Request(
                f"http://127.0.0.1:{PORT}/v1/completions", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request) as answer:
                return "" if b"choices" in answer.read() else "the answer has no story"
        except OSError as error:
            if time.monotonic() > until:
                return f"no answer: {error}"
            time.sleep(0.1)


def _needs() -> str:
    """The program that is missing here; one of those that are there if none is."""
    return next((name for name in ("unshare", "strace") if shutil.which(name) is None), "strace")


CHECKS = {
    "offline": Check(
        "Every command that downloads nothing works without a network and connects to nothing but this machine; "
        "those that read need no home folder and no writable folder.",
        run,
        needs=_needs(),
    )
}
