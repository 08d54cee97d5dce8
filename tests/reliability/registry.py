"""The checks by name. Each module of this package adds its own here."""

from __future__ import annotations

from tests.reliability.builds import CHECKS as BUILDS
from tests.reliability.numbers import CHECKS as NUMBERS
from tests.reliability.outcome import Check
from tests.reliability.versions import CHECKS as VERSIONS

CHECKS: dict[str, Check] = {}
CHECKS |= NUMBERS
CHECKS |= BUILDS
CHECKS |= VERSIONS
