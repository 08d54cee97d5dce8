"""Where a bundle will run, and what that decides: how int8 quantizes, and which variant is the default.

Every row rests on a measurement in docs/export.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from slm.errors import SlmxError


@dataclass(frozen=True)
class Target:
    """A kind of machine: its int8 recipe, the variant that is quickest there at little loss, and why."""

    name: str
    int8_recipe: str
    default: str
    why: str


_ALL = (
    Target("any", "u8-tensor", "int8", "right on every processor, quickest or close to it on all measured"),
    Target("x86", "u8-tensor", "int8", "without VNNI signed weights saturate 16-bit sums, unsigned ones do not"),
    Target("x86-vnni", "s8-tensor", "int8", "nothing saturates, and signed weights are quicker"),
    Target("pi4", "s8-channel", "int8", "quickest on Cortex-A72, where nothing saturates and int4 is slower than fp32"),
    Target("pi5", "u8-tensor", "int8", "as quick on Cortex-A76 as s8-tensor, and agrees more"),
    Target("web", "u8-tensor", "fp16", "int8 is slower than float32 in WebAssembly; 16 bits halve the download"),
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def get_target(name: str) -> Target:
    """The target of that name; SlmxError listing those that exist otherwise."""
    if name not in TARGETS:
        raise SlmxError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}")
    return TARGETS[name]
