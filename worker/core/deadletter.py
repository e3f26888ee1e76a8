"""What a dead letter says of itself, whoever made it, and how many there are of each kind.

Ours carry their reason in our headers and no ``x-`` header. A message that the broker dead-lettered by itself (over its
delivery limit, for example) has the broker's ``x-death``, newest entry first; what our headers still say of an earlier
retry is then not why it is here. Anybody can write either, so everything is checked and bounded.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from worker.core.headers import History, message_id_of, read_history
from worker.core.history import DAY_US, HOUR_US, GroupBy
from worker.core.model import Delivery
from worker.core.tablejson import to_json
from worker.core.times import micros_of

UNKNOWN: Final = "unknown"
OTHERS: Final = "(others)"
MOST_GROUPS: Final = 100
_REASON: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ORDER_ID: Final = re.compile(r"[0-9]{1,19}")
_COUNTS: Final = ("x-delivery-count", "x-acquired-count")
"""What the broker counts anew at each look."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DeadLetter:
    """One message of the dead-letter queue. ``message_id`` and ``routing_key`` are the producer's, empty for none.

    ``failed_us`` is None where nobody says when. ``deliveries`` counts how often the broker handed it over before.
    """

    delivery: Delivery
    history: History
    deaths: tuple[Mapping[str, Any], ...]
    reason: str
    detail: str
    failed_us: int | None
    message_id: str
    routing_key: str
    order_id: int | None
    deliveries: int


def read_dead_letter(delivery: Delivery) -> DeadLetter:
    """What this message says; never raises."""
    headers = delivery.properties.headers
    history = read_history(headers)
    deaths = _deaths(headers.get("x-death"))
    count = headers.get("x-delivery-count")
    key = history.routing_key if history.routing_key is not None else _key(deaths) or delivery.routing_key
    if deaths:
        reason, failed_us = f"broker:{_plain(deaths[0].get('reason'))}", _moment(deaths[0].get("time"))
        detail = f"dead-lettered by the broker from the queue {_plain(deaths[0].get('queue'))}"
    else:
        reason, failed_us, detail = _plain(history.reason), history.failed_us, history.detail or ""
    return DeadLetter(
        delivery=delivery,
        history=history,
        deaths=deaths,
        reason=reason,
        detail=detail,
        failed_us=failed_us,
        message_id=message_id_of(delivery.properties, history),
        routing_key=key,
        order_id=history.order_id if history.order_id is not None else _order_id(key),
        deliveries=count if type(count) is int and count >= 0 else 0,
    )


def letter_key(letter: DeadLetter) -> str:
    """What the index knows this letter by: the message id in the queue, which is unique for the copies we make.

    Where there is none: a digest of body and headers that is the same at every look. Letters that are alike in all of
    that share it.
    """
    delivery = letter.delivery
    if message_id := delivery.properties.message_id:
        return message_id
    headers = {name: value for name, value in delivery.properties.headers.items() if name not in _COUNTS}
    shown = json.dumps(to_json(headers), sort_keys=True).encode()
    return "sha256:" + hashlib.sha256(shown + b"\n" + delivery.body).hexdigest()


def _deaths(value: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list) else ()


def _key(deaths: tuple[Mapping[str, Any], ...]) -> str:
    """The routing key of the first death: the producer's, unless the message was retried before."""
    keys = deaths[-1].get("routing-keys") if deaths else None
    return keys[0] if isinstance(keys, list) and keys and isinstance(keys[0], str) else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) and _REASON.fullmatch(value) else UNKNOWN


def _moment(value: object) -> int | None:
    return micros_of(value) if isinstance(value, datetime) else None


def _order_id(key: str) -> int | None:
    """Producers publish with the order id as routing key; that is all there is of an event that cannot be read."""
    return int(key) if _ORDER_ID.fullmatch(key) else None


@dataclass(slots=True, frozen=True, kw_only=True)
class Wanted:
    """Which dead letters to show; what is None does not matter."""

    message_id: str | None = None
    order_id: int | None = None
    reason: str | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """A message id may be the producer's or that of the copy."""
        ids = (letter.message_id, letter.delivery.properties.message_id)
        return (
            (self.message_id is None or self.message_id in ids)
            and (self.order_id is None or self.order_id == letter.order_id)
            and (self.reason is None or self.reason == letter.reason)
        )

    @property
    def anything(self) -> bool:
        """Every dead letter will do."""
        return self.message_id is None and self.order_id is None and self.reason is None


@dataclass(slots=True, frozen=True, kw_only=True)
class Group:
    """The dead letters of one reason, order or day. The times are None where no letter of it has one; ``example`` is
    the detail of the newest."""

    key: str | int | None
    count: int = 0
    oldest_us: int | None = None
    newest_us: int | None = None
    example: str = ""

    def joined_by(self, letter: DeadLetter) -> "Group":
        """The group with one letter more."""
        joined = replace(self, count=self.count + 1)
        failed_us = letter.failed_us
        if failed_us is None:
            return joined if self.example else replace(joined, example=letter.detail)
        if self.oldest_us is None or failed_us < self.oldest_us:
            joined = replace(joined, oldest_us=failed_us)
        if self.newest_us is None or failed_us >= self.newest_us:
            joined = replace(joined, newest_us=failed_us, example=letter.detail)
        return joined


class Groups:
    """Counts by reason, order or day. Bounded: reasons are headers, and headers may say anything."""

    def __init__(self, by: GroupBy = GroupBy.REASON) -> None:
        self._by = by
        self._groups: dict[str | int | None, Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count one letter."""
        key = self._key(letter)
        if key not in self._groups and len(self._groups) >= MOST_GROUPS:
            key = OTHERS
        self._groups[key] = self._groups.get(key, Group(key=key)).joined_by(letter)

    def by_count(self) -> list[Group]:
        """The most frequent first, then by name."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, str(group.key)))

    def _key(self, letter: DeadLetter) -> str | int | None:
        match self._by:
            case GroupBy.REASON:
                return letter.reason
            case GroupBy.DETAIL:
                return letter.detail
            case GroupBy.ORDER:
                return letter.order_id
            case GroupBy.DAY:
                return None if letter.failed_us is None else letter.failed_us // DAY_US
            case GroupBy.HOUR:
                return None if letter.failed_us is None else letter.failed_us // HOUR_US
