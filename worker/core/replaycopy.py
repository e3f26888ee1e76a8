"""The copy that puts a dead letter back to work: the event as it was, with its version, and with its attempts anew.

The body is the original's (or the edited one) byte for byte, and so are the properties: what had to be left out of the
dead letter comes back out of ``ow-original``, except ``user_id`` (the broker would refuse ours) and ``x-`` headers (the
broker's own). What fixed the version stays, so that whatever was applied meanwhile still wins: that is what makes a
replay harmless, and a second copy of it too.

A letter that the broker made may have no version of ours. Then the time of its first death counts as first sight, or
where nobody says even that, the beginning of the replay: a copy must not be newer than what arrives after it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from worker.core.deadletter import DeadLetter
from worker.core.edits import NO_EDITS, OCCURRED_AT, SEQUENCE, Edits
from worker.core.failures import Failure, dump_failures
from worker.core.headers import OURS, Copy
from worker.core.letterfile import exchange_of
from worker.core.original import MAX_SHORT, named, safe_properties, shown_as_json, split_headers
from worker.core.table import encoded_size, fit
from worker.core.times import format_time, micros_of

MOST_EXPIRATION_MS: Final = 2**32 - 1
"""The longest time-to-live that RabbitMQ takes; a larger or other text closes the channel."""
_ROUTING: Final = ("CC", "BCC")
_STAYING: Final = ("first-seen", "occurred-at", "sequence", "order-id")
_EDITED: Final[Mapping[str, str]] = {OCCURRED_AT: "ow-occurred-at", SEQUENCE: "ow-sequence"}


@dataclass(slots=True, frozen=True, kw_only=True)
class Ticket:
    """What makes a copy part of a replay. ``seen_us`` is when the replay began; ``place`` is that of the message."""

    replay_id: str
    place: int
    seen_us: int
    allow_terminal: bool = False


def replay_copy(letter: DeadLetter, ticket: Ticket, *, body: bytes | None = None, edits: Edits = NO_EDITS) -> Copy:
    """The copy of this letter; ``body`` is the edited one, None for the body as it is. Never raises."""
    delivery, history = letter.delivery, letter.history
    headers = delivery.properties.headers
    routing = {name: headers[name] for name in _ROUTING if _is_list(headers.get(name))}
    kept, left, dropped = split_headers(
        {name: value for name, value in headers.items() if name not in OURS and name not in routing}
    )
    properties, unfit = safe_properties(delivery.properties)
    back, shown = _restored(history.original)
    expiration = back.pop("expiration", None) or _expiration(delivery.properties.expiration)
    if expiration is not None:
        unfit.pop("expiration", None)
    left_out = {**unfit, **{f"headers.{name}": value for name, value in left.items()}}
    original, too_long = shown_as_json(left_out, earlier=shown)
    ours = _ours(letter, ticket, edits.changes)
    if original:
        ours["ow-original"] = original
    if lost := [*history.dropped, *dropped, *too_long]:
        ours["ow-dropped"] = named(lost)
    return Copy(
        delivery.body if body is None else body,
        replace(properties, expiration=expiration, headers={**kept, **back, **routing, **ours}),
    )


def _ours(letter: DeadLetter, ticket: Ticket, changed: Collection[str]) -> dict[str, Any]:
    history = letter.history
    gone = {_EDITED[name] for name in changed if name in _EDITED}
    headers = letter.delivery.properties.headers
    version = {
        name: headers[name]
        for name in (f"ow-{each}" for each in _STAYING)
        if name in headers and name not in gone and _is_ours(letter, name)
    }
    if history.first_seen_us is None:
        version["ow-first-seen"] = format_time(_first_seen_us(letter, ticket))
    ours = {
        **version,
        "ow-message-id": fit(letter.message_id, MAX_SHORT),
        "ow-exchange": fit(exchange_of(letter), MAX_SHORT),
        "ow-routing-key": fit(letter.routing_key, MAX_SHORT),
        "ow-replay-id": ticket.replay_id,
        "ow-replay-place": ticket.place,
        "ow-failures": dump_failures((*history.failures, _failure(letter))),
    }
    return {**ours, "ow-allow-terminal": True} if ticket.allow_terminal else ours


def knows_where(letter: DeadLetter) -> bool:
    """Whether exchange and key of the producer are known: from our headers, or from the broker's of the first death."""
    if letter.history.exchange is not None:
        return True
    return bool(letter.deaths) and isinstance(letter.deaths[-1].get("exchange"), str) and bool(letter.routing_key)


def _is_ours(letter: DeadLetter, name: str) -> bool:
    """Headers that are not as we write them count as absent."""
    history = letter.history
    read = {
        "ow-first-seen": history.first_seen_us,
        "ow-occurred-at": history.occurred_us,
        "ow-sequence": history.sequence,
        "ow-order-id": history.order_id,
    }
    return read[name] is not None


def _first_seen_us(letter: DeadLetter, ticket: Ticket) -> int:
    time = letter.deaths[-1].get("time") if letter.deaths else None
    died_us = micros_of(time) if isinstance(time, datetime) else None
    return ticket.seen_us if died_us is None else min(died_us, ticket.seen_us)


def _failure(letter: DeadLetter) -> Failure:
    return Failure(
        reason=letter.reason,
        detail=letter.detail,
        failed_at="" if letter.failed_us is None else format_time(letter.failed_us),
        attempt=letter.history.attempt,
        replay_id=letter.history.replay_id or "",
    )


def _restored(original: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What comes back out of ``ow-original`` (``expiration``, and headers by their names), and what stays in there.

    Everything else in it was left out because it could not be sent, so what is shown is not what it was.
    """
    back: dict[str, Any] = {}
    stays: dict[str, Any] = {}
    for name, value in original.items():
        header = name.removeprefix("headers.")
        if name == "expiration" and (expiration := _expiration(value)) is not None:
            back[name] = expiration
        elif header != name and header in _ROUTING and _is_list(value):
            back[header] = value
        else:
            stays[name] = value
    return back, stays


def _expiration(value: object) -> str | None:
    right = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10
    return str(value) if right and int(str(value)) <= MOST_EXPIRATION_MS else None


def _is_list(value: object) -> bool:
    """Keys as the broker takes them: a list of short texts."""
    texts = isinstance(value, list) and all(isinstance(key, str) and len(key) <= MAX_SHORT for key in value)
    return texts and encoded_size(value) is not None
