"""Stop strings in a stream of text."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text through until a stop string is complete. It holds back text that may become a stop string.

    The stop string that is complete first counts. If several end at the same character, the longest counts. The
    result does not depend on where the text is cut into pieces. `hit` is the stop string that was found, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.hit: str | None = None

    def push(self, piece: str) -> str:
        """Takes the next piece of text and returns the text that may pass. It must not be called after a hit."""
        held = self._held + piece
        found = [(held.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in held]
        if found:
            end, _, self.hit = min(found)
            self._held = ""
            return held[: end - len(self.hit)]
        keep = max((self._overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """Returns the text that is held back. Call it when no more text comes."""
        rest, self._held = self._held, ""
        return rest

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Returns the length of the longest end of the text that is a beginning of the stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
