"""What dead letters say of themselves: ours, the broker's, and whatever else finds its way into the queue."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_US, make_delivery
from worker.core.deadletter import MOST_GROUPS, OTHERS, DeadLetter, Groups, Wanted, read_dead_letter
from worker.core.headers import dead_copy, retry_copy
from worker.core.history import DAY_US, GroupBy
from worker.core.model import Dead, Delivery, Reason, Retry, Settlement
from worker.core.times import format_time

AN_HOUR = 3_600_000_000


def ours(reason: Reason, *, failed_us: int = NOW_US, detail: str = "why", **given_: Any) -> DeadLetter:
    """A dead letter as the worker makes it."""
    settlement = Settlement(delivery=make_delivery(**given_), disposition=Dead(reason=reason, detail=detail))
    copy = dead_copy(settlement, now_us=failed_us, worker="1")
    copied = Delivery(generation=0, tag=1, body=copy.body, properties=copy.properties, routing_key="order-updates.dead")
    return read_dead_letter(copied)


def death(reason: object = "delivery_limit", queue: object = "work", key: str = "7") -> dict[str, Any]:
    """An entry of ``x-death``."""
    return {
        "reason": reason, "queue": queue, "count": 1, "exchange": "e", "routing-keys": [key],
        "time": datetime(2026, 11, 21, 10, tzinfo=UTC),
    }  # fmt: skip


def foreign(headers: dict[str, Any], **given_: Any) -> DeadLetter:
    """A dead letter that somebody else made."""
    return read_dead_letter(make_delivery(headers=headers, **given_))


def test_ours_says_why_when_and_whose() -> None:
    """Reason, time, order and producer's id come from our headers, not from where the copy lies."""
    letter = ours(Reason.INVALID_EVENT, detail="id: missing", message_id="m-9", routing_key="46140199")

    assert (letter.reason, letter.detail, letter.failed_us) == ("invalid-event", "id: missing", NOW_US)
    assert (letter.message_id, letter.routing_key, letter.order_id) == ("m-9", "46140199", 46140199)


def test_the_brokers_own_says_which_rule_and_queue() -> None:
    """Over the delivery limit the broker dead-letters without us; it knows the rule, the queue and the second."""
    letter = foreign({"x-death": [death()], "x-delivery-count": 3}, routing_key="dead")

    assert (letter.reason, letter.detail) == (
        "broker:delivery_limit",
        "dead-lettered by the broker from the queue work",
    )
    assert (letter.failed_us, letter.deliveries) == (NOW_US, 3)
    assert (letter.routing_key, letter.order_id) == ("7", 7)


def test_an_earlier_retry_is_not_why_it_is_dead() -> None:
    """A retried message has our reason of then; that the broker took it is newer."""
    settlement = Settlement(
        delivery=make_delivery(), disposition=Retry(tier=0, reason=Reason.BUSY, detail="the platform was busy")
    )
    copy = retry_copy(settlement, now_us=NOW_US - AN_HOUR, worker="1")
    deaths = [death(), death("expired", "retry", "46140199")]
    letter = foreign({**copy.properties.headers, "x-death": deaths})

    assert letter.reason == "broker:delivery_limit"
    assert letter.history.reason == "busy"
    assert letter.order_id == 46140199


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"ow-reason": 7}, {"ow-reason": "no\nreason"}, {"ow-reason": "x" * 65}, {"x-death": "no"}, {"x-death": [1]},
        {"x-delivery-count": -1},
    ],
)  # fmt: skip
def test_what_says_nothing_useful_is_unknown(headers: dict[str, Any]) -> None:
    """Anybody can put a message there, with any header."""
    letter = foreign(headers, routing_key="some.key")

    assert (letter.reason, letter.failed_us, letter.order_id, letter.deliveries) == ("unknown", None, None, 0)


@given(st.dictionaries(st.sampled_from(["x-death", "reason", "time", "queue", "routing-keys"]), st.none() | st.text()))
def test_strange_deaths_never_raise(entry: dict[str, Any]) -> None:
    """The list must come to its end."""
    assert foreign({"x-death": [entry, entry]}).reason.startswith("broker:")


def test_groups_have_count_oldest_newest_and_the_newest_detail() -> None:
    """In whatever order they come."""
    groups = Groups()
    for hours, detail in ((2, "second"), (3, "newest"), (1, "oldest")):
        groups.add(ours(Reason.REJECTED, failed_us=NOW_US + hours * AN_HOUR, detail=detail))
    groups.add(foreign({"x-death": [death()]}))
    groups.add(foreign({}))
    rejected, broker, unknown = groups.by_count()

    assert (rejected.key, rejected.count, rejected.example) == ("rejected", 3, "newest")
    assert (rejected.oldest_us, rejected.newest_us) == (NOW_US + AN_HOUR, NOW_US + 3 * AN_HOUR)
    assert (broker.key, broker.count) == ("broker:delivery_limit", 1)
    assert (unknown.key, unknown.oldest_us, unknown.newest_us) == ("unknown", None, None)


def test_groups_may_be_of_orders_or_days() -> None:
    """A day is one of UTC, as its number; letters that do not say are one group."""
    letters = [ours(Reason.REJECTED, routing_key="7"), ours(Reason.BUSY, failed_us=NOW_US + 24 * AN_HOUR), foreign({})]
    orders, days = Groups(GroupBy.ORDER), Groups(GroupBy.DAY)
    for letter in letters:
        orders.add(letter)
        days.add(letter)

    assert {group.key: group.count for group in orders.by_count()} == {7: 1, 46140199: 2}
    assert {group.key: group.count for group in days.by_count()} == {
        NOW_US // DAY_US: 1,
        NOW_US // DAY_US + 1: 1,
        None: 1,
    }


def test_groups_are_bounded() -> None:
    """Reasons are headers: a million different ones must not fill the memory."""
    groups = Groups()
    for number in range(3 * MOST_GROUPS):
        groups.add(foreign({"ow-reason": f"r-{number}", "ow-failed-at": format_time(NOW_US)}))

    found = groups.by_count()
    assert len(found) == MOST_GROUPS + 1
    assert (found[0].key, found[0].count) == (OTHERS, 2 * MOST_GROUPS)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Wanted(), True), (Wanted(message_id="m-9"), True), (Wanted(message_id="other"), False),
        (Wanted(order_id=7), True), (Wanted(order_id=8), False), (Wanted(reason="rejected"), True),
        (Wanted(reason="busy"), False), (Wanted(order_id=7, reason="busy"), False),
    ],
)  # fmt: skip
def test_all_given_selectors_must_match(wanted: Wanted, *, matches: bool) -> None:
    """Each selector narrows."""
    assert wanted.matches(ours(Reason.REJECTED, message_id="m-9", routing_key="7")) is matches
