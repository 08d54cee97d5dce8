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


def test_a_program_that_is_missing_is_one_line() -> None:
    with pytest.raises(SlmxError) as caught:
        output_of(["no-such-program", "--version"], "unpacking")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("unpacking failed: cannot start no-such-program (")
    assert line.endswith("; install it, or check its path")


def test_errors_that_are_shown_are_not_told_again(capfd: pytest.CaptureFixture[str]) -> None:
    source = "import sys; print(1); print('no space left', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    assert output_of([sys.executable, "-c", source, "0"], "unpacking", shows_errors=True).strip() == "1"
    with pytest.raises(SlmxError) as caught:
        output_of([sys.executable, "-c", source, "3"], "unpacking", shows_errors=True)
    assert str(caught.value) == "unpacking failed: exit code 3"
    assert capfd.readouterr().err.split() == ["no", "space", "left"] * 2
