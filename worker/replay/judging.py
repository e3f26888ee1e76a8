"""From a dead letter in hand to what is to be done with it: the copy as the worker will see it, and the forecast."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.deadletter import DeadLetter
from worker.core.decode import EventSchema, is_cloud_event
from worker.core.edits import NO_EDITS, Edits, edited
from worker.core.forecast import Forecast, Grounds, Kind, forecast_decoded
from worker.core.headers import Copy
from worker.core.history import HistoryRow, ReplayItem
from worker.core.letterfile import exchange_of
from worker.core.model import AckReason, Dead, Delivery, Reason, Update
from worker.core.replaycopy import Ticket, knows_where, replay_copy
from worker.core.replayoptions import Options
from worker.core.values import Values

WORKER = "order-worker dead"
"""Who the history says it was."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Target:
    """Where copies go; None: where the producer's event went."""

    exchange: str | None = None
    routing_key: str | None = None

    def of(self, letter: DeadLetter) -> tuple[str, str] | None:
        """Exchange and key for this letter; None where nobody says."""
        if self.exchange is None and not knows_where(letter):
            return None
        exchange = exchange_of(letter) if self.exchange is None else self.exchange
        return exchange, letter.routing_key if self.routing_key is None else self.routing_key


@dataclass(slots=True, frozen=True, kw_only=True)
class Prepared:
    """A planned message in hand: its copy, where that goes, and what it says by the rules of today."""

    item: ReplayItem
    letter: DeadLetter
    copy: Copy
    target: tuple[str, str] | None
    decoded: Update | Dead

    @property
    def order_id(self) -> int | None:
        """Whose order it is, if it can be read."""
        return self.decoded.order_id if isinstance(self.decoded, Update) else None

    def forecast(self, known: Mapping[int, Values], grounds: Grounds) -> Forecast:
        """What a replay would do, by what is known now."""
        if self.target is None:
            return Forecast(kind=Kind.RETURNS, detail="nobody says which exchange it came from: give --exchange")
        values = None if self.order_id is None else known.get(self.order_id)
        return forecast_decoded(self.decoded, values, grounds)


@dataclass(slots=True, frozen=True, kw_only=True)
class Preparing:
    """Makes copies for one replay. ``created_us`` is when it was planned."""

    schema: EventSchema
    replay_id: str
    created_us: int
    options: Options
    edits: Edits = NO_EDITS

    def prepare(self, item: ReplayItem, letter: DeadLetter, *, now_us: int) -> Prepared:
        """The copy, and how the worker will read it. Never raises."""
        body: bytes | str | None = None
        if self.edits:
            cloud = is_cloud_event(letter.delivery.properties.content_type)
            body = edited(letter.delivery.body, self.edits, cloud=cloud)
        ticket = Ticket(
            replay_id=self.replay_id,
            place=item.place,
            seen_us=self.created_us,
            allow_terminal=self.options.allow_terminal,
        )
        copy = replay_copy(letter, ticket, body=body if isinstance(body, bytes) else None, edits=self.edits)
        problem = Dead(reason=Reason.INVALID_EVENT, detail=body) if isinstance(body, str) else None
        target = Target(exchange=self.options.exchange, routing_key=self.options.routing_key).of(letter)
        decoded = problem or self.schema.decode(_as_delivered(copy, now_us))
        return Prepared(item=item, letter=letter, copy=copy, target=target, decoded=decoded)


def superseded_row(prepared: Prepared, forecast: Forecast, *, replay_id: str, wall_us: int) -> HistoryRow:
    """What the history says of a letter that was dropped, because everything in it is applied already."""
    update, letter = prepared.decoded, prepared.letter
    known = update if isinstance(update, Update) else None
    return HistoryRow(
        at_us=wall_us,
        disposition="ack",
        reason=(AckReason.DUPLICATE if forecast.duplicate else AckReason.SUPERSEDED).value,
        detail=forecast.detail,
        order_id=None if known is None else known.order_id,
        message_id=letter.message_id,
        event_id=None if known is None else known.event_id,
        fields={} if known is None else known.fields,
        version=None if known is None else known.version,
        attempt=letter.history.attempt,
        replay_id=replay_id,
        replay_place=prepared.item.place,
        worker=WORKER,
    )


def _as_delivered(copy: Copy, now_us: int) -> Delivery:
    return Delivery(
        generation=0, tag=0, body=copy.body, properties=copy.properties, arrived_us=now_us, opened_us=now_us
    )
