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


@given(
    st.integers(EARLIEST_US, LATEST_US),
    st.lists(st.tuples(st.integers(0, 26), st.sampled_from("0129Z:-.,T t_+W٣")), max_size=2),
)
@example(1_795_255_200_000_000, [(11, "2"), (12, "4")])
@example(1_795_255_200_000_000, [(5, "W")])
def test_the_usual_form_is_judged_as_any_other(micros: int, changes: list[tuple[int, str]]) -> None:
    """It is parsed without the pattern. With its offset as numbers it is not: both say the same."""
    letters = list(format_time(micros))
    for place, letter in changes:
        letters[place] = letter
    text = "".join(letters)

    assert not text.endswith("Z") or parse_time(text) == parse_time(text[:-1] + "+00:00")


def test_times_that_cannot_be_written_become_the_nearest() -> None:
    """A copy is never stopped by a clock."""
    assert format_time(10**30) == format_time(LATEST_US) == "9999-12-31T23:59:59.999999Z"
    assert format_time(-(10**30)) == "0001-01-01T00:00:00.000000Z"


def test_naive_times_are_utc() -> None:
    """As the AMQP client takes them."""
    assert micros_of(datetime(1970, 1, 1, 0, 0, 1)) == 1_000_000  # noqa: DTZ001
