"""What arrives from the broker: decoded, entered into the books, and buffered or decided at once."""

from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace

from worker.core.allowed import EVERY_ORDER, Allowed, not_allowed
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.model import ACKS, Ack, AckReason, Dead, Delivery, Reason, Settlement, Update
from worker.core.slots import Slots
from worker.core.suspects import Suspects
from worker.core.versions import KnownVersions
from worker.ports import Clock
from worker.settling import EARLY_AT_MOST, Early, Unsettled

log = structlog.get_logger(__name__)


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
        now = self._clock()
        decide = self._known.standing if self._allowed is EVERY_ORDER else self._standing
        arrived: dict[Delivery, Update | None] = {}
        early: list[Settlement] = []
        fresh: list[Update] = []
        for delivery in deliveries:
            decoded = self._decoded(delivery)
            if isinstance(decoded, Update):
                arrived[delivery] = decoded
                if (decided := decide(decoded)) is None:
                    fresh.append(decoded)
                else:
                    early.append(Settlement(delivery=delivery, disposition=_early(decided), update=decoded))
            elif decoded is not None:
                arrived[delivery] = None
                early.append(Settlement(delivery=delivery, disposition=decoded))
        self._unsettled.add(arrived, now)
        self._buffer(fresh, now)
        self._decide_early(early)

    def _decoded(self, delivery: Delivery) -> Update | Dead | None:
        """None: it could not even be refused. It stays with the broker, and does no harm to those it came with."""
        try:
            # Not even decoded where it came back too often: that may be what it does harm in.
            if delivery.unexplained >= self._crash_suspect_from:
                return _crash_suspect(delivery)
            decoded = self._schema.decode(delivery)
            if delivery.redelivered and isinstance(decoded, Update):
                version = self._unsettled.version_of(delivery)
                return decoded if version is None else replace(decoded, version=version)
        except Exception:
            log.exception("broker.delivery_failed", generation=delivery.generation)
            return None
        return decoded

    def _standing(self, update: Update) -> AckReason | Dead | None:
        """Why nothing is sent for it, if that is known."""
        return not_allowed(update.order_id, self._allowed) or self._known.standing(update)

    def _decide_early(self, settlements: Sequence[Settlement]) -> None:
        """They need no call: settled with the next call that ends, so that acknowledgements stay few, or at once if
        idle."""
        if not settlements:
            return
        self._early.add(settlements)
        if not self._slots.in_flight or len(self._early) >= EARLY_AT_MOST:
            self._wake()

    def _buffer(self, updates: Sequence[Update], now: float) -> None:
        if not updates:
            return
        was_empty = not self._coalescer.buffered
        self._coalescer.add_all(updates, now)
        # The loop is only woken for a timer to arm or a call to start; whatever frees a slot wakes it as well.
        if was_empty or (self._coalescer.full and self._slots.free):
            self._wake()

    def lost(self, generation: int) -> None:
        """Forget what the broker delivers again."""
        self._unsettled.lost(generation)
        self._coalescer.lost(generation)
        self._suspects.lost()
        self._wake()


def _early(decided: AckReason | Dead) -> Ack | Dead:
    return decided if isinstance(decided, Dead) else ACKS[decided]


def _crash_suspect(delivery: Delivery) -> Dead:
    detail = f"came back {delivery.unexplained} times without a decision: it may be what kills the worker"
    return Dead(reason=Reason.CRASH_SUSPECT, detail=detail)
