"""What the pipeline needs from the world, named by role. Adapters implement these; tests have fakes that pass the
same contract."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from worker.core.model import Delivery, Properties, Scalar, Settlement, Version
from worker.core.readiness import Readiness
from worker.core.report import CallReport


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
    """Memory of what was applied. One read and one write per batch, never one per message."""

    async def read(self, order_ids: Sequence[int]) -> Mapping[int, Mapping[str, Version]]:
        """The applied version of each field of these orders; orders never seen are absent."""
        ...

    async def write(self, applied: Mapping[int, Mapping[str, tuple[Version, Scalar]]]) -> None:
        """Record what the platform confirmed. A lower version than the recorded one changes nothing.

        Returning means it is as durable as this journal can make it: only then may deliveries be acknowledged.
        """
        ...


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

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Publish and confirm the copies, then acknowledge, older before newer in the order given.

        Deliveries of a generation that is gone are skipped (no copy, no ack: they come again).
        Raises CopyFailed when a copy could not be placed; then none of the deliveries behind it were acknowledged.
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

    def alive(self) -> bool:
        """False where only a new process will do."""
        ...

    def readiness(self) -> Readiness:
        """Whether it does its work now, or why not."""
        ...

    def state(self) -> Mapping[str, object]:
        """Everything worth a look, as JSON can hold it. No payloads, no secrets."""
        ...

    async def pause(self, detail: str) -> None:
        """Hand everything back and consume nothing until ``resume``; ``detail`` says who or why. Twice is harmless."""
        ...

    async def resume(self) -> bool:
        """End a pause by hand or after a storm; False if there was none to end."""
        ...


Clock = Callable[[], float]
