"""Commands in processes of their own."""

from __future__ import annotations

import sys

import pytest

from benchmarks.child import output_of
from slm.console.errors import SlmxError


def test_a_command_that_fails_is_one_line() -> None:
    with pytest.raises(SlmxError) as caught:
        output_of([sys.executable, "-c", "import sys; print('long'); sys.exit('no space left')"], "unpacking")
    assert str(caught.value) == "unpacking failed: no space left"
    with pytest.raises(SlmxError, match="exit code 3"):
        output_of([sys.executable, "-c", "raise SystemExit(3)"], "unpacking")
