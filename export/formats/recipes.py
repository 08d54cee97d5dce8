"""The ways in which dynamic int8 can store weights. This module imports nothing heavy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from slm.console.errors import UsageError, unknown


@dataclass(frozen=True)
class Int8Recipe:
    """How weights become int8.

    Attributes:
        signed: Whether they are int8; if not, they are uint8. With one scale, both have a zero point, so the same
            numbers are stored; the products of signed weights are faster.
        per_channel: Whether each output channel has its own scale; if not, the matrix has one scale.
        reduce_range: Whether only 7 of the 8 bits are used.
        table: Whether the token table is also quantized.
    """

    signed: bool
    per_channel: bool
    reduce_range: bool
    table: bool

    @property
    def name(self) -> str:
        """The name on the command line, such as `s8-channel-7bit` or `u8-tensor-float-table`."""
        parts = ["s8" if self.signed else "u8", "channel" if self.per_channel else "tensor"]
        return "-".join(parts + ["7bit"] * self.reduce_range + ["float-table"] * (not self.table))


_FLAGS = itertools.product((True, False), (False, True), (False, True), (True, False))
RECIPES: dict[str, Int8Recipe] = {recipe.name: recipe for recipe in (Int8Recipe(*flags) for flags in _FLAGS)}
# docs/quantization.md has the measurements that led to this choice.
DEFAULT_RECIPE = "u8-tensor"
# Those that --int8-recipe takes. benchmarks.studies.quantization measures all that there are.
RECIPE_NAMES = ("u8-tensor", "u8-channel")


def get_recipe(name: str) -> Int8Recipe:
    """Returns the recipe with a name.

    Raises:
        UsageError: There is none. The message lists the names that exist.
    """
    if name not in RECIPES:
        raise UsageError(unknown("int8 recipe", name, list(RECIPES)))
    return RECIPES[name]
