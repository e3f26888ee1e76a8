"""Our ``ow-`` headers: what a copy of a message carries from its first sight to its last, and how copies are made.

A copy goes to a retry or the dead-letter queue. Its body is the original's byte for byte; its properties too, but for

- ``expiration``, ``user_id``, the headers ``CC`` and ``BCC`` and all ``x-`` headers, which would make the broker drop,
  refuse or re-route the copy, and whatever the client cannot encode again: left out, shown as JSON in ``ow-original``
  (by the name of the property, headers as ``headers.<name>``);
- ``delivery_mode``, always persistent, and ``message_id``, which the publisher sets (``ow-message-id`` has the first).

Our headers take at most 8 KiB, the original ones 100 KiB (``original.py``); what does not fit: ``ow-dropped``.

Our headers may have been written by anybody: those that are not as we write them are taken as absent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from worker.core.failures import Failure, dump_failures, load_failures
from worker.core.fields import INT64_MAX, INT64_MIN
from worker.core.model import Dead, Delivery, Properties, Retry, Settlement
from worker.core.original import MAX_SHORT, PERSISTENT, named, safe_properties, shown_as_json, split_headers
from worker.core.table import encoded_size, fit
from worker.core.times import format_time, parse_time

MAX_OURS: Final = 8 * 1024
"""Bound of all our headers together, encoded. The parts below add up to less."""
MAX_DETAIL: Final = 500
_MOST_ATTEMPTS: Final = 1_000_000
OURS: Final = frozenset(
    f"ow-{name}"
    for name in (
        *("reason", "detail", "attempt", "first-seen", "failed-at", "occurred-at", "sequence", "message-id"),
        *("exchange", "routing-key", "order-id", "batch-id", "worker", "original", "dropped"),
        *("replay-id", "replay-place", "failures", "allow-terminal", "dead"),
    )
)


@dataclass(slots=True, frozen=True, kw_only=True)
class History:
    """What our headers say of a message. None where they say nothing (or nothing we would have written).

    ``occurred_us`` is the time of the version. ``message_id``, ``exchange`` and ``routing_key`` are the producer's; an
    empty ``message_id`` means that there was none. ``replay_place`` is its place in the plan of the replay that it is
    part of, ``failures`` are those before it was replayed. ``allow_terminal``: whoever replayed it wants a terminal
    status changed. ``dead``: this was a dead letter, whoever made it. ``original`` holds what was left out of copies,
    ``dropped`` what is lost.
    """

    attempt: int = 1
    first_seen_us: int | None = None
    occurred_us: int | None = None
    sequence: int | None = None
    message_id: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    order_id: int | None = None
    replay_id: str | None = None
    replay_place: int | None = None
    failures: tuple[Failure, ...] = ()
    batch_id: str | None = None
    reason: str | None = None
    detail: str | None = None
    failed_us: int | None = None
    worker: str | None = None
    dead: bool = False
    allow_terminal: bool = False
    original: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def attempt_now(self) -> int:
        """The attempt that a delivery with these headers is.

        A dead letter in the work queue was put back, by whatever tool: that begins anew. Only the mark of a dead letter
        tells it from a retry copy for certain: reasons may be the same, and ``x-`` headers depend on tool and broker.
        """
        return 1 if self.dead else self.attempt


@dataclass(slots=True, frozen=True)
class Copy:
    """A message to publish. ``properties.message_id`` is None: the publisher gives each copy a fresh one."""

    body: bytes
    properties: Properties


_NOTHING: Final = History()


def read_history(headers: Mapping[str, Any]) -> History:
    """What our headers say; never raises, whatever is in them."""
    if not headers or OURS.isdisjoint(headers):  # nearly every event: producers do not set our headers
        return _NOTHING
    attempt = _integer(headers, "ow-attempt")
    return History(
        attempt=attempt if attempt is not None and 1 <= attempt <= _MOST_ATTEMPTS else 1,
        first_seen_us=_time(headers, "ow-first-seen"),
        occurred_us=_time(headers, "ow-occurred-at"),
        sequence=_integer(headers, "ow-sequence"),
        message_id=_text(headers, "ow-message-id"),
        exchange=_text(headers, "ow-exchange"),
        routing_key=_text(headers, "ow-routing-key"),
        order_id=_integer(headers, "ow-order-id"),
        replay_id=_text(headers, "ow-replay-id"),
        replay_place=_integer(headers, "ow-replay-place"),
        failures=load_failures(headers.get("ow-failures")),
        batch_id=_text(headers, "ow-batch-id"),
        reason=_text(headers, "ow-reason"),
        detail=_text(headers, "ow-detail", limit=MAX_DETAIL),
        failed_us=_time(headers, "ow-failed-at"),
        worker=_text(headers, "ow-worker"),
        dead=headers.get("ow-dead") is True or _broker_made(headers.get("x-death")),
        allow_terminal=headers.get("ow-allow-terminal") is True,
        original=_left_out(headers.get("ow-original")),
        dropped=_names(headers.get("ow-dropped")),
    )


def message_id_of(properties: Properties, history: History) -> str:
    """The producer's message id, empty if there was none; the same on the message and on every copy of it."""
    if history.message_id is not None:
        return history.message_id
    given = properties.message_id
    if isinstance(given, str) and len(given) <= MAX_SHORT and given.isascii():  # nearly every one
        return given
    return _short(given)


def retry_copy(settlement: Settlement, *, now_us: int, worker: str) -> Copy:
    """The copy for a retry tier: one attempt more (if it ``counts``), the version of the first sight. The disposition
    must be Retry."""
    if not isinstance(settlement.disposition, Retry):
        raise TypeError("only a Retry has a retry copy")
    counted = 1 if settlement.disposition.counts else 0
    return _copy(settlement, settlement.disposition, counted=counted, now_us=now_us, worker=worker)


def dead_copy(settlement: Settlement, *, now_us: int, worker: str) -> Copy:
    """The copy for the dead-letter queue; its attempt is the number of attempts made. The disposition must be Dead."""
    if not isinstance(settlement.disposition, Dead):
        raise TypeError("only a Dead has a dead copy")
    return _copy(settlement, settlement.disposition, counted=0, now_us=now_us, worker=worker)


def body_only(copy: Copy) -> Copy:
    """The last resort where a copy is refused: the body, our short headers and a note, nothing of the original.

    The content type stays if it is plain: without it a CloudEvent could not be read again.
    """
    note = "copied without its properties, they could not be sent"
    kept = {name: value for name, value in copy.properties.headers.items() if name in OURS and _is_plain(value)}
    kept.pop("ow-original", None)
    detail = kept.get("ow-detail", "")
    kept["ow-detail"] = fit(f"{fit(str(detail), MAX_DETAIL - len(note) - 3)} ({note})", MAX_DETAIL)
    kept["ow-dropped"] = named(["(all properties)", *(n for n in copy.properties.headers if n not in OURS)])
    content_type = copy.properties.content_type
    plain_type = content_type if content_type and content_type.isascii() and content_type.isprintable() else None
    return Copy(copy.body, Properties(content_type=plain_type, delivery_mode=PERSISTENT, headers=kept))


def _copy(settlement: Settlement, why: Retry | Dead, *, counted: int, now_us: int, worker: str) -> Copy:
    delivery = settlement.delivery
    history = read_history(delivery.properties.headers)
    ours = _version_headers(settlement, history) | _place_headers(delivery, history)
    update = settlement.update
    attempt = update.attempt if update is not None else history.attempt_now
    ours["ow-attempt"] = min(attempt + counted, _MOST_ATTEMPTS)
    if isinstance(why, Dead):
        ours["ow-dead"] = True
    ours["ow-reason"] = why.reason.value
    ours["ow-detail"] = fit(why.detail, MAX_DETAIL)
    ours["ow-failed-at"] = format_time(now_us)
    ours["ow-worker"] = fit(worker, MAX_SHORT)
    if history.allow_terminal and isinstance(why, Retry):  # it holds for this replay, and ends with it
        ours["ow-allow-terminal"] = True
    if settlement.batch_id:
        ours["ow-batch-id"] = fit(settlement.batch_id, MAX_SHORT)
    theirs = {name: value for name, value in delivery.properties.headers.items() if name not in OURS}
    kept, left, dropped = split_headers(theirs)
    properties, unfit = safe_properties(delivery.properties)
    left_out = {**unfit, **{f"headers.{name}": value for name, value in left.items()}}
    original, too_long = shown_as_json(left_out, earlier=history.original)
    if original:
        ours["ow-original"] = original
    if lost := [*history.dropped, *dropped, *too_long]:
        ours["ow-dropped"] = named(lost)
    return Copy(delivery.body, replace(properties, headers=kept | ours))


def _version_headers(settlement: Settlement, history: History) -> dict[str, Any]:
    """What fixes the version. An event that could not be decoded has none; its first sight is kept for its replay."""
    update, delivery = settlement.update, settlement.delivery
    if update is not None:
        version = update.version
        headers = {
            "ow-first-seen": format_time(version.first_seen_us),
            "ow-occurred-at": format_time(version.time_us),
            "ow-message-id": fit(version.message_id, MAX_SHORT),
            "ow-order-id": update.order_id,
        }
        return headers if version.sequence == -1 else {**headers, "ow-sequence": version.sequence}
    seen = history.first_seen_us if history.first_seen_us is not None else delivery.arrived_us
    earlier = {
        "ow-occurred-at": None if history.occurred_us is None else format_time(history.occurred_us),
        "ow-sequence": history.sequence,
        "ow-order-id": history.order_id,
    }
    return {
        "ow-first-seen": format_time(seen),
        "ow-message-id": message_id_of(delivery.properties, history),
        **{name: value for name, value in earlier.items() if value is not None},
    }


def _place_headers(delivery: Delivery, history: History) -> dict[str, Any]:
    """Where the producer sent it, the replay that it is part of, and how it failed before."""
    exchange = history.exchange if history.exchange is not None else _short(delivery.exchange)
    key = history.routing_key if history.routing_key is not None else _short(delivery.routing_key)
    place: dict[str, Any] = {"ow-exchange": exchange, "ow-routing-key": key}
    if history.replay_id is not None:
        place["ow-replay-id"] = history.replay_id
        if history.replay_place is not None:
            place["ow-replay-place"] = history.replay_place
    if failures := dump_failures(history.failures):
        place["ow-failures"] = failures
    return place


def _short(text: object) -> str:
    return fit(text, MAX_SHORT) if isinstance(text, str) else ""


def _is_plain(value: object) -> bool:
    size = encoded_size(value)
    return isinstance(value, int | str) and size is not None and size <= 5 + MAX_DETAIL


def _integer(headers: Mapping[str, Any], name: str) -> int | None:
    value = headers.get(name)
    return value if type(value) is int and INT64_MIN <= value <= INT64_MAX else None


def _text(headers: Mapping[str, Any], name: str, *, limit: int = MAX_SHORT) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) and fit(value, limit) == value else None


def _time(headers: Mapping[str, Any], name: str) -> int | None:
    value = headers.get(name)
    return parse_time(value) if isinstance(value, str) else None


def _broker_made(deaths: object) -> bool:
    """Whether the broker dead-lettered it. What it does to copies in a retry queue is to let them expire, and no copy
    takes an ``x-death`` along, so any other entry is from the work queue."""
    found = deaths if isinstance(deaths, list) else []
    return any(isinstance(each, Mapping) and each.get("reason", "expired") != "expired" for each in found)


def _json(value: object) -> Any:
    if not isinstance(value, str) or len(value) > MAX_OURS:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _left_out(value: object) -> Mapping[str, Any]:
    found = _json(value)
    return found if isinstance(found, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    found = _json(value)
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()
