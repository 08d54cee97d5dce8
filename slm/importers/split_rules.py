"""Finds the scheme of slmx that splits text as the steps of a `tokenizer.json` do."""

from __future__ import annotations

from typing import Any

from slm.console.errors import SlmxError
from slm.storage.json_reader import Fields
from slm.tokenizers.settings import PREFIXES, SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer_json import pipeline

KNOWN = [TokenizerSettings(scheme) for scheme in SCHEMES] + [
    TokenizerSettings("sentencepiece", prefix=prefix) for prefix in PREFIXES
]
# The keys under which a sequence lists its steps.
LISTS = ("normalizers", "pretokenizers")
# What a step does if its entry does not say it. Entries of older versions of `tokenizers` are shorter.
DEFAULTS: dict[str, dict[str, object]] = {
    "ByteLevel": {"add_prefix_space": True, "use_regex": True},
    "Digits": {"individual_digits": False},
    "Split": {"invert": False},
}
# It changes only the places in the text that `tokenizers` reports for a token.
NO_EFFECT = "trim_offsets"


def find_rules(stored: Fields, where: str) -> TokenizerSettings:
    """Finds how a tokenizer splits text.

    Args:
        stored: The content of the tokenizer.json.
        where: The file, for messages.

    Returns:
        Settings with the scheme and the prefix.

    Raises:
        ValueError: A step is damaged.
        SlmxError: No scheme of slmx splits text in this way.
    """
    model = stored.object("model")
    kind = model.optional("type", model.text) or "BPE"
    if kind != "BPE":
        raise SlmxError(f"{where}: its model is {kind[:40]!a}, and slmx knows BPE only")
    found = _both(stored.optional("normalizer", stored.value), stored.optional("pre_tokenizer", stored.value))
    for settings in KNOWN:
        steps = pipeline(settings)
        if found == _both(steps["normalizer"], steps["pre_tokenizer"]):
            break
    else:
        names = ", ".join(str(step.get("type"))[:40] for steps in found for step in steps) or "without any"
        raise SlmxError(
            f"{where}: splits text in another way ({names!a}) than the tokenizers that slmx knows: those of GPT-2, "
            "SmolLM2, Llama-3, Qwen2 and Llama-2"
        )
    bytes_wanted = SCHEMES[settings.scheme].pattern is None
    if (model.optional("byte_fallback", model.flag) is True) != bytes_wanted:
        raise SlmxError(
            f"{where}: byte_fallback is {str(not bytes_wanted).lower()}, which does not fit how it splits text; "
            "slmx cannot import this tokenizer"
        )
    return settings


def _both(normalizer: object, splitter: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return _steps(normalizer), _steps(splitter)


def _steps(value: object) -> list[dict[str, Any]]:
    """Returns the steps of a normalizer or a pre-tokenizer, with the defaults that their entries leave out."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise ValueError("a normalizer or a pre-tokenizer is no object")
    if value.get("type") == "Sequence":
        inner = next((value[name] for name in LISTS if name in value), None)
        if not isinstance(inner, list):
            raise ValueError("a sequence has no list of steps")
        return [step for item in inner for step in _steps(item)]
    stated = {name: setting for name, setting in value.items() if name != NO_EFFECT}
    return [DEFAULTS.get(str(value.get("type")), {}) | stated]
