"""Compares a request for a data set with that of an existing one, in the words of `slmx prepare`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from slm.console.plain_text import is_plain_text
from slm.presets import PRESETS

# The rules of cleaning of the data sets that do not name them.
FIRST_RULES = 1
SHOWN_CHARACTERS = 80


def differences(record: Mapping[str, Any], request: Mapping[str, Any], any_rules: bool) -> list[str]:
    """Returns how an existing data set was made otherwise than is asked for now; nothing if it was made in this way.

    Args:
        record: The content of the `dataset.json` of the existing data set.
        request: `sources` and `settings`, as they would be in `dataset.json` now.
        any_rules: Whether other rules of cleaning are no difference.

    Returns:
        For each difference, how the existing data set was made, such as "with --preset nano".
    """
    before, now = {"rules": FIRST_RULES, **record.get("settings", {})}, request["settings"]
    found = []
    if record.get("sources") != request["sources"]:
        found.append(_other_sources(record.get("sources"), request["sources"]))
    differing = [name for name, value in now.items() if before.get(name) != value]
    if any_rules and "rules" in differing:
        differing.remove("rules")
    if "preset" in differing and _is_vocabulary_of_preset(before) and _is_vocabulary_of_preset(now):
        differing = [name for name in differing if name != "vocab_size"]
    return [*found, *(_made_with(name, before.get(name), now[name]) for name in differing)]


def _other_sources(before: object, now: list[dict[str, Any]]) -> str:
    """Returns how the sources differ: in the training text, or else in the validation text or the separator."""
    earlier = [source for source in before if isinstance(source, dict)] if isinstance(before, list) else []
    if _without_separator(earlier) == _without_separator(now):
        return "with another --separator"
    training = [[source for source in sources if source.get("split") == "train"] for sources in (earlier, now)]
    return "from other texts" if training[0] != training[1] else "with another --valid"


def _without_separator(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in source.items() if name != "separator"} for source in sources]


def _is_vocabulary_of_preset(settings: Mapping[str, Any]) -> bool:
    preset = PRESETS.get(str(settings.get("preset")))
    return preset is not None and preset.config.vocab_size == settings.get("vocab_size")


def _made_with(name: str, before: object, now: object) -> str:
    """Returns what an existing data set was made with, as an option."""
    if name == "rules":
        return "with the rules of cleaning of another slmx"
    if name == "clean":
        return "without --no-clean" if before else "with --no-clean"
    option = f"--{name.replace('_', '-')}"
    if name == "tokenizer":
        return f"without {option}" if before is None else f"with {option}" if now is None else f"with another {option}"
    shown = str(before)
    if isinstance(before, (str, int)) and is_plain_text(shown) and len(shown) <= SHOWN_CHARACTERS:
        return f"with {option} {shlex.quote(shown)}"
    return f"with another {option}"
