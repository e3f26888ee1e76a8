"""What the pipeline and the tools need from the world, named by role. Adapters implement these; tests have fakes that
pass the same contract. What is asked of the journal is in ``journalports.py``."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from worker.core.deadletter import DeadLetter
from worker.core.entry import Batch
from worker.core.history import IndexedLetter
from worker.core.model import Delivery, Properties, Scalar, Settlement
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


class Sink(Protocol):
    """Where the intake puts what the broker hands over. Both methods are synchronous, quick, and never raise."""

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """These arrived together, all on one channel, in this order."""
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


Index = Callable[[Sequence[IndexedLetter]], Awaitable[None]]
"""Puts letters into the index, however long that takes."""


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


class Tracer(Protocol):
    """Tells others how a batch went. Asked once per batch; there is none where tracing is off."""

    def batch(self, batch: Batch) -> AbstractContextManager[object]:
        """Entered when the batch leaves, left when it is settled; calls and settlements inside belong to it."""
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
