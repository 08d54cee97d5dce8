"""Stop strings in a stream of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from slm.errors import SlmxError


class StopStrings:
    """Passes text through until a stop string is complete; what may become one is held back until it cannot.

    The string that is complete first counts; of several that end at the same character, the longest. Where the text
    is cut into pieces makes no difference. SlmxError for an empty stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise SlmxError("a stop string must not be empty")
        self._stops = stops
        self._held = ""
        self.hit: str | None = None

    def __call__(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces up to the first stop string, which is not among them; `hit` says which it was."""
        for piece in pieces:
            if passed := self.push(piece):
                yield passed
            if self.hit is not None:
                return
        if rest := self.rest():
            yield rest

    def push(self, piece: str) -> str:
        """What may pass when this piece has come; nothing after a hit."""
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
        """What was held back, when no more comes."""
        rest, self._held = self._held, ""
        return rest

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of the text that is a beginning of the stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
