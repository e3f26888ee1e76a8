"""The straight line of decoding (``EventSchema``) decides as the long way does, which takes whatever it is given."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.builders import NOW_US, make_delivery
from tests.core.event_cases import BAD, GOOD
from tests.core.event_cases import SCHEMA as WIDE
from worker.core.decode import EventSchema
from worker.core.fields import MAX_BODY_BYTES, MAX_DEPTH
from worker.core.model import Dead, Delivery, Reason, Update
from worker.core.times import format_time

USUAL = EventSchema({}, ())
TIME = format_time(NOW_US)
LONG_WAY = {"a-header": 1}
"""A message with any header at all is none for the straight line."""

values = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**64), st.floats(), st.text(max_size=3), st.lists(st.none(), max_size=1)
)
times = st.sampled_from([TIME, "2026-11-21T10:00:00.1234567Z", "2026-W47-6T10:00:00.123456Z", TIME[:-1] + "+01:00"])
events = st.fixed_dictionaries(
    {"id": st.integers(0, 3) | values, "occurred_at": times | st.integers(0, 10**13).map(format_time)},
    optional={
        "status": st.integers(0, 9) | values,
        "shipping_carrier": st.text(max_size=3) | values,
        "shipping_method": st.just("Tracked 24") | values,
        "sequence": st.integers(-1, 5) | values,
        "event_id": values,
        "source": values,
        "weight": values,
        "@note": values,
        "colour": values,
    },
)


def outcome(schema: EventSchema, delivery: Delivery) -> tuple[Any, ...]:
    found = schema.decode(delivery)
    if isinstance(found, Dead):
        return found.reason, found.detail
    return found.order_id, dict(found.fields), found.version, found.attempt, found.size, found.event_id


def nested(depth: int) -> bytes:
    return b'{"id": 1, "status": 4, "occurred_at": "%s", "source": %s%s}' % (
        TIME.encode(), b"[" * (depth - 1), b"]" * (depth - 1),
    )  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(events.map(lambda event: json.dumps(event).encode()), st.sampled_from([USUAL, WIDE]))
@example(nested(MAX_DEPTH), USUAL)
@example(nested(MAX_DEPTH + 1), USUAL)
@example(b'{"id": 1, "status": 4, "occurred_at": "%s"}' % TIME.encode() + b" " * MAX_BODY_BYTES, USUAL)
@example(b"\xff", USUAL)
def test_both_ways_decide_the_same(body: bytes, schema: EventSchema) -> None:
    """For every event, good or bad: fields, version and words."""
    assert outcome(schema, make_delivery(body)) == outcome(schema, make_delivery(body, headers=LONG_WAY))


@given(st.sampled_from([*GOOD.values(), *(event for event, _ in BAD.values())]))
def test_both_ways_decide_the_same_of_each_known_case(event: dict[str, Any]) -> None:
    """With a time of its own, without which nothing goes the straight line."""
    timed = {"occurred_at": TIME, **event}

    assert outcome(WIDE, make_delivery(timed)) == outcome(WIDE, make_delivery(timed, headers=LONG_WAY))


def test_what_came_together_is_decoded_in_its_order() -> None:
    """A bad one among them is refused alone."""
    deliveries = [make_delivery({"id": number, "status": 4, "occurred_at": TIME}, tag=number) for number in range(4)]
    first, *others = USUAL.decode_all(deliveries)

    assert isinstance(first, Dead)
    assert first.reason is Reason.INVALID_EVENT
    assert [update.order_id for update in others if isinstance(update, Update)] == [1, 2, 3]
