"""What must be in the end, worked out from the events alone.

Written without a line of the worker's own rules (``worker.core``), so that a mistake there cannot hide here: per order
and field the value of the event that happened last counts, among those that can be accepted; nothing else may change.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from worker.demo.load import Event, Fate

UNTOUCHED: Final[Mapping[str, object]] = {"status": 1, "shipping_carrier": "", "shipping_method": ""}
"""An order that nobody changed."""

State = Mapping[str, object]


def final_states(events: Iterable[Event]) -> dict[int, dict[str, object]]:
    """Order id -> the values that the platform has to show, for every order that any event names."""
    states: dict[int, dict[str, object]] = {}
    newest: dict[tuple[int, str], tuple[int, int]] = {}
    for event in events:
        state = states.setdefault(event.order_id, {**UNTOUCHED})
        if event.fate is not Fate.ACCEPTED:
            continue
        for name, value in event.fields.items():
            if event.when > newest.get((event.order_id, name), (-1, -1)):
                newest[event.order_id, name] = event.when
                state[name] = value
    return states


def wrong_orders(expected: Mapping[int, State], shown: Mapping[int, State]) -> dict[int, str]:
    """Order id -> what differs, for every order that is not as it must be; orders nobody named must not exist."""
    wrong = {}
    for order_id, state in expected.items():
        found = shown.get(order_id, UNTOUCHED)
        differing = [name for name in UNTOUCHED if found.get(name) != state[name]]
        if differing:
            wrong[order_id] = ", ".join(f"{name} is {found.get(name)!r}, not {state[name]!r}" for name in differing)
    return wrong | dict.fromkeys(shown.keys() - expected.keys(), "was never published")


def expected_dead(events: Iterable[Event]) -> Counter[tuple[str, str]]:
    """(fate, message id) of every event that has to be dead-lettered, as often as it was published."""
    return Counter((event.fate.value, event.message_id) for event in events if event.fate is not Fate.ACCEPTED)
