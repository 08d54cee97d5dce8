"""Stories that wait, by client. The client with the fewest running stories is next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from runtimes.serve.scheduler.job import Item


class FairQueue:
    """Items of several clients in the order in which they run. Not thread-safe.

    The next item is the first one of the client with the fewest running items. Of several such clients, the one that
    has waited longest since its last turn is next.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Item]] = {}  # clients without items are not in it
        self._running: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        """Returns the number of items that wait."""
        return self._count

    def add(self, items: Iterable[Item]) -> None:
        """Adds items at the end of their clients' items."""
        for item in items:
            self._waiting.setdefault(item.client, deque()).append(item)
            self._count += 1

    def take(self) -> Item | None:
        """Takes the next item, which then counts as running; None if no item waits."""
        if not self._waiting:
            return None
        client = min(self._waiting, key=self._running.__getitem__)
        items = self._waiting.pop(client)
        item = items.popleft()
        if items:
            self._waiting[client] = items  # at the end of the clients
        self._running[client] += 1
        self._count -= 1
        return item

    def running(self, client: str) -> int:
        """Returns the number of running items of a client."""
        return self._running[client]

    def fewest(self) -> int | None:
        """Returns the number of running items of the client that is next; None if no item waits."""
        return min((self._running[client] for client in self._waiting), default=None)

    def put_back(self, item: Item) -> None:
        """Lets a running item wait before the others of its client, which is then the last of its equals."""
        self.ended(item)
        self._waiting[item.client] = deque([item, *self._waiting.pop(item.client, ())])
        self._count += 1

    def ended(self, item: Item) -> None:
        """Tells that a running item has ended."""
        self._running[item.client] -= 1
        if not self._running[item.client]:
            del self._running[item.client]

    def remove(self, client: str, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Takes out the waiting items of a client that a function chooses, and returns them."""
        items = self._waiting.pop(client, deque())
        found = [item for item in items if unwanted(item)]
        if rest := deque(item for item in items if not unwanted(item)):
            self._waiting[client] = rest
        self._count -= len(found)
        return found
