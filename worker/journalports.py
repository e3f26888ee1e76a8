"""What workers and tools need from the journal, by what it is asked about: orders, history, pauses, letters, replays.

Every journal implements all of them; each use names what it needs, so that fakes can be as small. What is asked of the
rest of the world is in ``ports.py``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from worker.core.audit import Deed
from worker.core.history import (
    Fate,
    GroupBy,
    HistoryRow,
    Holder,
    IndexedLetter,
    ItemState,
    LetterState,
    Pause,
    Replay,
    ReplayItem,
    Sought,
    Tally,
)
from worker.core.journal import BatchRecord, Claim, OrderRow
from worker.core.values import Values


class Ledger(Protocol):
    """Memory of what was applied, which several workers share: it knows who is at each order. One claim and one record
    per batch, never one per message.

    ``core/journal.py`` has the rules. Every method raises JournalUnavailable where the journal does not answer within
    its deadline; cancelling one leaves open whether it happened.
    """

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """Before a call: claim these orders for this worker, all at once, and read what is known of each.

        Every order is in the answer, those never seen too. Repeating it is harmless, but finds its own claim standing.
        """
        ...

    async def known(self, order_ids: Sequence[int]) -> Mapping[int, Values]:
        """The applied values of these orders, claiming nothing; orders never seen are absent."""
        ...

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """After a call: everything that came of the batch, all or nothing. Returns the contested orders: somebody else
        claimed them meanwhile, and that claim, if it still stands.

        A lower version than the applied one changes nothing. Returning means it is as durable as this journal can make
        it: only then may deliveries be acknowledged. Repeating it changes no version, but history rows are then there
        twice.
        """
        ...

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """At most ``limit`` orders whose echo is due, or whose claim ran out long ago; the longest due first."""
        ...


class Archive(Protocol):
    """What the journal keeps for people, and for how long. Errors as ``Ledger``."""

    async def history(self, order_id: int, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, HistoryRow]]:
        """What happened to an order, in the order it was recorded: rows with a number above ``after``."""
        ...

    async def prune(self, before_us: int, *, limit: int = 1000) -> int:
        """Forget what is older, at most ``limit`` rows of each table; returns how many, 0 when nothing is left to do.

        An order stays while a dead letter of it is in the queue, a claim stands or an echo is owed.
        """
        ...

    async def horizon_us(self) -> int:
        """An update of an order without a row that is older than this cannot be judged: what it lost against may have
        been forgotten. The smallest 64-bit integer while nothing was."""
        ...


class Pauses(Protocol):
    """Pauses that hold for all workers of a queue. Errors as ``Ledger``."""

    async def pause(self, pause: Pause) -> None:
        """Put it down; the first one of its kind stays."""
        ...

    async def resume(self, queue: str) -> bool:
        """End all pauses of the queue; False if there was none."""
        ...

    async def pauses(self, queue: str) -> Sequence[Pause]:
        """The pauses of the queue, the oldest first."""
        ...


class LetterIndex(Protocol):
    """The index of dead letters: listing and planning read it, not the queue. Errors as ``Ledger``."""

    async def add(self, letters: Sequence[IndexedLetter]) -> None:
        """Put letters in; those whose copy is there already are left as they are."""
        ...

    async def page(self, sought: Sought, *, after: int = 0, limit: int = 1000) -> Sequence[IndexedLetter]:
        """The next letters behind the one whose ``seq`` is ``after``; fewer than ``limit`` means that was all."""
        ...

    async def tallies(self, sought: Sought, by: GroupBy, *, limit: int = 100) -> Sequence[Tally]:
        """Counts by reason, order or day, the most frequent first."""
        ...

    async def mark(self, copy_ids: Sequence[str], state: LetterState, *, wall_us: int) -> int:
        """Say where these letters (at most 1,000) are now; returns how many were somewhere else."""
        ...

    async def seen(self, copy_ids: Sequence[str], *, wall_us: int) -> int:
        """These letters (at most 1,000) are in the queue, whatever the index said; returns how many it knows."""
        ...

    async def forget_unseen(self, queue: str, since_us: int, *, margin_us: int = 0, wall_us: int) -> int:
        """Mark as removed what was not ``seen`` since that time, and failed more than the margin before it; returns how
        many letters."""
        ...


class Replays(Protocol):
    """Replays, each with its frozen plan. Errors as ``Ledger``."""

    async def begin(self, replay: Replay) -> None:
        """Put a replay down; its id must be new."""
        ...

    async def plan(self, replay_id: str, items: Sequence[ReplayItem]) -> None:
        """Add messages to its plan, or say what became of them: an item with a known place replaces the one there."""
        ...

    async def items(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[ReplayItem]:
        """The plan behind the place ``after``; fewer than ``limit`` means that was all."""
        ...

    async def find(self, replay_id: str, copy_ids: Sequence[str]) -> Mapping[str, ReplayItem]:
        """Which of these messages (at most 1,000) are in its plan, by the id of the copy."""
        ...

    async def states(self, replay_id: str) -> Mapping[ItemState, int]:
        """How many of its messages are in which state; states of none are absent."""
        ...

    async def outcomes(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Mapping[int, HistoryRow]:
        """The latest history row of each message that has one, by its place: the next places behind ``after``."""
        ...

    async def fates(self, replay_id: str) -> Mapping[Fate, int]:
        """How many of its messages met which fate last."""
        ...

    async def replays(self, queue: str, *, limit: int = 100) -> Sequence[Replay]:
        """The replays of a queue, the latest first."""
        ...

    async def replay(self, replay_id: str) -> Replay | None:
        """The replay, None if there is none of that id."""
        ...

    async def turn(self, replay_id: str, state: str, *, wall_us: int) -> None:
        """The replay is in this state now."""
        ...


class Holders(Protocol):
    """Who holds the lock of a dead-letter queue, for people. The lock itself is the broker's. Errors as ``Ledger``."""

    async def hold(self, queue: str, holder: Holder) -> None:
        """This one has it now."""
        ...

    async def holder(self, queue: str) -> Holder | None:
        """Who had it last."""
        ...


class AuditTrail(Protocol):
    """What people did. Errors as ``Ledger``."""

    async def note(self, deed: Deed) -> None:
        """Put it down."""
        ...

    async def deeds(self, *, before: int | None = None, limit: int = 100) -> Sequence[Deed]:
        """The latest first; with ``before``, those whose number is lower."""
        ...


class WorkerJournal(Ledger, Archive, Pauses, LetterIndex, Protocol):
    """What a worker needs of its journal: everything but the replays, which are the tools'."""
