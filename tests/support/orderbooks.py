"""Every event of a run as a few bits: which versions of an order were made, applied, dead-lettered, queued.

An event is known by its order and its version, and which fields it has follows from the version alone, so a run of
500,000 events costs some bytes per event: one bit in each of the masks of its order (bit ``version``).
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from worker.core.times import format_time

BASE_US = 1_790_000_000_000_000
"""Events happened after this moment (September 2026), one millisecond for each of their version."""
FIRST_STATUS = 1000
"""Above all statuses that mean something: the status of version 7 is 1007."""
REFUSED = "no such method"
"""The shipping method of events that the platform is to refuse: ``Options(rejected_values=REJECTED)``."""
REJECTED = {"shipping_method": {REFUSED: "Invalid shipping method"}}
INVALID = {"status": "dispatched", "colour": "green"}
"""What invalid events set: a wrong type, and a field that no order has."""
WRITERS_KEPT = 4
"""More than ever live at a time, so whoever is forgotten is dead."""

FIELDS = ("status", "shipping_carrier", "shipping_method")
_PATTERNS: tuple[tuple[str, ...], ...] = (FIELDS[:1], FIELDS[:2], FIELDS[1:], FIELDS[2:], FIELDS)
"""The fields of version n are those at n modulo 5, so that what is merged away differs from event to event."""


class Key(NamedTuple):
    """One event: the version counts from 1 within its order."""

    order_id: int
    version: int


def fields_of(version: int, *, refused: bool = False) -> dict[str, Any]:
    """What the event of this version sets; every value tells the version."""
    if refused:
        return {"shipping_method": REFUSED}
    values = {
        "status": FIRST_STATUS + version,
        "shipping_carrier": f"carrier {version}",
        "shipping_method": f"method {version}",
    }
    return {name: values[name] for name in names_of(version)}


def names_of(version: int) -> tuple[str, ...]:
    """The fields that the event of this version has, unless the platform is to refuse it."""
    return _PATTERNS[version % len(_PATTERNS)]


def version_in(value: object) -> int | None:
    """The version that a value of the platform tells: 0 for a new order, None for a value that no event had."""
    if isinstance(value, int):
        return value - FIRST_STATUS if value > FIRST_STATUS else 0 if value == 1 else None
    text = str(value or "").partition(" ")[2]
    return int(text) if text.isdigit() else None if value else 0


def body_of(key: Key, *, refused: bool = False, invalid: bool = False) -> bytes:
    """The body as it is published; the same call gives the same bytes. ``invalid``: no event by the contract."""
    event = {
        "id": key.order_id,
        **(INVALID if invalid else fields_of(key.version, refused=refused)),
        "occurred_at": format_time(BASE_US + 1000 * key.version),
        "sequence": key.version,
    }
    return json.dumps(event).encode()


def key_in(body: bytes) -> Key | None:
    """The event that a body is of, None for one that we never made."""
    try:
        event = json.loads(body)
        return Key(event["id"], event["sequence"])
    except (ValueError, TypeError, KeyError):
        return None


def versions_in(mask: int) -> Iterator[int]:
    """The versions of a mask, the greatest first."""
    while mask:
        version = mask.bit_length() - 1
        yield version
        mask ^= 1 << version


@dataclass(slots=True)
class OrderBook:
    """One order: how many versions were made, and masks of what is known of them.

    ``unknown``: the publish failed, the event may or may not be there. ``refused``: the platform is to refuse it, but a
    later value of its field may supersede it before. ``invalid``: it is no event, and has to be dead-lettered.
    ``latest`` and ``greatest``: for each field the version applied last, and the greatest one that ever was.
    ``by_writer``: for each field the greatest version that each of the latest writers applied; the last one wrote last.
    ``relapsed``: how often a writer replaced what it had written itself by something older.
    """

    made: int = 0
    unknown: int = 0
    refused: int = 0
    invalid: int = 0
    applied: int = 0
    dead: int = 0
    queued: int = 0
    latest: dict[str, int] = field(default_factory=dict)
    greatest: dict[str, int] = field(default_factory=dict)
    stepped_back: int = 0
    relapsed: int = 0
    by_writer: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def resident_bytes(self) -> int:
        """What the masks and tables of this order take in memory."""
        masks = (self.unknown, self.refused, self.invalid, self.applied, self.dead, self.queued)
        tables = (self.latest, self.greatest, self.by_writer, *self.by_writer.values())
        return sum(map(sys.getsizeof, (self, *masks, *tables)))

    @property
    def all(self) -> int:
        """Mask of every version made."""
        return (1 << (self.made + 1)) - 2

    @property
    def due(self) -> int:
        """Mask of what has to be applied or superseded: it is nowhere else, and it was certainly published."""
        return self.all & ~self.dead & ~self.queued & ~(self.unknown & ~self.applied)

    def note_applied(self, sent: tuple[str, ...], values: Mapping[str, object], writer: str = "") -> bool:
        """The platform wrote these fields for a writer; False if one of the values is of no event of this order."""
        for name in sent:
            version = version_in(values[name])
            if version is None or not 0 < version <= self.made:
                return False
            self.stepped_back += version < self.latest.get(name, 0)
            self.latest[name] = version
            self.greatest[name] = max(version, self.greatest.get(name, 0))
            self.applied |= 1 << version
            self._note_writer(name, version, writer)
        return True

    def _note_writer(self, name: str, version: int, writer: str) -> None:
        writers = self.by_writer.setdefault(name, {})
        before = writers.pop(writer, 0)
        self.relapsed += version < before
        writers[writer] = max(version, before)
        if len(writers) > WRITERS_KEPT:
            del writers[next(iter(writers))]

    def names(self, version: int) -> tuple[str, ...]:
        """The fields that this event has."""
        return tuple(fields_of(version, refused=bool(self.refused >> version & 1)))

    @property
    def lost(self) -> int:
        """Mask of the events that are due and of which the platform never had a field at their version or later."""
        floor = min(self.greatest.get(name, 0) for name in FIELDS)
        mask = self.due & self.invalid
        for version in versions_in(self.due & ~self.invalid):
            if version <= floor:
                break
            if any(version > self.greatest.get(name, 0) for name in self.names(version)):
                mask |= 1 << version
        return mask

    @property
    def backwards(self) -> list[str]:
        """The fields that show an older version than they once did, with nothing queued that would mend it."""
        newest = self.queued.bit_length() - 1
        return [name for name, version in self.latest.items() if max(version, newest) < self.greatest[name]]
