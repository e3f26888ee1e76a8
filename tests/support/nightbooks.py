"""What a test knows of every event of a bad night: when it died, what a replay of it does, what has to be in the end.

Each event of an order has a version, counted from 1, and each of its values tells that version; so whatever the
platform shows is known to be of one event. Nothing here asks the worker or the journal: these books judge both.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.orderbooks import BASE_US, FIELDS, names_of
from worker.core.forecast import Kind
from worker.core.model import Reason
from worker.core.terminal import STATUS
from worker.core.times import format_time
from worker.simulator.orders import Change, Values

OVER = 64
"""The status of an order that is dispatched."""
Problems = dict[str, list[str]]
"""By kind, each naming orders or messages; empty if all is well."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Event:
    """One event. ``reason`` is what it is dead-lettered for in the night, None for one that is applied.

    Without ``stamped`` nothing in it says when it happened: whoever comes first is the oldest.
    """

    order_id: int
    version: int
    fields: Mapping[str, Any]
    reason: Reason | None = None
    stamped: bool = True

    @property
    def message_id(self) -> str:
        """Known to everybody who ever has it in hand."""
        return f"{self.order_id:05}-{self.version:05}"

    @property
    def body(self) -> bytes:
        """As it is published."""
        stamp = {"occurred_at": format_time(BASE_US + 1000 * self.version)} if self.stamped else {}
        return json.dumps({"id": self.order_id, **self.fields, **stamp}).encode()


@dataclass(slots=True)
class Books:
    """All events, by message id. ``freed`` are orders that a person lets leave their terminal status."""

    events: dict[str, Event] = field(default_factory=dict)
    freed: set[int] = field(default_factory=set)
    _orders: dict[int, list[Event]] = field(default_factory=dict)
    _versions: dict[tuple[int, str, object], int] = field(default_factory=dict)

    # -- making them --------------------------------------------------------------------------------------------------

    def make(
        self,
        order_id: int,
        names: Collection[str] | None = None,
        *,
        reason: Reason | None = None,
        over: bool = False,
        stamped: bool = True,
    ) -> Event:
        """The next event of this order. ``names`` are its fields (usual: they follow from the version); ``over`` makes
        its status the terminal one."""
        book = self._orders.setdefault(order_id, [])
        version = len(book) + 1
        values: dict[str, Any] = {
            "status": OVER if over else 1000 + version,
            "shipping_carrier": f"carrier {version}",
            "shipping_method": f"method {version}",
        }
        fields = {name: values[name] for name in names or names_of(version)}
        event = Event(order_id=order_id, version=version, fields=fields, reason=reason, stamped=stamped)
        if reason is Reason.INVALID_EVENT:
            event = Event(order_id=order_id, version=version, fields={"status": "dispatched"}, reason=reason)
        self._note(event)
        return event

    def _note(self, event: Event) -> None:
        self._orders[event.order_id].append(event)
        self.events[event.message_id] = event
        if event.reason is not Reason.INVALID_EVENT:
            self._versions |= {(event.order_id, *pair): event.version for pair in event.fields.items()}

    # -- what has to be -----------------------------------------------------------------------------------------------

    @property
    def dead(self) -> list[Event]:
        """Those that the night made dead letters."""
        return [event for event in self.events.values() if event.reason is not None]

    @property
    def by_reason(self) -> Counter[str]:
        """How many dead letters the night made."""
        return Counter(event.reason.value for event in self.events.values() if event.reason is not None)

    def forecast(self, event: Event) -> Kind:
        """What a replay of this dead letter does in the morning, unless a person says more."""
        if event.reason is Reason.INVALID_EVENT:
            return Kind.RETURNS
        healthy = [each for each in self._orders[event.order_id] if each.reason is None]
        latest = _latest(healthy)
        if all(latest[name].version > event.version for name in event.fields):
            return Kind.SUPERSEDED
        barred = event.reason is Reason.TERMINAL_ORDER and latest[STATUS].version < event.version
        return Kind.RETURNS if barred else Kind.APPLY

    def plan(self, *reasons: Reason) -> Counter[tuple[str, str]]:
        """How many of each reason and kind a plan has to tell of."""
        return Counter(
            (event.reason.value, self.forecast(event).value)
            for event in self.dead
            if event.reason in (reasons or Reason) and event.reason is not None
        )

    def accepted(self, event: Event) -> bool:
        """Whether the platform takes it, in the end."""
        if event.reason is None or event.order_id in self.freed:
            return event.reason is not Reason.INVALID_EVENT
        return self.forecast(event) is Kind.APPLY

    def greatest(self, order_id: int, *, healthy: bool = False) -> dict[str, Any]:
        """What the platform has to show of an order; ``healthy``: as long as nothing was replayed."""
        book = self._orders[order_id]
        events = [each for each in book if (each.reason is None if healthy else self.accepted(each))]
        return {name: event.fields[name] for name, event in _latest(events).items()}

    def wrong(self, orders: Mapping[int, Values], *, healthy: bool = False) -> list[str]:
        """The orders that show something else than their greatest versions."""
        return [
            f"order {order_id} shows {name} {getattr(shown, name)!r}, not {value!r}"
            for order_id, shown in orders.items()
            for name, value in self.greatest(order_id, healthy=healthy).items()
            if getattr(shown, name) != value
        ]

    @property
    def order_ids(self) -> Sequence[int]:
        """All that have events."""
        return list(self._orders)

    # -- the platform's history ---------------------------------------------------------------------------------------

    def backwards(self, history: Sequence[Change], since: int = 0) -> list[str]:
        """The changes from number ``since`` on that put an older value over a newer one."""
        latest: dict[tuple[int, str], int] = {}
        found: list[str] = []
        for number, (order_id, name, version, _) in self._writes(history):
            before = latest.get((order_id, name), 0)
            if version < before and number >= since:
                found.append(f"order {order_id} {name} went from version {before} to {version}")
            latest[order_id, name] = version
        return found

    def repeated(self, history: Sequence[Change], since: int = 0) -> list[str]:
        """The values that came to an order twice, another one in between: the second time had an effect."""
        effects: Counter[tuple[int, str, int]] = Counter()
        for number, (order_id, name, version, changed) in self._writes(history):
            effects[order_id, name, version] += changed and number >= since
        return [
            f"order {order_id} {name} version {version} had an effect {times} times"
            for (order_id, name, version), times in effects.items()
            if times > 1
        ]

    def _writes(self, history: Sequence[Change]) -> Iterator[tuple[int, tuple[int, str, int, bool]]]:
        for number, change in enumerate(history):
            for name in change.sent:
                before, after = getattr(change.before, name), getattr(change.after, name)
                yield (
                    number,
                    (change.order_id, name, self._versions.get((change.order_id, name, after), 0), before != after),
                )


@dataclass(slots=True)
class Ends:
    """Where each dead letter was found in the end: every place counts, so one with two places is seen."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, place: str, message_ids: Iterable[str]) -> None:
        """These were found there."""
        for message_id in message_ids:
            self.places.setdefault(message_id, []).append(place)

    def note_replay(self, status: Mapping[str, Any]) -> None:
        """What ``dead replay --status ID --json`` says; what was left is found in the queue."""
        for message in status["messages"]:
            outcome = message["outcome"]
            if message["state"] == "superseded" or (outcome and outcome["disposition"] == "ack"):
                self.note(outcome["reason"], [message["message_id"]])

    def problems(self, books: Books, wanted: Mapping[str, Collection[str]]) -> Problems:
        """``wanted``: for each dead letter the places where it may be, exactly one of which it has to be at."""
        found: Problems = {}
        for event in books.dead:
            places = self.places.get(event.message_id, [])
            if len(places) != 1 or places[0] not in wanted[event.message_id]:
                told = f"{event.message_id} ({event.reason}) is {places or 'nowhere'}"
                found.setdefault("not in one end state", []).append(told)
        if foreign := self.places.keys() - {event.message_id for event in books.dead}:
            found["not one of ours"] = sorted(foreign)
        return found

    @property
    def figures(self) -> Counter[str]:
        """How many are where."""
        return Counter(place for places in self.places.values() for place in places)


def _latest(events: Iterable[Event]) -> dict[str, Event]:
    """For each field the event with its greatest version."""
    ascending = sorted(events, key=lambda event: event.version)
    return {name: event for event in ascending for name in FIELDS if name in event.fields}
