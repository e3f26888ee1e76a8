"""What the tests of isolation and of the platform's trouble have in common: orders, some of them bad."""

from collections.abc import Sequence

from tests.builders import make_update
from tests.support.driver import Driver
from worker.core.model import Fields, Reason, Update

BAD = 99
"""The status that the model platform refuses."""
MASKED = "Internal server error"
"""How PHP servers hide a fault of their own."""


def refuses_bad(_order_id: int, fields: Fields) -> bool:
    """For the model platform."""
    return fields.get("status") == BAD


def orders(count: int, bad: Sequence[int] = ()) -> list[Update]:
    """One update each for the orders 1 to ``count``; those at the positions ``bad`` are refused."""
    return [make_update(n + 1, status=BAD if n in bad else 4, at=n, tag=n + 1) for n in range(count)]


def assert_only_dead(driver: Driver, reason: Reason, *bad: Update) -> None:
    """Exactly these are dead-lettered, for this reason, and all others are acknowledged."""
    assert {delivery: dead.reason for delivery, dead in driver.dead.items()} == {u.delivery: reason for u in bad}
    driver.assert_all_acked(*bad)
