"""What comes on a channel, on its way to the sink.

Deliveries come by the fast lane where the connection has one (``lane.py``): many at a time, in the callback of the
transport. The ordinary lane is the aiormq channel below aio-pika, whose message object costs twice the time and nothing
here needs it. aiormq runs the callback as a task that it cancels when the channel goes, and a message whose callback
raises stays unsettled for ever. So on both lanes the callback stamps, converts and hands over, and neither waits nor
raises.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from aiormq.abc import DeliveredMessage

from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.generation import Generation, Phase
from worker.adapters.amqp.width import Width
from worker.core.identity import identity
from worker.core.model import Delivery
from worker.core.returns import Survived
from worker.ports import Sink, WallClock

log = structlog.get_logger(__name__)


class Outlet:
    """Where the sink is. Nothing that it raises gets out: whoever calls is a callback of the library."""

    def __init__(self, counts: Counter[str]) -> None:
        self.sink: Sink | None = None
        self._counts = counts

    def hand_over(self, generation: Generation, deliveries: Sequence[Delivery]) -> None:
        """Give these to the sink. Those that it fails on stay open, the next ones come."""
        if self.sink is None:
            return
        with self.guarded(generation, len(deliveries)):
            self.sink.deliver(deliveries)
            self._counts["delivered"] += len(deliveries)

    def lost(self, generation: Generation, cause: str) -> None:
        """Tell the sink that this channel is gone."""
        if self.sink is None:
            return
        log.info(
            "broker.channel_gone", generation=generation.number, detail=cause, unsettled=generation.ledger.open_count
        )
        with self.guarded(generation, 0):
            self.sink.lost(generation.number)

    @contextmanager
    def guarded(self, generation: Generation, count: int) -> Iterator[None]:
        """Log and count what the block raises: so many deliveries stay open for it."""
        try:
            yield
        except Exception:
            self._counts["sink_failed"] += count
            log.exception("broker.delivery_failed", generation=generation.number)


class Receiving:
    """The callbacks of both lanes: what came becomes deliveries, and those that came back are told apart."""

    def __init__(self, outlet: Outlet, width: Width, *, survived: Survived, wall_us: WallClock) -> None:
        self._outlet = outlet
        self._width = width
        self._survived = survived
        self._wall_us = wall_us

    async def message(self, generation: Generation, message: DeliveredMessage) -> None:
        """The callback of the ordinary lane."""
        if self._is_for_nobody(generation):
            return
        with self._outlet.guarded(generation, 1):
            self._sort(generation, [generation.delivery(message, arrived_us=self._wall_us())])

    def cuts(self, generation: Generation, cuts: Sequence[Cut]) -> None:
        """That of the fast lane."""
        if self._is_for_nobody(generation):
            return
        with self._outlet.guarded(generation, len(cuts)):
            self._sort(generation, generation.deliveries(cuts, arrived_us=self._wall_us()))

    def _is_for_nobody(self, generation: Generation) -> bool:
        return generation.phase is Phase.GONE or self._outlet.sink is None

    def _sort(self, generation: Generation, deliveries: Sequence[Delivery]) -> None:
        returned = [delivery for delivery in deliveries if delivery.returns]
        for delivery in returned:
            delivery.unexplained = self._survived.unexplained(identity(delivery), delivery.returns)
        self._width.sort_all(generation, deliveries, calm=not returned)
