"""What a way to a database must do: carry out transactions, each to its end."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Dialect

T = TypeVar("T")
Work = Callable[[Connection], T]


class Kind(Enum):
    """What a transaction needs."""

    WHOLE = auto()
    """All or nothing."""
    BRIEF = auto()
    """All or nothing, and it takes a few milliseconds at most, which the event loop can bear."""
    SINGLE = auto()
    """It is one statement."""


class CommitFailed(Exception):
    """``error`` came while the transaction was ending: it may have happened."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Way(Protocol):
    """Carries out transactions. ``stops``: cancelling one ends it, instead of leaving it alone to its end."""

    dialect: Dialect
    stops: bool

    async def once(self, work: Work[T], kind: Kind) -> T:
        """One transaction. Raises what the driver raises, or CommitFailed from it."""
        ...

    async def close(self) -> None:
        """Close the connections; nothing is under way any more."""
        ...
