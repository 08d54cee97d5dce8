"""Takes the picture of README.md: python -m benchmarks.documents.terminal_picture --out docs/terminal.

It runs `slmx generate` on a terminal of 76 columns, and draws what the terminal shows as SVG, light and dark.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

from benchmarks.program import run
from slm.storage.disk import write_file

COLUMNS = 76
COMMAND = ("generate", "Once upon a time", "--seed", "58")
SHOWN = '$ slmx generate "Once upon a time" --seed 58'
THEMES: dict[str, TerminalTheme] = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}
# rich's own form loads a font from another host. This one takes the reader's.
FORM = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, monospace; font-size: {char_height}px; line-height: {line_height}px }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def on_a_terminal(arguments: tuple[str, ...]) -> str:
    """Returns what `slmx` writes to a terminal, with its escape sequences. It needs a POSIX system."""
    import pty

    written: list[bytes] = []

    def read(descriptor: int) -> bytes:
        written.append(os.read(descriptor, 1 << 16))
        return written[-1]

    os.environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    silent = os.open(os.devnull, os.O_WRONLY)
    shown = os.dup(1)
    os.dup2(silent, 1)
    try:
        status = pty.spawn([sys.executable, "-m", "slm", *arguments], read)
    finally:
        os.dup2(shown, 1)
    assert status == 0, status
    return b"".join(written).decode("utf-8").replace("\r\n", "\n")


def main(out: Annotated[Path, typer.Option(help="The beginning of the names of both files.")]) -> None:
    """Write the picture in two themes."""
    shown = Text.from_ansi(f"{SHOWN}\n{on_a_terminal(COMMAND)}")
    for name, theme in THEMES.items():
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(shown)
        svg = console.export_svg(title="slmx", theme=theme, code_format=FORM, unique_id="slmx")
        write_file(out.with_name(f"{out.name}-{name}.svg"), svg.encode())


if __name__ == "__main__":
    run(main)
