"""Waits: bounds of the jitter, and every form of Retry-After."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.core.backoff import full_jitter, retry_after_s

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@given(
    attempt=st.integers(1, 10_000),
    first_s=st.floats(0.001, 10),
    cap_s=st.floats(0.001, 1000),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_full_jitter_stays_within_its_bounds(attempt: int, first_s: float, cap_s: float, jitter: float) -> None:
    """Never negative, never above the cap, never above the doubled first wait."""
    wait = full_jitter(attempt, first_s=first_s, cap_s=cap_s, jitter=jitter)

    assert 0 <= wait <= cap_s
    assert wait <= first_s * 2.0 ** min(attempt - 1, 60)


def test_the_ceiling_doubles_with_each_attempt_up_to_the_cap() -> None:
    """Jitter draws from the whole range below it."""
    assert [full_jitter(n, first_s=0.25, cap_s=1.5, jitter=0.5) * 2 for n in range(1, 6)] == [0.25, 0.5, 1, 1.5, 1.5]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("9" * 50, 1e9),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Sat, 21 Nov 2026 10:01:30 GMT", 90.0),
        ("Sat, 21 Nov 2026 10:01:30 -0000", 90.0),
        ("Sat, 21 Nov 2026 11:01:30 +0100", 90.0),
        ("Saturday, 21-Nov-26 10:01:30 GMT", 90.0),
        ("Sat Nov 21 10:01:30 2026", 90.0),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0.0),
        ("Sat, 31 Nov 2026 09:00:00 GMT", None),
    ],
)
def test_retry_after_in_all_its_forms(text: str | None, seconds: float | None) -> None:
    """Seconds, the three date forms of RFC 9110, the past, and nonsense."""
    assert retry_after_s(text, wall_s=NOW.timestamp()) == seconds


@given(st.timedeltas(timedelta(0), timedelta(days=30)))
def test_a_date_is_the_wait_until_then(ahead: timedelta) -> None:
    """Whole seconds, as HTTP dates have them."""
    when = (NOW + ahead).replace(microsecond=0)

    assert retry_after_s(format_datetime(when, usegmt=True), wall_s=NOW.timestamp()) == (when - NOW).total_seconds()


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(
            r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3} [+-]?[0-9A-Z]{0,20}"
        ),
    )
)
@example("Sat, 21 Nov 2026 10:00:00 +99999999999999")
@example("Sat, 21 Nov 99999999999999999999 10:00:00 GMT")
@example("Sat, 01 Jan 0001 00:00:00 +2300")
@example(" , ")
def test_nothing_that_a_server_sends_breaks_it(text: str) -> None:
    """A number of seconds, never negative, or None."""
    wait = retry_after_s(text, wall_s=NOW.timestamp())

    assert wait is None or wait >= 0
