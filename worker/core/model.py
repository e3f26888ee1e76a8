"""The nouns of the worker: what is delivered, what it asks for, and what is done with it.

A *delivery* is one hand-over of a message by the broker. Decoding makes it an *update*. Updates of one order are
merged into an *entry* (``coalesce.py``), entries form a *batch*, and in the end every delivery is settled once, by a
*disposition*:

    delivered -> buffered -> in flight -> settled: Ack | Retry | Dead | Release

Hot objects (one or more per event) are msgspec structs: made in a fifth of the time of a slotted dataclass, and not
looked at by the garbage collector (``gc=False``: none of them refers back to what refers to it). Nobody changes them
after they were made.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

Scalar = str | int | float | bool | None
Fields = Mapping[str, Scalar]


class Version(Struct, frozen=True, order=True, array_like=True, gc=False):
    """Total order of the updates of one order: compare two of them with ``<``.

    ``time_us`` is when the event happened (microseconds since 1970, UTC; finer digits are cut off), ``sequence`` breaks
    ties of equal times (-1: none given), then whoever was seen first, then the message id.
    """

    time_us: int
    sequence: int
    first_seen_us: int
    message_id: str

    @property
    def when(self) -> tuple[int, int]:
        """What the producer said: time and sequence."""
        return self.time_us, self.sequence


class Properties(Struct, eq=False, kw_only=True, gc=False):
    """The AMQP basic properties of a message, by their names in the AMQP 0-9-1 specification (``type`` is
    ``message_type``).

    ``timestamp`` is an ``int`` where the number on the wire is no time that Python knows. Texts that are no UTF-8 there
    hold lone surrogates.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | int | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


class Delivery(Struct, eq=False, kw_only=True, gc=False):
    """One hand-over of a message by the broker, on one channel generation.

    A tag is only meaningful together with its generation: after a channel is lost the broker numbers from 1 again.
    ``opened_us`` is when that channel was opened, ``arrived_us`` when this delivery came (both wall clock,
    microseconds). ``returns`` counts how often it was handed over before and came back, 0 where the broker does not
    tell; ``unexplained`` are those that this process did not live through (``returns.py``). ``fault`` says why its
    properties are not all there, empty where they are.
    """

    generation: int
    tag: int
    body: bytes
    properties: Properties
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    arrived_us: int = 0
    opened_us: int = 0
    returns: int = 0
    unexplained: int = 0
    fault: str = ""


class Update(Struct, eq=False, gc=False):
    """A decoded event: which fields of which order it wants to change, and since when.

    ``attempt`` counts from 1. ``size`` is the length of the body in bytes: an upper bound of what its fields cost in
    a call.
    """

    order_id: int
    fields: Fields
    version: Version
    delivery: Delivery
    attempt: int = 1
    size: int = 0
    event_id: str | None = None


class Reason(StrEnum):
    """Why a message is in the dead-letter queue or in a retry tier (header ``ow-reason``)."""

    INVALID_EVENT = "invalid-event"
    REJECTED = "rejected"
    REJECTED_IN_DOUBT = "rejected-in-doubt"
    RETRIES_EXHAUSTED = "retries-exhausted"
    OUTCOME_UNKNOWN = "outcome-unknown"
    UNCONFIRMED = "unconfirmed"
    TERMINAL_ORDER = "terminal-order"
    TOO_OLD_TO_JUDGE = "too-old-to-judge"
    CRASH_SUSPECT = "crash-suspect"
    BUSY = "busy"
    WORN = "worn"
    MOVED = "moved"
    NOT_ALLOWED = "not-allowed"


class AckReason(StrEnum):
    """What a message is acknowledged for."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"


class Ack(Struct, frozen=True, gc=False):
    """Acknowledge: the platform has this value, or a later one."""

    reason: AckReason


APPLIED = Ack(AckReason.APPLIED)
SUPERSEDED = Ack(AckReason.SUPERSEDED)
DUPLICATE = Ack(AckReason.DUPLICATE)
ACKS = {ack.reason: ack for ack in (APPLIED, SUPERSEDED, DUPLICATE)}
"""One each for all: nearly every event ends with one of them."""


class Retry(Struct, frozen=True, kw_only=True, gc=False):
    """Put a copy with ``attempt + 1`` into the retry tier number ``tier`` (from 0), then acknowledge.

    ``counts`` is false where nothing was tried: then the attempt stays as it is.
    """

    tier: int
    reason: Reason
    detail: str
    counts: bool = True


class Dead(Struct, frozen=True, kw_only=True, gc=False):
    """Put a copy into the dead-letter queue, with its reason, then acknowledge. ``detail`` is short and masked."""

    reason: Reason
    detail: str


class Release(Struct, frozen=True, gc=False):
    """Hand back to the broker by closing the channel; the attempt count stays."""


Disposition = Ack | Retry | Dead | Release


class Settlement(Struct, frozen=True, eq=False, kw_only=True, gc=False):
    """The decision about one delivery. ``update`` is None where the body could not be decoded."""

    delivery: Delivery
    disposition: Disposition
    update: Update | None = None
    batch_id: str = ""
