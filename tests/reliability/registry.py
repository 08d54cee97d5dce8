"""The checks by name, in the order of docs/reliability.md. Each module of this package has its own."""

from __future__ import annotations

from tests.reliability.builds import CHECKS as BUILDS
from tests.reliability.byte_flips import CHECKS as BYTE_FLIPS
from tests.reliability.crashes import CHECKS as CRASHES
from tests.reliability.disk import CHECKS as DISK
from tests.reliability.hostile import CHECKS as HOSTILE
from tests.reliability.load import CHECKS as LOAD
from tests.reliability.numbers import CHECKS as NUMBERS
from tests.reliability.offline import CHECKS as OFFLINE
from tests.reliability.outcome import Check
from tests.reliability.versions import CHECKS as VERSIONS

CHECKS: dict[str, Check] = {
    **HOSTILE,
    **BYTE_FLIPS,
    **CRASHES,
    **DISK,
    **OFFLINE,
    **NUMBERS,
    **LOAD,
    **BUILDS,
    **VERSIONS,
}
