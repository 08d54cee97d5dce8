"""Shows the stages of a long command: a line each, and on a terminal that it is still working and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from slm.console.notice import Log, log_line, print_notice


@contextmanager
def stages() -> Iterator[Log]:
    """Yields a function that prints the line of a stage on stderr. On a terminal, a clock runs until the next one."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield log_line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:

        def begin(line: str) -> None:
            print_notice(console, line)
            for task in progress.task_ids:
                progress.remove_task(task)
            progress.add_task(line.partition(":")[0], total=None)

        yield begin
