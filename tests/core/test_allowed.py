"""Which orders may be sent while going live."""

import pytest

from worker.core.allowed import EVERY_ORDER, Allowed, is_allowed, not_allowed
from worker.core.model import Reason


@pytest.mark.parametrize(
    ("allowed", "may"), [(EVERY_ORDER, True), (frozenset({7}), True), (frozenset({8}), False), (frozenset(), False)]
)
def test_only_the_named_orders_may_be_sent(allowed: Allowed, may: bool) -> None:
    """Without a list all may; an empty one lets nothing out."""
    dead = not_allowed(7, allowed)

    assert is_allowed(7, allowed) is may
    assert (dead is None) is may
    assert dead is None or (dead.reason is Reason.NOT_ALLOWED and "order 7 " in dead.detail)
