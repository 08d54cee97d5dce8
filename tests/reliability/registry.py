"""The checks by name. Each module of this package adds its own here."""

from __future__ import annotations

from tests.reliability.crashes import CHECKS as CRASHES
from tests.reliability.disk import CHECKS as DISK
from tests.reliability.offline import CHECKS as OFFLINE
from tests.reliability.outcome import Check

CHECKS: dict[str, Check] = {}
CHECKS |= CRASHES
CHECKS |= DISK
CHECKS |= OFFLINE
