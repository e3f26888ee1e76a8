"""Which time an event gets, and which times are refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import EVENT, NOW_US, OPENED_US, make_delivery
from tests.core.event_cases import CLOUD, ENVELOPE, accepted, refused
from worker.core.model import Version
from worker.core.times import format_time


def test_times_keep_microseconds_and_cut_finer_digits() -> None:
    """Rounding up would let an event seem later than it was."""
    at = {"occurred_at": "2026-11-21T09:59:59.9999999Z"}

    assert accepted(make_delivery({**EVENT, **at})).version.time_us == NOW_US - 1


def test_time_sources_come_in_their_order() -> None:
    """Our headers, the event, the broker's stamp, the AMQP property, arrival."""
    hour = 3_600_000_000
    headers: dict[str, Any] = {"timestamp_in_ms": (NOW_US - 3 * hour) // 1000}
    stamp = datetime.fromtimestamp((NOW_US - 4 * hour) / 1e6, UTC)
    event = {**EVENT, "occurred_at": format_time(NOW_US - 2 * hour)}
    ours = {**headers, "ow-occurred-at": format_time(NOW_US - hour), "ow-sequence": 9}

    times = [
        accepted(delivery).version.time_us
        for delivery in (
            make_delivery(event, headers=ours, timestamp=stamp),
            make_delivery(event, headers=headers, timestamp=stamp),
            make_delivery(headers=headers, timestamp=stamp),
            make_delivery(timestamp=stamp),
            make_delivery(),
        )
    ]

    assert times == [NOW_US - hours * hour for hours in (1, 2, 3, 4, 0)]
    assert accepted(make_delivery(event, headers=ours)).version.sequence == 9


@pytest.mark.parametrize("stamp", [0, -5, True, 1.5, "1795255200000", None, 10**30])
def test_unusable_broker_stamps_are_passed_over(stamp: object) -> None:
    """Garbage in headers is not the event's fault, and zero is how clients say "not set"."""
    delivery = make_delivery(headers={"timestamp_in_ms": stamp}, timestamp=datetime.fromtimestamp(0, UTC))

    assert accepted(delivery).version.time_us == NOW_US


def test_redelivered_unstamped_events_are_as_old_as_the_channel() -> None:
    """Older than all first deliveries of this channel, and in their own order among themselves."""
    again = [accepted(make_delivery(redelivered=True, arrived_us=NOW_US + n)).version for n in (0, 1)]
    first = accepted(make_delivery(arrived_us=OPENED_US + 1)).version

    assert again == [Version(OPENED_US, -1, NOW_US + n, "m-1") for n in (0, 1)]
    assert again[0] < again[1] < first


def test_written_first_sight_is_the_time_of_an_unstamped_event() -> None:
    """What our header says is fixed, however often the message comes again."""
    headers = {"ow-first-seen": format_time(NOW_US - 9)}

    version = accepted(make_delivery(redelivered=True, headers=headers)).version

    assert (version.time_us, version.first_seen_us) == (NOW_US - 9, NOW_US - 9)


def test_times_too_far_in_the_future_are_refused_naming_their_source() -> None:
    """Otherwise one wrong clock would block an order; the bound itself is still allowed."""
    late = NOW_US + 300_000_001
    stamped = {"timestamp_in_ms": (NOW_US + 400_000_000) // 1000}

    assert accepted(make_delivery({**EVENT, "occurred_at": format_time(NOW_US + 300_000_000)})).order_id == EVENT["id"]
    assert refused(make_delivery({**EVENT, "occurred_at": format_time(late)})).startswith(
        "occurred_at: 300 s in the fut"
    )
    assert "days in the future" in refused(make_delivery({**EVENT, "occurred_at": "2099-01-01T00:00:00Z"}))
    assert refused(make_delivery(headers=stamped)).startswith("header timestamp_in_ms: 400 s in the future")
    assert refused(make_delivery(ENVELOPE | {"time": "2099-01-01T00:00:00Z"}, content_type=CLOUD)).startswith("time")


def test_our_own_times_are_not_judged_again() -> None:
    """What was accepted once stays accepted, whatever this worker's clock says now."""
    headers = {"ow-occurred-at": "2099-01-01T00:00:00.000000Z", "ow-attempt": 3}
    update = accepted(make_delivery({**EVENT, "occurred_at": "2099-01-01T00:00:00Z"}, headers=headers))

    assert (format_time(update.version.time_us), update.attempt) == ("2099-01-01T00:00:00.000000Z", 3)


def test_impossible_days_are_refused() -> None:
    """The pattern of a time cannot know the calendar."""
    assert refused(make_delivery({**EVENT, "occurred_at": "2026-02-30T00:00:00Z"})).startswith(
        "occurred_at: not a valid"
    )
    assert refused(make_delivery({**EVENT, "occurred_at": "0001-01-01T00:00:00+14:00"})).startswith("occurred_at: not")


def test_a_property_that_is_no_time_is_no_stamp() -> None:
    """Some clients send microseconds where AMQP means seconds: it arrives as a number, and is not guessed at."""
    assert accepted(make_delivery(timestamp=NOW_US - 1_000)).version.time_us == NOW_US
