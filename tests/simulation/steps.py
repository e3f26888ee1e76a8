"""The steps of a batch at which something can be made to happen to the worker: exactly there, not somewhere near."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

Spring = Callable[[str], None]
"""Called with the name of the worker that got there."""


class Step(StrEnum):
    """Where a batch is, in the order in which it gets there."""

    CLAIMING = "its claim is on its way"
    CLAIMED = "its claim stands, and it does not know yet"
    SENDING = "its call is on its way"
    EXECUTED = "its call was executed, and it does not know yet"
    RECORDING = "its record is on its way"
    RECORDED = "its record is there, and it does not know yet"


class Snares:
    """Each catches the first worker that reaches its step, or the first that is not alone at an order
    (``contested``)."""

    def __init__(self) -> None:
        self._laid: dict[Step, tuple[Spring, bool]] = {}
        self.contested: set[str] = set()
        """Workers whose claim met one of another worker, until their record."""

    def lay(self, step: Step, spring: Spring, *, contested: bool) -> None:
        """Whoever gets there next is caught."""
        self._laid[step] = spring, contested

    def clear(self) -> None:
        """All is well."""
        self._laid.clear()

    async def reach(self, step: Step, worker: str) -> None:
        """A worker is there. If it is caught, it gets no further than this before it feels that."""
        if step in self._laid:
            spring, contested = self._laid[step]
            if contested and worker not in self.contested:
                return
            del self._laid[step]
            spring(worker)
            await asyncio.sleep(0.001)
