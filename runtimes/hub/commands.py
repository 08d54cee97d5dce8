"""The commands for bundles here and on a hub: `slmx pull`, `push`, `list` and `rm`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtimes.bundle.location import BUNDLE_HELP, find_bundle
from runtimes.bundle.manifest import HELD_OUT
from slm.console.errors import UsageError, needs
from slm.console.notice import log_line
from slm.console.plain_text import as_plain_text
from slm.console.word_wrap import folded, terminal_columns
from slm.provenance import BEFORE

if TYPE_CHECKING:
    from runtimes.hub.inventory import Entry

HUB_NAME_HELP = "Repository on the Hugging Face hub: OWNER/NAME"
# Columns of `slmx list`: the most of the variants, and the least that the source gets on a terminal.
LONGEST_VARIANTS, LEAST_SOURCE = 15, 20


def pull(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help=f"{HUB_NAME_HELP}.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the bundle.", show_default="where every command finds its name")
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Take this archive of the repository, such as nano.slmx of slmx pack.")
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Refuse a bundle that is not signed with this public key; see slmx sign."),
    ] = None,
) -> None:
    """Bring a bundle from the Hugging Face hub.

    Only the files that its manifest lists come, and each is checked. docs/hub.md explains more.
    """
    with needs("hub"):
        from runtimes.hub.pull import PullSettings, pull_bundle

    folder = pull_bundle(PullSettings(name, out, file, require_signature), log_line)
    typer.echo(str(folder))
    log_line(f"now: slmx generate --bundle {shlex.quote(str(out or name.partition('@')[0]))}")


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP)],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help=f"{HUB_NAME_HELP}; made if it is missing.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; a missing one is made.", show_default="main")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is in the repository even if it is no bundle.")
    ] = False,
) -> None:
    """Send a bundle to the Hugging Face hub.

    The branch then holds exactly its files, and its model card is the page.
    """
    from runtimes.hub.push import PushSettings, push_bundle

    address = push_bundle(PushSettings(find_bundle(bundle), name, revision, private, force), log_line)
    typer.echo(address)
    log_line(f"now: slmx pull {name}{'' if revision is None else f'@{revision}'}")


def list_bundles(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """List the bundles that are here.

    These are the shipped ones, those in bundles/ of this folder, and the pulled ones.
    """
    from runtimes.hub.inventory import list_bundles as find

    entries = find()
    if as_json:
        values = [asdict(entry) | {"origin": entry.origin.value, "path": str(entry.path)} for entry in entries]
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False))
        return
    rows = [("name", "origin", "MB", "date", "variants", "source"), *map(_row, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    before_source = sum(widths) + 2 * len(widths)
    indent = before_source if before_source + LEAST_SOURCE <= terminal_columns() else 2
    for row in rows:
        name, origin, megabytes, date, variants = (row[column].ljust(widths[column]) for column in range(5))
        line = "  ".join((name, origin, megabytes.strip().rjust(widths[2]), date, variants, row[5])).rstrip()
        typer.echo(folded(line, indent))


def _row(entry: Entry) -> tuple[str, str, str, str, str, str]:
    return (
        as_plain_text(entry.name),
        entry.origin.value,
        f"{entry.bytes / 1e6:,.1f}",
        (entry.date or "")[:10],
        _variants(entry.variants),
        as_plain_text(f"damaged: {entry.problem}" if entry.problem else _first(entry.source or "")),
    )


def _variants(names: Sequence[str]) -> str:
    """Returns the names of a few variants, or else the first, which is the default, and how many more there are."""
    names_of_all = ",".join(names)
    return names_of_all if len(names_of_all) <= LONGEST_VARIANTS else f"{names[0]} and {len(names) - 1} more"


def _first(source: str) -> str:
    """Returns the first of the sources that a text lists, and how many more there are to learn from.

    Those of the trainings before are left out.
    """
    own, before, _ = source.partition(BEFORE)
    first, *more = [one for one in own.split(", ") if not one.endswith(HELD_OUT)] or [own]
    listed = f"{first} and {len(more)} more" if more else first
    return f"{listed} (fine-tuned)" if before else listed


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that slmx list shows, or its path.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a pulled bundle, or one in bundles/ of this folder.

    Every file in it must be as slmx wrote it.
    """
    from runtimes.hub.inventory import find_entry, remove_bundle

    entry = find_entry(name)
    question = f"remove {entry.path} ({entry.origin.value}, {entry.bytes / 1e6:,.1f} MB)?"
    if not yes:
        if not sys.stdin or not sys.stdin.isatty():
            raise UsageError(f"{question} add --yes")
        if not typer.confirm(question, err=True):
            raise typer.Exit(1)
    remove_bundle(entry)
    log_line(f"removed {entry.path}")
