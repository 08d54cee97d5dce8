"""A table of fields. It checks an object, and describes the object as a JSON schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.requests.errors import RequestError
from runtimes.requests.kinds import Kind, Schema, shown
from slm.storage.json_reader import is_plain_name

LONGEST_NAME = 100


@dataclass(frozen=True)
class Field:
    """A field of an object.

    Attributes:
        name: Its name.
        kind: What it can hold.
        about: What it does, in one sentence.
        default: What a missing field or null stands for, as JSON; None if that is no value of this kind.
        required: Whether it must be there.
    """

    name: str
    kind: Kind[object]
    about: str
    default: object = None
    required: bool = False

    def schema(self) -> Schema:
        """Returns the JSON schema of the field. A field that is not required may be null."""
        schema = self.kind.schema()
        if not self.required:
            if "enum" in schema:
                schema["enum"] = [*(value for value in schema["enum"] if value is not None), None]
            elif "anyOf" in schema:
                schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
            elif "type" in schema:
                schema["type"] = [schema["type"], "null"]
        if self.default is not None:
            schema["default"] = self.default
        return schema | {"description": self.about}


@dataclass(frozen=True)
class Table:
    """The fields of an object, in the order of the documents."""

    fields: tuple[Field, ...]

    def read(self, name: str, value: object) -> dict[str, Any]:
        """Checks an object.

        Args:
            name: The name of the object, for messages; empty for a whole request.
            value: A value that `json.loads` can return.

        Returns:
            The checked values of the fields that are there and not null.

        Raises:
            RequestError: It is no object, or a field is unknown, missing, of another kind or out of its range.
        """
        if not isinstance(value, Mapping):
            raise RequestError(f"{name or 'the request'} must be a JSON object, not {shown(value)}", name or None)
        known = {field.name: field for field in self.fields}
        start = f"{name}." if name else ""
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key[:LONGEST_NAME].lower(), known, n=1)
                advice = f"did you mean {start}{near[0]}?" if near else "leave it out"
                param = f"{start}{key}" if is_plain_name(key) else name or None
                raise RequestError(f"unknown field {shown(start + key)}: {advice}", param, "unknown_field")
        found = {}
        for key, field in known.items():
            path, item = start + key, value.get(key)
            if item is not None:
                found[key] = field.kind.read(path, item)
            elif field.required:
                raise RequestError(f"{path} is missing: {field.about}", path, "missing_required_parameter")
        return found

    def schema(self) -> Schema:
        """Returns the JSON schema of the object."""
        required = [field.name for field in self.fields if field.required]
        return {
            "type": "object",
            "properties": {field.name: field.schema() for field in self.fields},
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
