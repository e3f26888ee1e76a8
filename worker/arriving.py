"""What arrives from the broker: decoded, entered into the books, and buffered or decided at once."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from worker.core.allowed import EVERY_ORDER, Allowed, not_allowed
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.model import Ack, Dead, Delivery, Reason, Settlement, Update
from worker.core.slots import Slots
from worker.core.suspects import Suspects
from worker.core.versions import KnownVersions
from worker.ports import Clock
from worker.settling import EARLY_AT_MOST, Early, Unsettled


class Arrivals:
    """Implements ``ports.Sink`` for the intake. ``wake`` wakes the pipeline's loop.

    A delivery that came back ``crash_suspect_from`` times unexplained is held to be what kills the process. Events of
    orders that are not ``allowed`` are never buffered, so nothing of them can be in a call.
    """

    def __init__(
        self,
        *,
        schema: EventSchema,
        coalescer: Coalescer,
        suspects: Suspects,
        slots: Slots,
        known: KnownVersions,
        unsettled: Unsettled,
        early: Early,
        crash_suspect_from: int,
        wake: Callable[[], None],
        clock: Clock,
        allowed: Allowed = EVERY_ORDER,
    ) -> None:
        self._allowed = allowed
        self._schema = schema
        self._coalescer = coalescer
        self._suspects = suspects
        self._slots = slots
        self._known = known
        self._unsettled = unsettled
        self._early = early
        self._crash_suspect_from = crash_suspect_from
        self._wake = wake
        self._clock = clock

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Decode and buffer what arrived."""
        for delivery in deliveries:
            self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        # Not even decoded where it came back too often: that may be what it does harm in.
        decoded = self._crash_suspect(delivery) or self._schema.decode(delivery)
        now = self._clock()
        if isinstance(decoded, Update):
            if (version := self._unsettled.version_of(delivery)) is not None:
                decoded = replace(decoded, version=version)
            self._unsettled.add(delivery, decoded, now)
            self._sort(decoded, now)
        else:
            self._unsettled.add(delivery, None, now)
            self._decide_early(Settlement(delivery=delivery, disposition=decoded))

    def _sort(self, update: Update, now: float) -> None:
        if (dead := not_allowed(update.order_id, self._allowed)) is not None:
            self._decide_early(Settlement(delivery=update.delivery, disposition=dead, update=update))
        elif (covered := self._known.standing(update)) is not None:
            self._decide_early(Settlement(delivery=update.delivery, disposition=Ack(covered), update=update))
        else:
            self._buffer(update, now)

    def _crash_suspect(self, delivery: Delivery) -> Dead | None:
        if delivery.unexplained < self._crash_suspect_from:
            return None
        detail = f"came back {delivery.unexplained} times without a decision: it may be what kills the worker"
        return Dead(reason=Reason.CRASH_SUSPECT, detail=detail)

    def _decide_early(self, settlement: Settlement) -> None:
        """Needs no call: settled with the next call that ends, so that acknowledgements stay few, or at once if
        idle."""
        self._early.add(settlement)
        if not self._slots.in_flight or len(self._early) == EARLY_AT_MOST:
            self._wake()

    def _buffer(self, update: Update, now: float) -> None:
        was_empty = not self._coalescer.buffered
        self._coalescer.add(update, now)
        # The loop is only woken for a timer to arm or a call to start; whatever frees a slot wakes it as well.
        if was_empty or (self._coalescer.full and self._slots.free):
            self._wake()

    def lost(self, generation: int) -> None:
        """Forget what the broker delivers again."""
        self._unsettled.lost(generation)
        self._coalescer.lost(generation)
        self._suspects.lost()
        self._wake()
