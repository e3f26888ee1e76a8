"""How quickly copies go: evenly, the canary first, then twice as many each second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.pace import MOST_AT_ONCE, Pace


def run(pace: Pace, *, until: float, now: float = 0.0) -> list[tuple[float, int]]:
    """When how many go, if nobody is slow."""
    went: list[tuple[float, int]] = []
    while now < until and not pace.waits_for_canary:
        count = pace.allowed(now)
        if count:
            pace.spend(count)
            went.append((now, count))
        else:
            now += max(pace.wait_s(now), 1e-3)
    return went


@given(rate=st.floats(0.1, 5000.0), jumps=st.lists(st.floats(0.0, 3.0), max_size=20))
def test_never_more_than_the_rate_and_one_portion(rate: float, jumps: list[float]) -> None:
    """However slow the rest is: nobody catches up in a burst."""
    pace, now, went = Pace(rate=rate, canary=0, now=0.0), 0.0, 0
    for jump in jumps:
        now += jump
        count = pace.allowed(now)
        pace.spend(count)
        went += count

    assert went <= rate * now + max(1.0, rate / 10) + 1


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0, 240.0, 3000.0])
def test_the_rate_is_kept(rate: float) -> None:
    """Over a while it is what was asked for, within a portion."""
    went = sum(count for _, count in run(Pace(rate=rate, canary=0, now=0.0), until=20.0))

    assert went == pytest.approx(rate * 20, rel=0.03, abs=2)


def test_without_a_rate_a_hundred_at_a_time_go_at_once() -> None:
    """No waiting."""
    pace = Pace(rate=None, canary=0, now=0.0)
    pace.spend(pace.allowed(0.0))

    assert pace.allowed(0.001) == MOST_AT_ONCE
    assert not pace.is_canary


def test_the_canary_goes_and_then_nothing_until_it_is_released() -> None:
    """Exactly so many."""
    pace = Pace(rate=None, canary=10, now=0.0)
    went = run(pace, until=5.0)

    assert sum(count for _, count in went) == 10
    assert pace.waits_for_canary
    assert pace.allowed(100.0) == 0
    pace.release(100.0)
    assert pace.allowed(100.0) > 0


def test_behind_the_canary_the_pace_doubles_each_second_up_to_the_rate() -> None:
    """Canary size, twice that, four times that."""
    pace = Pace(rate=50.0, canary=10, now=0.0)
    run(pace, until=5.0)
    pace.release(10.0)

    assert [pace.rate(10.0 + seconds) for seconds in (0.0, 0.9, 1.0, 2.0, 3.0, 100.0)] == [10, 10, 20, 40, 50, 50]
    by_second = [0] * 3
    for when, count in run(pace, until=13.0, now=10.0):
        by_second[int(when - 10.0)] += count
    assert by_second == pytest.approx([10, 20, 40], abs=3)
