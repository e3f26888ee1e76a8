"""Whom the errors of a reply point at, and what of their texts people may read.

An error path that names a position is only a hint: the platform does not say whether it counts in the request or in the
reply, or whether it is an order id. So blame never condemns anybody; who is blamed is sent alone next.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from worker.core.excerpt import excerpt
from worker.core.faults import Fault
from worker.core.model import Fields

LONGEST_DETAIL = 300
MASKED_FROM_CHARS = 3


def blamed_by(
    faults: Sequence[Fault], items: Sequence[Any], requested: Mapping[int, Fields], shown: Collection[int]
) -> dict[int, Fault]:
    """Whom the errors point at, each by the first error that does. ``shown`` are the orders that the reply has.

    A position is read in the reply first, then as a position among the missing orders.
    """
    missing = [order_id for order_id in requested if order_id not in shown]
    blamed: dict[int, Fault] = {}
    for fault in faults:
        for order_id in _pointed_at(fault, items, list(requested), missing):
            blamed.setdefault(order_id, fault)
    if not blamed and faults and len(requested) == 1 and missing:
        blamed[missing[0]] = faults[0]  # there is nobody else that it could be about
    return {order_id: fault for order_id, fault in blamed.items() if order_id in requested}


def _pointed_at(fault: Fault, items: Sequence[Any], order: Sequence[int], missing: Sequence[int]) -> Collection[int]:
    if len(fault.path) < 3:
        return ()
    place = integer(fault.path[2])
    if place is None:
        return ()
    if not 0 <= place < max(len(items), len(order)):
        return (place,)  # an order id used as a key
    item = items[place] if place < len(items) else None
    named = integer(item.get("id")) if isinstance(item, dict) else None
    if named is not None:
        return (named,)
    if place < len(order) and order[place] in missing:
        return (order[place],)
    return missing


def told(blamed: Mapping[int, Fault], requested: Mapping[int, Fields]) -> dict[int, str]:
    """What the errors say of the blamed, fit for people."""
    if not blamed:
        return {}
    values = values_of(requested)
    return {order_id: fit_for_people(fault.message, values) for order_id, fault in blamed.items()}


def integer(value: object) -> int | None:
    """An order id or a status, however the platform writes it; None: it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20:
        return int(value)
    return None


def fit_for_people(message: str, values: Collection[str]) -> str:
    """A text of the platform, short and without these values."""
    return excerpt(message, secrets=values, limit=LONGEST_DETAIL)


def values_of(requested: Mapping[int, Fields]) -> set[str]:
    """The texts of these orders: errors repeat them, logs and headers must not. Very short ones tell nothing."""
    texts = (value for fields in requested.values() for value in fields.values() if isinstance(value, str))
    return {text for text in texts if len(text) >= MASKED_FROM_CHARS}
