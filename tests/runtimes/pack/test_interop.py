"""sigstore's `model-signing` verifies what slmx signs, and slmx verifies what it signs.

`model-signing` cannot be installed beside the packages of the tests. It needs an environment of its own:

    python3 -m venv /tmp/model-signing && /tmp/model-signing/bin/pip install model-signing pyOpenSSL
    SLMX_MODEL_SIGNING=/tmp/model-signing python -m pytest tests/runtimes/pack/test_interop.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtimes.bundle.manifest import SIGNATURE_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.signature import require_signature, sign_bundle
from slm.console.errors import SlmxError
from tests.bundles import Slmx

Keys = tuple[Path, Path]
VARIABLE = "SLMX_MODEL_SIGNING"
PYTHON = Path(os.environ.get(VARIABLE, "none"), "bin", "python").absolute()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason=f"{VARIABLE} names no environment with model-signing"),
]


def model_signing(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-m", "model_signing", *map(str, args)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def theirs(bundle: Path, public: Path) -> subprocess.CompletedProcess[str]:
    return model_signing("verify", "key", bundle, "--signature", bundle / SIGNATURE_FILE, "--public_key", public)


def test_model_signing_verifies_what_slmx_signs(slmx: Slmx, bundle: Path, keys: Keys, other_keys: Keys) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    ran = theirs(bundle, keys[1])
    assert (ran.returncode, ran.stdout) == (0, "Verification succeeded\n"), ran.stderr
    assert slmx("verify", bundle, "--key", keys[1]).code == 0
    assert theirs(bundle, keys[1]).returncode == 0, "also beside verification.json"
    assert theirs(bundle, other_keys[1]).returncode == 1
    (bundle / "README.md").write_text("another", "utf-8")
    assert theirs(bundle, keys[1]).returncode == 1


def test_model_signing_verifies_what_was_signed_packed(slmx: Slmx, packed: Path, keys: Keys, tmp_path: Path) -> None:
    sign_bundle(Bundle.open(packed), keys[0])
    assert slmx("unpack", packed, "--out", "out").code == 0
    ran = theirs(tmp_path / "out", keys[1])
    assert ran.returncode == 0, ran.stderr


def test_slmx_verifies_what_model_signing_signs(
    slmx: Slmx, bundle: Path, keys: Keys, other_keys: Keys, tmp_path: Path
) -> None:
    ran = model_signing("sign", "key", bundle, "--signature", bundle / SIGNATURE_FILE, "--private_key", keys[0])
    assert ran.returncode == 0, ran.stderr
    assert require_signature(Bundle.open(bundle), keys[1])
    assert slmx("verify", bundle, "--key", keys[1]).code == 0
    assert slmx("pack", bundle, "--out", "a.slmx").code == 0
    assert require_signature(Bundle.open(tmp_path / "a.slmx"), keys[1])
    with pytest.raises(SlmxError, match="made with another key"):
        require_signature(Bundle.open(bundle), other_keys[1])
    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b" ")
    with pytest.raises(SlmxError, match="not the manifest that was signed"):
        require_signature(Bundle.open(bundle), keys[1])
