"""The kinds of machine that a bundle can be made for, each with its default variant.

docs/export.md has the measurements for every row.
"""

from __future__ import annotations

from dataclasses import dataclass

from slm.errors import UsageError, unknown


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    Attributes:
        name: Its name on the command line.
        default: The fastest variant there with a small loss.
        why: The reason, in one sentence.
    """

    name: str
    default: str
    why: str


_ALL = (
    Target("any", "int8", "fastest or nearly so on all processors that were measured, and small"),
    Target("pi3", "int8", "as few instructions as float32 on Cortex-A53, and a quarter of the bytes"),
    Target("pi4", "int8", "as few instructions as float32 on Cortex-A72, and a quarter of the bytes"),
    Target("pi5", "int8", "fewer instructions than float32 on Cortex-A76, and a quarter of the bytes"),
    Target("web", "fp16", "int8 is slower than float32 in WebAssembly; 16 bits halve the download"),
)
# The int8 recipes that --int8-recipe takes. benchmarks.studies.quantization measures all that there are.
DEFAULT_RECIPE = "s8-tensor"  # docs/export.md has the measurements behind this choice
RECIPE_NAMES = ("s8-tensor", "u8-tensor", "u8-channel", "s8-channel")
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def get_target(name: str) -> Target:
    """Returns the target with a name; UsageError if there is none, with the names that exist."""
    if name not in TARGETS:
        raise UsageError(unknown("target", name, list(TARGETS)))
    return TARGETS[name]
