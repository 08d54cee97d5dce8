"""The registry of variants: complete, without clashes, and frozen."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from runtimes.bundle.variants import VARIANTS
from slm.storage.json_reader import is_plain_name


def test_no_two_variants_share_a_file_a_rank_or_a_description() -> None:
    for field in ("file", "what", "preference"):
        assert len({getattr(variant, field) for variant in VARIANTS.values()}) == len(VARIANTS)
    for name, variant in VARIANTS.items():
        assert variant.name == name
        assert all(is_plain_name(part) for part in (name, *variant.file.split("/")))


def test_every_variant_is_held_to_one_limit() -> None:
    for variant in VARIANTS.values():
        limits = [limit for limit in (variant.gate.parity, variant.gate.bpb_increase) if limit is not None]
        assert len(limits) == 1
        assert 0 < limits[0] < 0.1
        assert variant.is_float or variant.gate.bpb_increase is not None


def test_nothing_can_change_the_registry() -> None:
    with pytest.raises(TypeError):
        VARIANTS["int2"] = VARIANTS["int8"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        VARIANTS["int8"].gate.bpb_increase = 1.0  # type: ignore[misc]
