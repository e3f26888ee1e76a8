"""Batches that go out as they are, before all others: what is sent again, and control calls."""

import math
from collections import deque
from collections.abc import Callable, Collection

from worker.core.entry import Batch, Entry


class Urgent:
    """In the order in which they came, each not before a time of its own (monotonic seconds).

    One that has an order among ``held`` has to wait, and others may go before it.
    """

    def __init__(self, held: Collection[int]) -> None:
        self._held = held
        self._waiting: deque[tuple[float, Batch]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, batch: Batch, not_before: float) -> None:
        """Behind the others."""
        self._waiting.append((not_before, batch))

    def add_first(self, batch: Batch) -> None:
        """Before the others, and at once."""
        self._waiting.appendleft((0.0, batch))

    def due(self, now: float) -> Batch | None:
        """The one that may leave now."""
        place = self._place(now)
        return None if place is None else self._waiting[place][1]

    def pop(self, now: float = math.inf) -> Batch | None:
        """Take it out; without a time, whatever it waits for."""
        place = self._place(now)
        if place is None:
            return None
        _, batch = self._waiting[place]
        del self._waiting[place]
        return batch

    def _place(self, now: float) -> int | None:
        due = (at for at, (not_before, batch) in enumerate(self._waiting) if not_before <= now and self._is_free(batch))
        return next(due, None)

    def next_time(self) -> float | None:
        """When one may leave, if nothing else happens."""
        return min((not_before for not_before, batch in self._waiting if self._is_free(batch)), default=None)

    def drop_dead(self, alive: Callable[[Entry], bool]) -> list[Entry]:
        """Take out the batches of which no entry is alive, and return their entries. Control calls stay."""
        dead = [each for each in self._waiting if each[1].entries and not any(map(alive, each[1].everything))]
        for each in dead:
            self._waiting.remove(each)
        return [entry for _, batch in dead for entry in batch.everything]

    def _is_free(self, batch: Batch) -> bool:
        return not self._held or all(entry.order_id not in self._held for entry in batch.everything)
