"""Pages from templates."""

from __future__ import annotations

from pathlib import Path


def filled(template: Path, **values: object) -> str:
    """Returns the page of a Jinja template. Texts are escaped, and a name without a value is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text("utf-8")).render(values)
