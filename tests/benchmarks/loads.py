"""The events that the benchmarks work on, and the states that must come out.

Every event of an order has a number, is stamped later than those before it, and sets the status to a number of its
own. So whatever order events arrive in it is known which value has to stay, and which event a change was made for.
"""

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from worker.core.model import Scalar
from worker.core.times import format_time

FIRST_ORDER = 46_000_000
FIRST_EVENT_US = 1_735_689_600_000_000  # 2025-01-01: only the future is refused
FIRST_STATUS = 1_000
"""Above all statuses that mean something: none of them is terminal, and each event of an order has another."""
CARRIERS = ("Royal Mail", "DPD", "Evri", "UPS", "FedEx")
METHODS = ("Tracked 24", "Tracked 48", "Next Day", "Economy", "Signed For")
ZIPF_ORDERS = 10_000
ZIPF_EXPONENT = 1.1


@dataclass(slots=True, frozen=True)
class Event:
    """One event: ``number`` is its place in its order's history, from 0."""

    order_id: int
    number: int

    @property
    def fields(self) -> dict[str, Scalar]:
        """What it wants the order to say."""
        return {
            "status": FIRST_STATUS + self.number,
            "shipping_carrier": CARRIERS[(self.order_id + self.number) % len(CARRIERS)],
            "shipping_method": METHODS[(self.order_id // 5 + self.number) % len(METHODS)],
        }

    @property
    def body(self) -> bytes:
        """As a production line publishes it: about 180 bytes."""
        time_us = FIRST_EVENT_US + self.order_id % 1000 * 1_000_000 + self.number * 1_500_123
        fields = self.fields
        return (
            f'{{"id": {self.order_id}, "status": {fields["status"]}, '
            f'"shipping_carrier": "{fields["shipping_carrier"]}", "shipping_method": "{fields["shipping_method"]}", '
            f'"occurred_at": "{format_time(time_us)}", "source": "production-line-{self.order_id % 12:02}"}}'
        ).encode()


class Load:
    """Events in the order in which they are published; two numbers for each, so that there may be millions."""

    def __init__(self, name: str, orders: "array[int]", numbers: "array[int]") -> None:
        self.name = name
        self._orders, self._numbers = orders, numbers

    @classmethod
    def of(cls, name: str, orders: "array[int]") -> "Load":
        """The events of each order in sequence, orders mixed as given."""
        so_far: Counter[int] = Counter()
        numbers = array("q")
        for order_id in orders:
            numbers.append(so_far[order_id])
            so_far[order_id] += 1
        return cls(name, orders, numbers)

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[Event]:
        return map(Event, self._orders, self._numbers)

    def first(self, count: int) -> "Load":
        """The same, but only so many events of it."""
        return Load(self.name, self._orders[:count], self._numbers[:count])

    def shuffled(self, seed: int) -> "Load":
        """The same events, in any order: older ones come after newer ones of their order."""
        places = list(range(len(self)))
        random.Random(seed).shuffle(places)
        orders, numbers = self._orders, self._numbers
        return Load(
            f"{self.name}, any order",
            array("q", [orders[place] for place in places]),
            array("q", [numbers[place] for place in places]),
        )

    @cached_property
    def newest(self) -> Mapping[int, int]:
        """For each order the number of its newest event."""
        newest: dict[int, int] = {}
        for order_id, number in zip(self._orders, self._numbers, strict=True):
            newest[order_id] = max(number, newest.get(order_id, 0))
        return newest

    def is_right(self, order: Mapping[str, Any]) -> bool:
        """Whether this order says what its newest event wants; fields that nobody sent do not matter."""
        number = self.newest.get(order["id"])
        return number is not None and Event(order["id"], number).fields.items() <= order.items()


def even(name: str, *, orders: int, per_order: int, seed: int) -> Load:
    """So many events for each order, orders mixed at random."""
    ids = [FIRST_ORDER + number for number in range(orders) for _ in range(per_order)]
    random.Random(seed).shuffle(ids)
    return Load.of(name, array("q", ids))


def zipf(name: str, *, events: int, seed: int, orders: int = ZIPF_ORDERS) -> Load:
    """A few orders have most of the events: that with rank ``k`` has a share of k to the power of -1.1."""
    ranks = range(1, orders + 1)
    totals = list(itertools.accumulate(rank**-ZIPF_EXPONENT for rank in ranks))
    ids = random.Random(seed).choices(range(FIRST_ORDER, FIRST_ORDER + orders), cum_weights=totals, k=events)
    return Load.of(name, array("q", ids))


def load_named(letter: str, events: int, seed: int = 1) -> Load:
    """A: every event has an order of its own. B: ten events for each order. C: Zipf over 10,000 orders."""
    match letter:
        case "A":
            return even("A", orders=events, per_order=1, seed=seed)
        case "B":
            return even("B", orders=max(1, events // 10), per_order=10, seed=seed)
        case "C":
            return zipf("C", events=events, seed=seed)
    raise ValueError(f"no load {letter!r}")
