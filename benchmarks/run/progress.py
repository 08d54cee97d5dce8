"""Shows the progress of a run on stderr: a bar in a terminal, or else plain lines."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from slm.console.notice import print_notice


class Meter:
    """A bar with the work done, the name of the current measurement, and the time left. Not thread-safe.

    It draws only when one of its methods is called, between measurements. A thread that draws in the background would
    disturb them.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._total = self._done = 0.0

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def log(self, line: str) -> None:
        """Prints a line."""
        print_notice(self._console, line)

    def expect(self, work: float) -> None:
        """Adds to the work to be done, in any unit."""
        self._total += work
        self._bar.update(self._task, total=self._total, refresh=True)

    def begin(self, name: str) -> None:
        """Shows the name of the group that is measured from now on."""
        if not self._console.is_terminal:
            self.log(f"measuring {name}")
        self._bar.update(self._task, description=name, refresh=True)

    def advance(self, work: float, name: str | None = None) -> None:
        """Adds to the work done; `name` is the case that was measured. Plain lines tell every tenth of the work."""
        before, self._done = self._done, self._done + work
        if not self._console.is_terminal and self._total:
            tenth = int(10 * self._done / self._total)
            if int(10 * before / self._total) < tenth < 10:
                self.log(f"{tenth}0% measured")
        self._bar.update(self._task, advance=work, description=name, refresh=True)
