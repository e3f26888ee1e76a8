"""A dead-letter queue in memory, and effects that fail on demand: at the n-th of them, before it happened or after."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from worker.core.deadletter import DeadLetter

T = TypeVar("T")


class Broke(Exception):
    """What a test made happen: the process died here, as far as what follows is concerned."""


class Effects:
    """Counts what is done to the world; the one numbered ``breaks_at`` (from 0) fails, and everything after it.

    Each effect counts twice: before it happens and after it did.
    """

    def __init__(self, breaks_at: int | None = None) -> None:
        self.count = 0
        self._breaks_at = breaks_at

    def step(self) -> None:
        """One more point at which it may break."""
        self.count += 1
        if self._breaks_at is not None and self.count > self._breaks_at:
            raise Broke

    async def of(self, effect: Callable[[], Awaitable[T]]) -> T:
        """The effect between two such points."""
        self.step()
        result = await effect()
        self.step()
        return result


class FakeTaking:
    """Implements ``ports.Taking``."""

    def __init__(self, queue: "FakeQueue") -> None:
        self._queue = queue
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether all of the queue was handed out."""
        return self._ended and not self._queue.others

    async def windows(self, most: int) -> AsyncIterator[Sequence[DeadLetter]]:
        """What is in the queue now."""
        there = list(self._queue.letters)
        for start in range(0, len(there), most):
            self._queue.effects.step()
            yield there[start : start + most]
        self._ended = True

    async def remove(self, letters: Sequence[DeadLetter]) -> None:
        """One by one: any number of them may be gone when the connection breaks."""
        for letter in letters:
            self._queue.effects.step()
            self._queue.letters.remove(letter)
        self._queue.effects.step()


class FakeQueue:
    """Implements ``ports.DeadLetters``. ``others`` hold some of it."""

    def __init__(self, letters: Iterable[DeadLetter] = (), *, others: bool = False) -> None:
        self.letters = list(letters)
        self.others = others
        self.effects = Effects()
        self.holders: list[str] = []

    @asynccontextmanager
    async def taking(self, holder: str) -> AsyncIterator[FakeTaking]:
        """Never held by anybody else."""
        self.holders.append(holder)
        yield FakeTaking(self)
