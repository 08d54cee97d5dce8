"""Shows the progress of an evaluation on stderr."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.progress import Progress

from benchmarks.evaluation.reading import Advance
from slm.console.counted import duration
from slm.console.notice import Log, print_notice

LINE_SECONDS = 30.0  # between two lines of progress in a log


class Bars:
    """Progress on stderr: a bar on a terminal; in a log, a line for each part and one each half minute."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(console=self._console, transient=True, disable=not self._console.is_terminal)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """Shows a line."""
        print_notice(self._console, line)

    def begin(self, name: str, steps: int) -> Advance:
        """Shows a part of the work; returns what counts its steps."""
        if not self._console.is_terminal:
            print_notice(self._console, name)
            return in_lines(name, steps, self.say)
        task = self._bars.add_task(name, total=steps)
        return lambda count: self._bars.advance(task, count)


def in_lines(name: str, steps: int, say: Log) -> Advance:
    """Returns what counts the steps of a part, and says each half minute how far it is and how long the rest takes."""
    done, began = 0, monotonic()
    last = began

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = monotonic()
        if now - last >= LINE_SECONDS and done < steps:
            last = now
            left = (now - began) * (steps - done) / done
            say(f"{name}: {done / steps:.0%}, about {duration(left)} left")

    return advance
