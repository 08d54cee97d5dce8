"""The checks by name. Each module of this package adds its own here."""

from __future__ import annotations

from tests.reliability.byte_flips import CHECKS as BYTE_FLIPS
from tests.reliability.hostile import CHECKS as HOSTILE
from tests.reliability.outcome import Check

CHECKS: dict[str, Check] = {}
CHECKS |= BYTE_FLIPS
CHECKS |= HOSTILE
