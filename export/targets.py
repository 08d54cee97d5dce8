"""The kinds of machine that a bundle can be made for, each with its int8 recipe and its default variant.

docs/export.md has the measurements for every row.
"""

from __future__ import annotations

from dataclasses import dataclass

from slm.console.errors import UsageError, unknown


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    Attributes:
        name: Its name on the command line.
        int8_recipe: How int8 quantizes for it.
        default: The fastest variant there with a small loss.
        why: The reason, in one sentence.
    """

    name: str
    int8_recipe: str
    default: str
    why: str


_ALL = (
    Target("any", "u8-tensor", "int8", "right on every processor, fastest or nearly so on all that were measured"),
    Target("x86", "u8-tensor", "int8", "slmx makes the weights signed in memory where VNNI multiplies them exactly"),
    Target("pi3", "u8-tensor", "int8", "in signed form, it takes the fewest instructions on Cortex-A53"),
    Target("pi4", "u8-tensor", "int8", "in signed form, it takes the fewest instructions on Cortex-A72"),
    Target("pi5", "u8-tensor", "int8", "as few instructions on Cortex-A76 as any other recipe"),
    Target("web", "u8-tensor", "fp16", "int8 is slower than float32 in WebAssembly; 16 bits halve the download"),
)
# The int8 recipes that --int8-recipe takes. benchmarks.studies.quantization measures all that there are.
RECIPE_NAMES = ("u8-tensor", "u8-channel")
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def get_target(name: str) -> Target:
    """Returns the target with a name; UsageError if there is none, with the names that exist."""
    if name not in TARGETS:
        raise UsageError(unknown("target", name, list(TARGETS)))
    return TARGETS[name]
