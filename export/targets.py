"""The kinds of machine that a bundle can be made for. docs/quantization.md has the measurements."""

from __future__ import annotations

from slm.console.errors import UsageError, unknown

# The variant that runs there by default: the fastest one with a small loss.
TARGETS = {
    "any": "int8",
    "x86": "int8",
    "pi3": "int8",
    "pi4": "int8",
    "pi5": "int8",
    "web": "fp16",  # int8 is slower than float32 in WebAssembly
}


def default_variant(target: str) -> str:
    """Returns the variant that runs by default on a kind of machine.

    Raises:
        UsageError: There is no such target. The message lists those that exist.
    """
    if target not in TARGETS:
        raise UsageError(unknown("target", target, list(TARGETS)))
    return TARGETS[target]
