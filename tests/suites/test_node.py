"""OpenAI's client for JavaScript against a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.suites.conftest import KEY

pytestmark = [pytest.mark.suites, pytest.mark.slow]

FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs Node.js 20 or newer")
@pytest.mark.skipif(not (FOLDER / "node_modules").is_dir(), reason="needs `npm ci` in tests/suites/node")
def test_the_client_of_javascript(server: str, narrow: str) -> None:
    variables = {**os.environ, "SERVER": server, "NARROW": narrow, "KEY": KEY}
    command = [str(NODE), "--test", "--test-timeout=60000", "client.test.mjs"]
    ran = subprocess.run(command, cwd=FOLDER, env=variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout)
