"""What stands in for the world in a dry run, so that the real pipeline can decide and nothing comes of it.

The platform accepts everything, and hears of nothing; the settler acknowledges copies, and places none; the books count
what would have happened. Everything between them is the worker's own code: what is told is what would be done.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from worker.core.model import Ack, AckReason, Dead, Delivery, Release, Retry, Scalar, Settlement
from worker.core.report import CallReport, Reply
from worker.interposing import InterposedIntake
from worker.ports import Index, Intake, Sink

log = structlog.get_logger(__name__)

Orders = Sequence[Mapping[str, Scalar]]
Show = Callable[[Orders], None]
"""Is given the orders of each call, values and all."""
Acknowledge = Callable[[Sequence[Delivery]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Books:
    """What would have happened. ``dead`` and ``retries`` count by reason."""

    read: int = 0
    calls: int = 0
    orders_sent: int = 0
    acked: Counter[AckReason] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)

    @property
    def decided(self) -> int:
        """Of how many events it is known what would become of them."""
        return self.acked.total() + self.dead.total() + self.retries.total()

    def note(self, settlement: Settlement) -> None:
        """Count one decision."""
        match settlement.disposition:
            case Ack(reason=reason):
                self.acked[reason] += 1
            case Dead(reason=why):
                self.dead[why.value] += 1
            case Retry(reason=why):
                self.retries[why.value] += 1
            case Release():
                pass

    def as_json(self) -> dict[str, object]:
        """Plain values, for programs."""
        return {
            "read": self.read,
            "calls": self.calls,
            "orders_sent": self.orders_sent,
            **{reason.value: self.acked[reason] for reason in AckReason},
            "dead": dict(self.dead),
            "retried": dict(self.retries),
        }


class PretendedPlatform:
    """Implements ``ports.Platform``: tells the call, sends nothing, and answers as if all had been done."""

    def __init__(self, books: Books, show: Show | None = None) -> None:
        self._books = books
        self._show = show

    async def update_orders(self, orders: Orders, *, token: str) -> CallReport:
        """Ids and names of fields are logged; the values only go to ``show``."""
        if orders:
            self._books.calls += 1
            self._books.orders_sent += len(orders)
            sends = {str(order["id"]): [name for name in order if name != "id"] for order in orders}
            log.info("dryrun.call", orders=len(orders), sends=sends)
            if self._show is not None:
                self._show(orders)
        return Reply(status=200, payload={"data": {"core": {"updateOrders": [dict(order) for order in orders]}}})


class NoTokens:
    """Implements ``ports.TokenSource`` without asking anybody."""

    async def token(self) -> str:
        """No token."""
        return ""

    def invalidate(self, token: str) -> None:
        """Nothing to forget."""


class RehearsedSettler:
    """Implements ``ports.Settler``: counts, acknowledges our copy of the event, and places no other."""

    def __init__(self, books: Books, acknowledge: Acknowledge, *, heard: Callable[[], None]) -> None:
        self._books = books
        self._acknowledge = acknowledge
        self._heard = heard

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        """See ``ports.Settler``. Nothing is indexed."""
        for settlement in settlements:
            self._books.note(settlement)
            match settlement:
                case Settlement(disposition=Ack(reason=AckReason.SUPERSEDED | AckReason.DUPLICATE as reason)):
                    order_id = settlement.update.order_id if settlement.update is not None else None
                    log.info("dryrun.needless", order_id=order_id, reason=reason)
        await self._acknowledge([settlement.delivery for settlement in settlements])
        self._heard()


class LimitedIntake(InterposedIntake):
    """Hands over at most ``most`` events (None: all there are), and counts them."""

    def __init__(self, intake: Intake, books: Books, most: int | None) -> None:
        super().__init__(intake, lambda sink: _LimitedSink(sink, books, most))


class _LimitedSink:
    def __init__(self, sink: Sink, books: Books, most: int | None) -> None:
        self._sink = sink
        self._books = books
        self._most = most

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        wanted = deliveries if self._most is None else deliveries[: self._most - self._books.read]
        self._books.read += len(wanted)
        self._sink.deliver(wanted)

    def lost(self, generation: int) -> None:
        self._sink.lost(generation)
