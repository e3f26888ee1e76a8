"""Going live: while ``ALLOW_ORDERS`` names orders, only these are sent, and the events of all others are dead letters.

They are no storm: a person asked for them, and they say nothing of producers or platform. A replay brings them back as
soon as their orders are allowed; until then it would make them dead letters again, and its forecast says so.
"""

from typing import Final

from worker.core.model import Dead, Reason

Allowed = frozenset[int] | None
"""The ids of the orders that may be sent; None: all."""

EVERY_ORDER: Final[Allowed] = None


def is_allowed(order_id: int, allowed: Allowed) -> bool:
    """Whether this order may be sent."""
    return allowed is None or order_id in allowed


def not_allowed(order_id: int, allowed: Allowed) -> Dead | None:
    """Why an event of this order is not sent; None where it may be."""
    if is_allowed(order_id, allowed):
        return None
    return Dead(reason=Reason.NOT_ALLOWED, detail=f"order {order_id} is not among the orders of ALLOW_ORDERS")
