"""Why a scheduler takes no stories."""

from __future__ import annotations

from slm.console.counted import count_stories
from slm.console.errors import SlmxError


class QueueFullError(SlmxError):
    """Too many stories wait. `retry_after` is the number of seconds after which there may be room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"the queue has no room ({count_stories(waiting)} waiting): try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class StoppingError(SlmxError):
    """The server is stopping and takes no more stories."""

    def __init__(self) -> None:
        super().__init__("the server is stopping: try again later, or ask another server")
