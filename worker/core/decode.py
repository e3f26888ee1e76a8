"""From a delivery to an update, or to the reason why it is none. Runs once per event: the good case is a straight line.

msgspec decodes and checks in one pass (a struct type made from the settings); only an event that it refuses is read a
second time, by ``refusal.py``, for a text that a person can act on. For events msgspec was chosen over
pydantic because it takes about a sixth of the time: see ``pytest -q -s -m benchmark tests/core/test_decode.py``.

When the event happened is taken from the first of these that is there, and then never changes (our headers carry it):

    our ``ow-`` headers > occurred_at > header ``timestamp_in_ms`` > AMQP ``timestamp`` > first arrival

An event without any of them that the broker hands over *again* is as old as the channel: older than all that this
channel delivered for the first time, newer than all before it. If JSON repeats a key, its last value counts.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET, UnsetType

from worker.core import refusal
from worker.core.eventtypes import Event, envelope_type, event_type
from worker.core.fields import KNOWN_FIELDS, MAX_BODY_BYTES, MAX_DEPTH, NOTES, Kind, changeable_fields, ignored_fields
from worker.core.headers import message_id_of, read_history
from worker.core.model import Dead, Delivery, Properties, Reason, Scalar, Update, Version
from worker.core.original import MAX_SHORT
from worker.core.times import LATEST_US, micros_of, parse_time

_CLOUD_EVENT: Final = "application/cloudevents+json"
_LONGEST_EVENT_ID: Final = 200

# UnicodeDecodeError is a ValueError. RecursionError: MAX_DEPTH is far below the limit, the caller's stack may not be.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class EventSchema:
    """What events look like with these settings, and how they are decoded.

    ``extra_fields`` maps names of further OrderInput fields to ``string``, ``integer``, ``number`` or ``boolean``;
    ``ignore_fields`` may be there and are never sent. Raises UsageError where a name or type cannot work.
    """

    def __init__(
        self, extra_fields: Mapping[str, str], ignore_fields: Collection[str], max_clock_skew_s: float = 300.0
    ) -> None:
        self.changes: Final[Mapping[str, Kind]] = changeable_fields(extra_fields)
        self.ignored: Final = ignored_fields(ignore_fields, self.changes)
        self.max_clock_skew_s: Final = max_clock_skew_s
        self._max_ahead_us = max_clock_skew_s * 1_000_000
        self._names = tuple(self.changes)
        event, attributes = event_type(self.changes, self.ignored)
        self._values_of: Callable[[Event], tuple[Any, ...]] = attrgetter(*attributes)
        self._decode_event = cast("Callable[[bytes], Event]", msgspec.json.Decoder(event).decode)
        self._decode_envelope = msgspec.json.Decoder(envelope_type(event)).decode
        self._plain = self._straight_line()

    def decode(self, delivery: Delivery) -> Update | Dead:
        """The update that this delivery asks for, or Dead (``invalid-event``). Never raises."""
        return self._plain(delivery) or self._decode(delivery)

    def decode_all(self, deliveries: Iterable[Delivery]) -> list[Update | Dead]:
        """The same for each of these."""
        plain, decode = self._plain, self._decode
        return [plain(delivery) or decode(delivery) for delivery in deliveries]

    def _straight_line(self) -> Callable[[Delivery], Update | None]:
        """Decodes what nearly all events are: flat, plain JSON, with a time of its own, seen for the first time.

        Whatever else it may be gets None and goes the long way (``_decode``), which decides the same for these. It runs
        for every event, so it looks nothing up and calls nothing that can be spared.
        """
        decode_event, values_of, names = self._decode_event, self._values_of, self._names
        has_usual_names, max_ahead_us = names == tuple(KNOWN_FIELDS), self._max_ahead_us
        may_not_nest = self.ignored == NOTES

        def plain(delivery: Delivery) -> Update | None:
            body, properties = delivery.body, delivery.properties
            message_id = properties.message_id
            if (
                properties.content_type != "application/json"
                or properties.headers
                or delivery.fault
                or type(message_id) is not str
                or not message_id.isascii()
                or len(message_id) > MAX_SHORT
                or len(body) > MAX_BODY_BYTES
            ):
                return None
            try:
                event = decode_event(body)
            except _UNREADABLE:
                return None
            occurred_at, sequence, event_id = event.occurred_at, event.sequence, event.event_id
            # How deep it may be nested is only a question where anything may be.
            if not ((type(event.source) in _FLAT and type(event_id) in _FLAT and may_not_nest) or _is_flat(body)):
                return None
            if occurred_at is UNSET or (time_us := parse_time(occurred_at)) is None:
                return None
            arrived_us, values = delivery.arrived_us, values_of(event)
            if time_us - arrived_us > max_ahead_us:
                return None
            if has_usual_names and UNSET not in values:
                status, carrier, method = values
                fields = {"status": status, "shipping_carrier": carrier, "shipping_method": method}
            elif not (fields := _present(names, values)):
                return None
            return Update(
                event.id,
                fields,
                Version(time_us, -1 if sequence is UNSET else sequence, arrived_us, message_id),
                delivery,
                1,
                len(body),
                None if event_id is UNSET else _event_id(event_id),
            )

        return plain

    def _decode(self, delivery: Delivery) -> Update | Dead:
        """Whatever a delivery may be."""
        body = delivery.body
        properties = delivery.properties
        if delivery.fault:
            return _invalid(delivery.fault)
        cloud = properties.content_type != "application/json" and is_cloud_event(properties.content_type)
        if len(body) > MAX_BODY_BYTES:
            return self._refuse(delivery, cloud=cloud)
        if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
            return _invalid(refusal.too_deep())
        try:
            event = self._open(body) if cloud else self._decode_event(body)
        except _UNREADABLE:
            return self._refuse(delivery, cloud=cloud)

        fields = _present(self._names, self._values_of(event))
        if not fields:
            return _invalid(refusal.nothing_to_change(self.changes, cloud=cloud))

        history = read_history(properties.headers)
        time_us = history.occurred_us
        if time_us is None:
            stamped = self._stamp(event, delivery, cloud=cloud)
            if isinstance(stamped, Dead):
                return stamped
            time_us = stamped if stamped is not None else _unstamped(delivery, history.first_seen_us)
        sequence = history.sequence if history.sequence is not None else event.sequence
        return Update(
            order_id=event.id,
            fields=fields,
            version=Version(
                time_us,
                -1 if sequence is UNSET else sequence,
                delivery.arrived_us if history.first_seen_us is None else history.first_seen_us,
                message_id_of(properties, history),
            ),
            delivery=delivery,
            attempt=history.attempt_now,
            size=len(body),
            event_id=None if event.event_id is UNSET else _event_id(event.event_id),
        )

    def _open(self, body: bytes) -> Event:
        body.decode()  # msgspec does not look into the extensions that it skips
        envelope: Any = self._decode_envelope(body)
        if isinstance(envelope.datacontenttype, str) and not refusal.is_json_type(envelope.datacontenttype):
            raise ValueError("not JSON inside")
        event: Event = envelope.data
        if isinstance(envelope.time, str):
            if parse_time(envelope.time) is None:
                raise ValueError("no time")
            if event.occurred_at is UNSET:
                event.occurred_at = envelope.time
        if event.event_id is UNSET:
            event.event_id = envelope.id
        return event

    def _stamp(self, event: Event, delivery: Delivery, *, cloud: bool) -> int | Dead | None:
        """When producer or broker say that it happened; None if they do not say."""
        if event.occurred_at is not UNSET:
            source = "time or data.occurred_at" if cloud else "occurred_at"
            time_us = parse_time(event.occurred_at)
            if time_us is None:
                return self._refuse(delivery, cloud=cloud)
        else:
            source, time_us = _broker_stamp(delivery.properties)
        if time_us is not None and time_us - delivery.arrived_us > self._max_ahead_us:
            ahead = refusal.ahead(source, by_us=time_us - delivery.arrived_us, allowed_s=self.max_clock_skew_s)
            return _invalid(ahead)
        return time_us

    def _refuse(self, delivery: Delivery, *, cloud: bool) -> Dead:
        encoded = bool(delivery.properties.content_encoding)
        return _invalid(
            refusal.explain(delivery.body, changes=self.changes, ignored=self.ignored, cloud=cloud, encoded=encoded)
        )


def _is_flat(body: bytes) -> bool:
    """Whether there is nothing that may be nested."""
    return b"[" not in body and body.find(b"{", 1) < 0


def _present(names: Iterable[str], values: Iterable[Any]) -> dict[str, Scalar]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not UNSET}


def _invalid(detail: str) -> Dead:
    return Dead(reason=Reason.INVALID_EVENT, detail=detail)


def is_cloud_event(content_type: object) -> bool:
    """Whether this content type says that the event is inside a CloudEvent (structured mode)."""
    return isinstance(content_type, str) and content_type.partition(";")[0].strip().lower() == _CLOUD_EVENT


_FLAT: Final = frozenset({str, int, UnsetType})
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _depth(body: bytes) -> int:
    """How deep arrays and objects are nested, brackets inside strings not counted. Good for any bytes."""
    depth = deepest = 0
    for token in _TOKENS.findall(body):
        if token in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"}", b"]"):
            depth -= 1
    return deepest


def _broker_stamp(properties: Properties) -> tuple[str, int | None]:
    """The stamps that are not in the body. Zero and below is how some clients say "not set", so it is no stamp."""
    millis = properties.headers.get("timestamp_in_ms")
    if type(millis) is int and 0 < millis <= LATEST_US // 1000:
        return "header timestamp_in_ms", millis * 1000
    if not isinstance(properties.timestamp, datetime):  # absent, or a number that is no time
        return "", None
    micros = micros_of(properties.timestamp)
    return "property timestamp", micros if micros is not None and micros > 0 else None


def _unstamped(delivery: Delivery, first_seen_us: int | None) -> int:
    if first_seen_us is not None:
        return first_seen_us
    return delivery.opened_us if delivery.redelivered else delivery.arrived_us


def _event_id(value: object) -> str | None:
    """The producer's id as text; what is neither text nor a number is nothing to search for."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text[:_LONGEST_EVENT_ID] or None
