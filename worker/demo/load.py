"""The events of the demo, from one seed: what is published, in which order, and what has to become of each.

Most events are good and change one to three fields of one order. Among them are events that arrive after a newer one
of the same order, events that are published twice, ties (equal times, told apart by ``sequence``), events that cannot
be understood (``poison.py``), and events that the platform will not take: two orders that it rejects altogether, and
one carrier that it does not know. One order is busy a few times before it works.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from operator import itemgetter
from typing import Final

from worker.core.model import Scalar
from worker.core.times import format_time
from worker.demo.poison import POISON

SEED: Final = 46140199
FEWEST: Final = 200
"""Events; with fewer there is no room for one of each kind."""

SEED_ORDER: Final = 46140199
SEED_FIELDS: Final[Mapping[str, Scalar]] = {
    "shipping_carrier": "Royal Mail",
    "shipping_method": "Tracked 24",
    "status": 4,
}
"""The example of the platform's own documentation."""

UNKNOWN_CARRIER: Final = "Pigeon Post"
BUSY_TIMES: Final = 4

_SERVICES: Final = {
    "Royal Mail": ("Tracked 24", "Tracked 48", "Special Delivery"),
    "DPD": ("Next Day", "Two Day"),
    "Evri": ("Standard", "Next Day"),
}
# From "Sent to Supplier" to "Dispatched", and again: a terminal status would be the end of the order.
_LIFE: Final = (512, 513, 4, 32, 4, 256, 4, 515, 8)
_SPAN_US: Final = 60_000_000  # all events happened within the last minute


class Fate(StrEnum):
    """What has to become of an event."""

    ACCEPTED = "accepted"
    INVALID = "invalid-event"
    REJECTED = "rejected"


@dataclass(slots=True, frozen=True, kw_only=True)
class Event:
    """One message to publish. ``when`` orders the events of an order: microseconds since 1970, then sequence."""

    message_id: str
    body: bytes
    order_id: int
    fate: Fate = Fate.ACCEPTED
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    when: tuple[int, int] = (0, -1)


@dataclass(slots=True, frozen=True, kw_only=True)
class Load:
    """Everything that is published, in that order, and what the platform has to be told beforehand."""

    events: Sequence[Event]
    orders: Sequence[int]
    rejected_orders: Mapping[int, str]
    rejected_values: Mapping[str, Mapping[str, str]]
    busy_orders: Mapping[int, int]
    late: int
    repeated: int


def make_load(count: int, *, now_us: int, seed: int = SEED) -> Load:
    """``count`` events for a tenth as many orders, stamped within the minute before ``now_us``."""
    if count < FEWEST:
        raise ValueError(f"at least {FEWEST} events")
    maker = _Maker(count, now_us=now_us, chance=random.Random(seed))  # noqa: S311 - repeatable data, no secret
    events = maker.events()
    return Load(
        events=events,
        orders=maker.orders,
        rejected_orders=dict.fromkeys(maker.rejected, "Order was archived"),
        rejected_values={"shipping_carrier": {UNKNOWN_CARRIER: "Unknown shipping carrier"}},
        busy_orders={maker.busy: BUSY_TIMES},
        late=_count_late(events),
        repeated=maker.repeats,
    )


class _Maker:
    def __init__(self, count: int, *, now_us: int, chance: random.Random) -> None:
        self._chance = chance
        self._now_us = now_us
        self.poisons = max(len(POISON), count // 125)
        self.repeats = count // 50
        self._good = count - self.poisons - self.repeats - 2  # the example, and the one with the unknown carrier
        others = chance.sample(range(46_200_000, 47_000_000), max(9, count // 10 - 1))
        self.orders = (SEED_ORDER, *others)
        self.rejected = self.orders[1:3]
        self._misled, self.busy = self.orders[3:5]
        self._steps = {order_id: cycle(_LIFE) for order_id in self.orders}
        self._latest: dict[int, tuple[int, int]] = {}

    def events(self) -> list[Event]:
        """In the order of publishing."""
        good = list(self._in_order_of_time())
        placed: list[tuple[float, Event]] = [(position + self._delay(), event) for position, event in enumerate(good)]
        # The example is the newest of its order, and is published in the middle: older ones come after it.
        placed.append((self._good / 3, self._newest(SEED_ORDER, SEED_FIELDS)))
        placed.append((self._good / 2, self._newest(self._misled, {"shipping_carrier": UNKNOWN_CARRIER})))
        for place, event in self._chance.sample(placed, self.repeats):
            placed.append((place + self._chance.randint(self._good // 20, self._good // 4), event))
        placed += [(self._chance.uniform(0, self._good), event) for event in self._poison()]
        return [event for _, event in sorted(placed, key=itemgetter(0))]

    def _delay(self) -> int:
        """One event in eight is held up on its way."""
        return self._chance.randint(2, max(20, self._good // 10)) if self._chance.random() < 1 / 8 else 0

    def _in_order_of_time(self) -> Iterator[Event]:
        busy_lines = self.orders[-max(1, len(self.orders) // 20) :]
        for number in range(self._good):
            if number < len(self.orders):
                order_id = self.orders[number]
            else:
                order_id = self._chance.choice(busy_lines if self._chance.random() < 1 / 5 else self.orders)
            time_us = self._now_us - _SPAN_US + number * (_SPAN_US - 1_000_000) // self._good
            yield self._event(f"event-{number:06}", order_id, self._change(order_id), self._when(order_id, time_us))

    def _when(self, order_id: int, time_us: int) -> tuple[int, int]:
        """Mostly the time alone; now and then the same time as the one before, with a greater sequence."""
        before = self._latest.get(order_id)
        tie = before is not None and self._chance.random() < 1 / 30
        self._latest[order_id] = when = (before[0], before[1] + 1) if before and tie else (time_us, -1)
        return when

    def _change(self, order_id: int) -> dict[str, Scalar]:
        carrier = self._chance.choice(list(_SERVICES))
        shipping = {"shipping_carrier": carrier, "shipping_method": self._chance.choice(_SERVICES[carrier])}
        match self._chance.randrange(4):
            case 0:
                return {**shipping}
            case 1:
                return {**shipping, "status": next(self._steps[order_id])}
            case _:
                return {"status": next(self._steps[order_id])}

    def _newest(self, order_id: int, fields: Mapping[str, Scalar]) -> Event:
        fate = None if fields is SEED_FIELDS else Fate.REJECTED
        name = "the-example" if fields is SEED_FIELDS else "unknown-carrier"
        return self._event(name, order_id, fields, (self._now_us - 1_000_000, -1), fate=fate)

    def _event(
        self,
        name: str,
        order_id: int,
        fields: Mapping[str, Scalar],
        when: tuple[int, int],
        *,
        fate: Fate | None = None,
    ) -> Event:
        content = {"id": order_id, **fields, "occurred_at": format_time(when[0])}
        if when[1] != -1:
            content["sequence"] = when[1]
        return Event(
            message_id=name,
            body=json.dumps(content).encode(),
            order_id=order_id,
            fate=fate or (Fate.REJECTED if order_id in self.rejected else Fate.ACCEPTED),
            fields=fields,
            when=when,
        )

    def _poison(self) -> Iterator[Event]:
        """Each kind in turn, aimed at orders that are well: nothing of it may reach them."""
        for number, (kind, make) in zip(range(self.poisons), cycle(POISON.items()), strict=False):
            order_id = self._chance.choice(self.orders[5:])
            name = f"poison-{number:03}-{kind.replace(' ', '-')}"
            yield Event(message_id=name, body=make(order_id), order_id=order_id, fate=Fate.INVALID)


def _count_late(events: Sequence[Event]) -> int:
    """Events that are published behind a newer one of their order (repeats are counted elsewhere)."""
    newest: dict[int, tuple[int, int]] = {}
    seen: set[str] = set()
    late = 0
    for event in events:
        if event.fate is Fate.INVALID or event.message_id in seen:
            continue
        seen.add(event.message_id)
        late += event.when < newest.get(event.order_id, event.when)
        newest[event.order_id] = max(event.when, newest.get(event.order_id, event.when))
    return late
