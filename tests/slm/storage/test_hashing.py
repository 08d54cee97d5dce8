"""A hash is that of hashlib, whichever implementation computes it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from slm.storage import hashing
from slm.storage.hashing import OPENSSL_FROM, sha256_of, sha256_of_bytes

CONTENTS = [b"", b"abc", b"x" * (OPENSSL_FROM + 1)]


@pytest.mark.parametrize("openssl", [True, False])
def test_every_implementation_gives_the_same(openssl: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not openssl:
        monkeypatch.delitem(sys.modules, "_hashlib")
    for content in CONTENTS:
        (tmp_path / "file").write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert (sha256_of_bytes(content), sha256_of(tmp_path / "file")) == (expected, expected)


def test_a_python_without_its_own_uses_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "_hashlib")
    monkeypatch.setattr(hashing, "_own_sha256", lambda: None)
    assert sha256_of_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_a_small_file_does_not_load_openssl() -> None:
    code = "import sys; from slm.storage.hashing import sha256_of_bytes as f; f(b'abc'); "
    code += "sys.exit('_hashlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
