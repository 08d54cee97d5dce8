"""Where a model comes from: what its training record, and those in it, say of texts, licences and tokens."""

from __future__ import annotations

from typing import Any

from slm.console.plain_text import MAX_TEXT, as_plain_text

# Separates the texts of a training from those of the training before it.
BEFORE = "; before that, "


def source_of(record: dict[str, Any]) -> str | None:
    """Returns the texts that a model was trained on, or the model that it was imported from; None if not recorded.

    Args:
        record: The training record of the checkpoint.
    """
    if not record:
        return None
    if isinstance(imported := record.get("imported"), dict):
        parts = [imported.get("name"), imported.get("repository") or imported.get("folder") or imported.get("file")]
        named = ", ".join(str(part) for part in parts if part)
        return _short(f"imported from {named} (a model of type {imported.get('model_type')})")
    # Training records of data sets in format 1 name the split `side`.
    texts = [f"{item['file']} ({item.get('split') or item.get('side')})" for item in record.get("data") or ()]
    own, before = ", ".join(texts), source_of(_origin(record))
    if before and before != own:
        return _short(f"{own}{BEFORE}{before}" if own else f"{BEFORE.removeprefix('; ')}{before}")
    return _short(own) or None


def licence_of(record: dict[str, Any]) -> str | None:
    """Returns the licences of the text, of the imported model and of the teachers; None if none is stated.

    Args:
        record: The training record of the checkpoint.
    """
    before = licence_of(_origin(record)) if record else None
    of_teachers = (teacher.get("licence") for teacher in record.get("teachers") or ())
    stated = (licence for licence in (record.get("licence"), before, *of_teachers) if licence)
    parts = (part for licence in stated if licence != "not stated" for part in str(licence).split("; "))
    return _short("; ".join(dict.fromkeys(parts))) or None


def teachers_of(record: dict[str, Any]) -> list[str]:
    """Returns the teachers of a training and of those before it, such as "micro (9030b967e3c7)".

    The number is the first 12 digits of the SHA-256 of the teacher's `config.json`.

    Args:
        record: The training record of the checkpoint.
    """
    own = [f"{teacher['preset']} ({teacher['config_sha256'][:12]})" for teacher in record.get("teachers") or ()]
    return list(dict.fromkeys([*own, *(teachers_of(origin) if (origin := _origin(record)) else ())]))


def is_imported(record: dict[str, Any]) -> bool:
    """Returns whether a model was imported from another program, or fine-tuned from one that was.

    Args:
        record: The training record of the checkpoint.
    """
    return isinstance(record.get("imported"), dict) or bool((origin := _origin(record)) and is_imported(origin))


def tokens_seen(record: dict[str, Any]) -> int:
    """Returns the number of tokens that a model has read in slmx, in its training and in those before it.

    Args:
        record: The training record of the checkpoint.
    """
    return int(record.get("tokens_seen") or 0) + (tokens_seen(origin) if (origin := _origin(record)) else 0)


def _origin(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of the checkpoint that a model was fine-tuned from; empty if there is none."""
    origin = record.get("init")
    inner = origin.get("record") if isinstance(origin, dict) else None
    return inner if isinstance(inner, dict) else {}


def _short(text: str) -> str:
    # A card holds it in a table of Markdown.
    return as_plain_text(text).replace("|", "/").replace("<", "(").replace(">", ")")[:MAX_TEXT]
