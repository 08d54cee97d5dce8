"""The row that `slmx doctor --report` prints, for owners of a machine to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtimes.checks.doctor import Findings, Way
from runtimes.system.machine import describe_machine, temperature, top_megahertz

if TYPE_CHECKING:
    from runtimes.bundle.store import Bundle
    from runtimes.system.timing import Samples

FORMAT = 1


def report_row(found: Findings, bundle: Bundle, measured: Mapping[Way, Samples], seconds: float) -> dict[str, Any]:
    """Returns what was measured on this machine. It holds no name of the machine or of a user, and no path.

    Args:
        found: The facts about the machine.
        bundle: The bundle that was measured.
        measured: The seconds per token of each variant and number of threads.
        seconds: How long the measurement took.

    Returns:
        Texts, numbers and lists that JSON can hold, with each variant at its best number of threads.
        `tokens_per_second` is the median, and `spread` is half the interquartile range relative to it. Temperatures are
        in degrees Celsius, after the measurement.
    """
    described = describe_machine()
    return {
        "doctor": FORMAT,
        "board": found.board,
        "machine": found.machine,
        "cpu": described["cpu"],
        "features": list(found.features),
        "cores": found.cores,
        "top_megahertz": top_megahertz(),
        "temperature": temperature(),
        "memory_mib": None if found.memory is None else round(found.memory / 2**20),
        "load": round(found.load, 2),
        "system": described["system"],
        "python": described["python"],
        "versions": {"slmx": described["slmx"], **found.versions},
        "model": bundle.manifest.preset,
        "target": bundle.manifest.target,
        "bundle": bundle.manifest_sha256,
        "variants": {
            way.variant: {
                "tokens_per_second": round(1 / samples.median, 1),
                "spread": round(samples.spread, 3),
                "threads": way.threads,
            }
            for way, samples in reversed([*measured.items()])  # of several ways of a variant, the fastest stays
        },
        "seconds": round(seconds, 1),
    }
