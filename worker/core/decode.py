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
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from worker.core import refusal
from worker.core.fields import INT64_MAX, INT64_MIN, MAX_BODY_BYTES, MAX_DEPTH, Kind, changeable_fields, ignored_fields
from worker.core.headers import message_id_of, read_history
from worker.core.model import Dead, Delivery, Properties, Reason, Update, Version
from worker.core.times import LATEST_US, micros_of, parse_time

_CLOUD_EVENT: Final = "application/cloudevents+json"
_LONGEST_EVENT_ID: Final = 200

_Int64 = Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
_OrderId = Annotated[int, Meta(gt=0, le=INT64_MAX)]
_Name = Annotated[str, Meta(min_length=1)]
# msgspec takes no bool and no 4.0 for an int. Bounds on numbers keep out integers that databases cannot store.
_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.INTEGER: _Int64 | None | UnsetType,
    Kind.NUMBER: _Int64 | Annotated[float, Meta(ge=INT64_MIN, le=INT64_MAX)] | None | UnsetType,
    Kind.BOOLEAN: bool | None | UnsetType,
    Kind.STRING: str | None | UnsetType,
    Kind.NAME: _Name | None | UnsetType,
}
# UnicodeDecodeError is a ValueError. RecursionError: MAX_DEPTH is far below the limit, the caller's stack may not be.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every event may hold; the settings add the fields to change and the ones to ignore."""

    id: _OrderId
    # A string, not a datetime: msgspec rounds digits finer than microseconds, so an event could seem later than it was.
    occurred_at: str | UnsetType = UNSET
    sequence: _Int64 | UnsetType = UNSET
    event_id: Any = UNSET
    source: Any = UNSET


class _Envelope(msgspec.Struct, kw_only=True):
    """A CloudEvent around an event, which comes in as ``data`` below. Unknown attributes are extensions: allowed."""

    specversion: Literal["1.0"]
    id: _Name
    source: _Name
    type: _Name
    time: str | UnsetType | None = UNSET
    datacontenttype: str | UnsetType | None = UNSET


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
        # Attributes have names of our own: a field to ignore need not be a Python identifier.
        self._names = tuple(self.changes)
        self._attributes = tuple((f"change_{number}", name) for number, name in enumerate(self._names))
        self._values_of: Callable[[_Event], tuple[Any, ...]] = attrgetter(*(each for each, _ in self._attributes))
        event = self._event_type()
        envelope = msgspec.defstruct("Envelope", [("data", event)], bases=(_Envelope,), kw_only=True)
        self._decode_event = cast("Callable[[bytes], _Event]", msgspec.json.Decoder(event).decode)
        self._decode_envelope = msgspec.json.Decoder(envelope).decode

    def decode(self, delivery: Delivery) -> Update | Dead:
        """The update that this delivery asks for, or Dead (``invalid-event``). Never raises."""
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

        values = self._values_of(event)
        if UNSET in values:
            fields = {name: value for name, value in zip(self._names, values, strict=True) if value is not UNSET}
        else:
            fields = dict(zip(self._names, values, strict=True))
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

    def _event_type(self) -> type[_Event]:
        ignored = sorted(self.ignored - set(_Event.__struct_fields__))
        names = dict(self._attributes) | {f"ignored_{number}": name for number, name in enumerate(ignored)}
        types = [
            (attribute, _TYPES[self.changes[name]] if name in self.changes else Any, UNSET)
            for attribute, name in names.items()
        ]
        made = msgspec.defstruct(
            "Event", types, bases=(_Event,), rename=names, kw_only=True, forbid_unknown_fields=True
        )
        return cast("type[_Event]", made)

    def _open(self, body: bytes) -> _Event:
        body.decode()  # msgspec does not look into the extensions that it skips
        envelope: Any = self._decode_envelope(body)
        if isinstance(envelope.datacontenttype, str) and not refusal.is_json_type(envelope.datacontenttype):
            raise ValueError("not JSON inside")
        event: _Event = envelope.data
        if isinstance(envelope.time, str):
            if parse_time(envelope.time) is None:
                raise ValueError("no time")
            if event.occurred_at is UNSET:
                event.occurred_at = envelope.time
        if event.event_id is UNSET:
            event.event_id = envelope.id
        return event

    def _stamp(self, event: _Event, delivery: Delivery, *, cloud: bool) -> int | Dead | None:
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


def _invalid(detail: str) -> Dead:
    return Dead(reason=Reason.INVALID_EVENT, detail=detail)


def is_cloud_event(content_type: object) -> bool:
    """Whether this content type says that the event is inside a CloudEvent (structured mode)."""
    return isinstance(content_type, str) and content_type.partition(";")[0].strip().lower() == _CLOUD_EVENT


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
