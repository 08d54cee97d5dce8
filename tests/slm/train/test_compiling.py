"""The compiler of a training run is neither interrupted by Ctrl-C nor trusted to succeed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch._dynamo.exc import TorchDynamoException

from slm.errors import SlmxError
from slm.train.hardware import compiling

BLOCKED = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"


def test_the_compiler_gets_no_signal_and_this_process_gets_it_later() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("SIGINT"))
    try:
        with compiling():
            blocked = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True).stdout
            signal.raise_signal(signal.SIGINT)
            assert seen == []
        assert seen == ["SIGINT"]
    finally:
        signal.signal(signal.SIGINT, before)
    assert {signal.SIGINT, signal.SIGTERM} <= set(map(int, blocked.split()))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_compiler_that_fails_is_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache é"))
    expected = (
        rf"^torch\.compile failed \(x\.so: file too short\); delete its cache, {tmp_path}/cache é, or add --no-compile$"
    )
    with pytest.raises(SlmxError, match=expected), compiling():
        raise TorchDynamoException("traced") from ImportError("x.so:\nfile too short")
