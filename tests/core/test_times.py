"""Times as texts and as microseconds."""

from datetime import datetime

from hypothesis import example, given
from hypothesis import strategies as st

from worker.core.times import EARLIEST_US, LATEST_US, format_time, micros_of, parse_time


@given(st.integers(EARLIEST_US, LATEST_US))
@example(EARLIEST_US)
@example(LATEST_US)
def test_times_round_trip_to_the_microsecond(micros: int) -> None:
    """Times in headers are exact, and sort as texts like they sort as times."""
    text = format_time(micros)

    assert parse_time(text) == micros
    assert len(text) == 27


def test_times_that_cannot_be_written_become_the_nearest() -> None:
    """A copy is never stopped by a clock."""
    assert format_time(10**30) == format_time(LATEST_US) == "9999-12-31T23:59:59.999999Z"
    assert format_time(-(10**30)) == "0001-01-01T00:00:00.000000Z"


def test_naive_times_are_utc() -> None:
    """As the AMQP client takes them."""
    assert micros_of(datetime(1970, 1, 1, 0, 0, 1)) == 1_000_000  # noqa: DTZ001
