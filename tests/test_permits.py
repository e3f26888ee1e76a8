"""Budgets of calls: never more than allowed in any hour, evenly spent, and no wait longer than ten minutes."""

from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.budget import calls_per_hour, calls_per_turn, prefetch_in_use
from worker.permits import Permits

HOUR_S = 3600.0


def most_in_an_hour(times: list[float]) -> int:
    """The greatest number of calls in any hour, both ends included."""
    return max((bisect_left(times, at + HOUR_S + 1e-6) - index for index, at in enumerate(times)), default=0)


def call_whenever_allowed(permits: Permits, *, full: bool, until: float) -> list[float]:
    now, calls = 0.0, []
    while now < until:
        wait_s = permits.wait_s(now, full=full)
        if not wait_s:
            calls.append(now)
        now += wait_s
    return calls


def test_without_a_budget_every_call_may_start() -> None:
    """The usual case costs nothing."""
    permits = Permits(None)

    assert not permits.limited
    assert [permits.wait_s(0.0, full=False) for _ in range(1000)] == [0.0] * 1000


@pytest.mark.parametrize("per_hour", [6, 7, 60, 100, 1000])
def test_under_load_the_whole_budget_is_used_and_never_more(per_hour: int) -> None:
    """Full batches: as many calls as allowed in every hour, and a wait of ten minutes at most."""
    calls = call_whenever_allowed(Permits(per_hour), full=True, until=4 * HOUR_S)
    waits = [later - earlier for earlier, later in pairwise(calls)]

    assert most_in_an_hour(calls) == per_hour
    assert len(calls) >= 4 * per_hour - calls_per_turn(per_hour)
    assert max(waits) <= 601.0


def test_batches_that_are_not_full_leave_at_even_distances() -> None:
    """So that a quiet stream of events has its budget all day, and every batch gathers what came meanwhile."""
    calls = call_whenever_allowed(Permits(100), full=False, until=HOUR_S + 1.0)

    assert len(calls) == 100
    assert [later - earlier for earlier, later in pairwise(calls)] == pytest.approx([36.01] * 99, abs=0.01)


def test_after_a_quiet_time_a_single_event_leaves_at_once() -> None:
    """A budget costs latency only where it is the bottleneck."""
    permits = Permits(100)
    permits.wait_s(0.0, full=False)

    assert permits.wait_s(10.0, full=False) == pytest.approx(26.01)
    assert permits.wait_s(500.0, full=False) == 0.0


@settings(max_examples=50)
@given(per_hour=st.integers(6, 500), asks=st.lists(st.tuples(st.floats(0.0, 900.0), st.booleans()), max_size=400))
def test_no_hour_ever_has_more_calls_than_allowed(per_hour: int, asks: list[tuple[float, bool]]) -> None:
    """However the calls come."""
    permits, now, calls = Permits(per_hour), 0.0, []
    for gap_s, full in asks:
        now += gap_s if gap_s > 1.0 else gap_s / 1000
        if not permits.wait_s(now, full=full):
            calls.append(now)

    assert most_in_an_hour(calls) <= per_hour


@pytest.mark.parametrize(
    ("per_hour", "per_day", "expected"),
    [(None, None, None), (100, None, 100), (None, 144, 6), (None, 2400, 100), (60, 2400, 60), (1000, 2400, 100)],
)
def test_the_tighter_budget_counts(per_hour: int | None, per_day: int | None, expected: int | None) -> None:
    """A day's budget is spread over its hours, so one rule keeps both."""
    assert calls_per_hour(per_hour, per_day) == expected


@pytest.mark.parametrize(("per_hour", "expected"), [(None, 2000), (6, 100), (100, 1600), (1000, 2000)])
def test_the_prefetch_in_use_is_what_ten_minutes_can_carry(per_hour: int | None, expected: int) -> None:
    """Messages that cannot be sent soon are left to the broker."""
    assert prefetch_in_use(2000, max_batch=100, per_hour=per_hour) == expected


def test_what_is_left_of_a_budget_comes_back_after_an_hour() -> None:
    """Figures for people: None without a budget, and looking spends nothing."""
    permits = Permits(100)
    for _ in range(10):
        assert not permits.wait_s(0.0, full=True)

    assert [permits.left(now) for now in (0.0, 0.0, 3600.0, 3602.0)] == [90, 90, 90, 100]
    assert Permits(None).left(0.0) is None
