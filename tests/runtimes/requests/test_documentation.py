"""docs/server-api.md lists every field with its values and its default.

python -m tests.runtimes.requests.test_documentation    prints the tables that the document must hold
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtimes.requests.fields import IGNORED, IGNORED_IN_CHAT, Bounds, chat_table, completion_table
from runtimes.requests.kinds import Anything, Schema
from runtimes.requests.table import Field, Table

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "server-api.md"
COMPLETION, CHAT = completion_table(Bounds()), chat_table(Bounds())
SHARED = [field for field in COMPLETION.fields if field in CHAT.fields]


def own(table: Table) -> list[Field]:
    """The fields that only this endpoint has."""
    return [field for field in table.fields if field not in SHARED]


def values(schema: Schema) -> str:
    """What a schema accepts, in a few words."""
    if "anyOf" in schema:
        return ", or ".join(values(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"] if value is not None) or "none"
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in ("number", "integer"):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema["maximum"]
        start = f"above {low:g} to" if "exclusiveMinimum" in schema else f"{low:g} to"
        return f"{'whole, ' if kind == 'integer' else ''}{start} {high if isinstance(high, int) else f'{high:g}'}"
    if kind == "array":
        most = f" of at most {schema['maxItems']:,}" if "maxItems" in schema else ""
        items = "ids" if schema["items"].get("type") == "integer" else values(schema["items"])
        return f"list{most} ({items})"
    if kind == "object":
        return "object"
    if kind == "string":
        return f"text of at most {schema['maxLength']:,} characters" if "maxLength" in schema else "text"
    return {"boolean": "true, false", None: "any"}[kind]


def rows(fields: list[Field]) -> str:
    """A table in Markdown."""
    lines = ["| field | values | default | |", "|---|---|---|---|"]
    for field in fields:
        if not isinstance(field.kind, Anything):
            default = "needed" if field.required else "" if field.default is None else f"`{json.dumps(field.default)}`"
            lines.append(f"| `{field.name}` | {values(field.kind.schema())} | {default} | {field.about} |")
    return "\n".join(lines)


@pytest.mark.parametrize("fields", [SHARED, own(COMPLETION), own(CHAT)], ids=["shared", "completions", "chat"])
def test_every_field_is_documented(fields: list[Field]) -> None:
    assert rows(fields) in DOCUMENT.read_text("utf-8")


def test_the_ignored_fields_are_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("Ignored")]
    for name in IGNORED | IGNORED_IN_CHAT:
        assert f"`{name}`" in line


if __name__ == "__main__":
    for part in (SHARED, own(COMPLETION), own(CHAT)):
        print(rows(part), end="\n\n")
