"""What the pipeline needs from the world, named by role. Adapters implement these; tests have fakes that pass the
same contract."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from worker.core.deadletter import DeadLetter
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
from worker.core.journal import BatchRecord, Claim, OrderRow, Values
from worker.core.model import Delivery, Properties, Scalar, Settlement, Version
from worker.core.readiness import Readiness
from worker.core.report import CallReport
from worker.core.vitals import Health


class Platform(Protocol):
    """The platform's ``updateOrders`` mutation."""

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        """Send one mutation and report what came back; never raises for anything the platform or the network does.

        ``orders`` may be empty: the control call, which changes nothing. Takes at most the call timeout.
        Cancelling it leaves the outcome unknown.
        """
        ...


class TokenSource(Protocol):
    """OAuth access tokens, cached and refreshed one flight at a time."""

    async def token(self) -> str:
        """A token that is valid now. Raises TokenRefused or TokenUnavailable."""
        ...

    def invalidate(self, token: str) -> None:
        """The platform refused this token: the next ``token()`` fetches a new one, if this one is still the cached
        one."""
        ...


class Journal(Protocol):
    """Memory of what was applied. One read and one write per batch, never one per message.

    Every method raises JournalUnavailable where the journal does not answer within its deadline; cancelling one leaves
    open whether it happened.
    """

    async def read(self, order_ids: Sequence[int]) -> Mapping[int, Mapping[str, Version]]:
        """The applied version of each field of these orders; orders never seen are absent."""
        ...

    async def write(self, applied: Mapping[int, Mapping[str, tuple[Version, Scalar]]]) -> None:
        """Record what the platform confirmed. A lower version than the recorded one changes nothing.

        Returning means it is as durable as this journal can make it: only then may deliveries be acknowledged.
        """
        ...


class Ledger(Journal, Protocol):
    """A journal that several workers share: it knows who is at each order. One claim and one record per batch.

    ``core/journal.py`` has the rules. Errors as ``Journal``.
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

        Returning means it is as durable as this journal can make it. Repeating it changes no version, but history rows
        are then there twice.
        """
        ...

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """At most ``limit`` orders whose echo is due, or whose claim ran out long ago; the longest due first."""
        ...


class Archive(Protocol):
    """What the journal keeps for people, and for how long. Errors as ``Journal``."""

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
    """Pauses that hold for all workers of a queue. Errors as ``Journal``."""

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
    """The index of dead letters: listing and planning read it, not the queue. Errors as ``Journal``."""

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


Index = Callable[[Sequence[IndexedLetter]], Awaitable[None]]
"""Puts letters into the index, however long that takes."""


class Replays(Protocol):
    """Replays, each with its frozen plan. Errors as ``Journal``."""

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
    """Who holds the lock of a dead-letter queue, for people. The lock itself is the broker's. Errors as ``Journal``."""

    async def hold(self, queue: str, holder: Holder) -> None:
        """This one has it now."""
        ...

    async def holder(self, queue: str) -> Holder | None:
        """Who had it last."""
        ...


class WorkerJournal(Ledger, Archive, Pauses, LetterIndex, Protocol):
    """What a worker needs of its journal: everything but the replays, which are the tools'."""


class Sink(Protocol):
    """Where the intake puts what the broker hands over. Both methods are synchronous, quick, and never raise."""

    def deliver(self, delivery: Delivery) -> None:
        """A delivery arrived."""
        ...

    def lost(self, generation: int) -> None:
        """The channel of this generation is gone: the broker hands its unsettled deliveries over again."""
        ...


class Intake(Protocol):
    """The consuming side of the broker connection."""

    async def open(self, sink: Sink) -> None:
        """Start consuming into ``sink`` and keep doing so through reconnects. Opening twice is harmless."""
        ...

    async def cancel(self) -> None:
        """Stop the broker from handing over more; unsettled deliveries stay ours and can still be settled."""
        ...

    async def release(self) -> None:
        """Cancel and close the channel: everything unsettled goes back to the broker. ``open`` starts again."""
        ...


class Settler(Protocol):
    """Carries out dispositions, each delivery once."""

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        """Publish and confirm the copies, then acknowledge, older before newer in the order given.

        Dead letters are given to ``index`` in between, all at once: what is acknowledged is in the index, and a crash
        leaves at worst a copy that is not, whose message comes again. Without Dead among them it is not called.

        Deliveries of a generation that is gone are skipped (no copy, no ack: they come again).
        Raises CopyFailed when a copy could not be placed; then none of the deliveries behind it were acknowledged.
        """
        ...


class Taking(Protocol):
    """Dead letters held by us: each one that is not removed goes back to its place when the taking ends."""

    def windows(self, most: int) -> AsyncIterator[Sequence[DeadLetter]]:
        """All that were in the queue when the taking began, oldest first, at most ``most`` at a time.

        Ends early where others hold the rest. The bodies of a window are free when the next one is asked for.
        Raises ConnectionLost; then everything is back in the queue.
        """
        ...

    async def remove(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledge some of those handed out. Raises ConnectionLost: then they may come again."""
        ...

    @property
    def complete(self) -> bool:
        """The windows ended, and nobody else had any: what was not among them is not in the queue."""
        ...


class DeadLetters(Protocol):
    """A dead-letter queue. It is taken by one person or tool at a time, under a lock of the broker."""

    def taking(self, holder: str) -> AbstractAsyncContextManager[Taking]:
        """Take the lock and hold what is handed out until the end. ``holder`` says who we are.

        Raises QueueHeld (somebody has the lock), QueueMissing, QueueWorn (the delivery limit is near), ConnectionLost.
        """
        ...


class Outlet(Protocol):
    """Where producers' events go. One publication uses it, with a bounded number of publishes at a time."""

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> None:
        """Returns when the broker has the message. A message id must not be in flight twice.

        Raises CopyReturned where no queue is bound, CopyFailed where it is not known to be stored (it may be). Bounded
        in time; cancelling it leaves the outcome unknown.
        """
        ...

    async def close(self) -> None:
        """Forget the channel with everything in flight on it; the next ``publish`` opens another. May be repeated."""
        ...


class Operations(Protocol):
    """What people and orchestrators ask of a running worker. May be called at any time, before it consumes as well."""

    def health(self) -> Health:
        """Of the process, and of its connections."""
        ...

    def readiness(self) -> Readiness:
        """Whether it does its work now, or why not."""
        ...

    async def state(self) -> Mapping[str, object]:
        """Everything worth a look, as JSON can hold it. No payloads, no secrets. Takes a second at most."""
        ...

    async def pause(self, detail: str) -> None:
        """Hand everything back and consume nothing until ``resume``; ``detail`` says who or why. Twice is harmless."""
        ...

    async def resume(self) -> bool:
        """End a pause by hand or after a storm; False if there was none to end."""
        ...


class Exposition(Protocol):
    """The metrics as text."""

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """Text and content type, in the best format that an ``Accept`` header allows. Called for every scrape; takes a
        second at most, and never raises because something is away: what is not known is left out."""
        ...


WallClock = Callable[[], int]
"""Microseconds since 1970."""


def wall_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


Clock = Callable[[], float]
