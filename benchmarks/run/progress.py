"""How far a run is, on stderr: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Meter:
    """A bar of the work done, the name of what is measured, and the time left.

    It draws only when it is told something, between measurements: a thread that draws meanwhile would be measured too.
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
        self._total = 0.0

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line of talk."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def expect(self, work: float) -> None:
        """Add to the work that is ahead, in any unit."""
        self._total += work
        self._bar.update(self._task, total=self._total, refresh=True)

    def begin(self, name: str) -> None:
        """Name the group that is measured from here on."""
        if not self._console.is_terminal:
            self.say(f"measuring {name}")
        self._bar.update(self._task, description=name, refresh=True)

    def advance(self, work: float, name: str | None = None) -> None:
        """Some of the work is done; `name` is the case it was done on."""
        self._bar.update(self._task, advance=work, description=name, refresh=True)
