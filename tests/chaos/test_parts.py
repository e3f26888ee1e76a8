"""The parts of a campaign that decide something: the plan, the stops, the memory, the verdict."""

from collections import Counter
from io import StringIO
from itertools import combinations

import pytest
from rich.console import Console

from tests.chaos.memory import Memory
from tests.chaos.nemesis import FAULTS
from tests.chaos.report import LONGEST_STOP_S, Report
from tests.chaos.schedule import MORTAL, SLOTS, SPARED_FROM, Pace, plan
from tests.chaos.stops import Stops
from tests.chaos.table import Picture, View
from tests.support.accounting import Verdict

KINDS = list(FAULTS.values())


def test_the_same_seed_gives_the_same_plan() -> None:
    """And another seed another one."""
    first, again, other = (plan(seed, KINDS, length_s=600.0, pace=Pace()) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_faults_keep_to_their_times() -> None:
    """Each ends before the calm of its round and takes nothing that another has; in the long run all kinds come."""
    pace = Pace()
    planned = plan(3, KINDS, length_s=7200.0, pace=pace)

    assert all(each.at_s % pace.round_s + each.lasts_s <= pace.round_s - pace.calm_s for each in planned)
    needs = [set(FAULTS[each.name].needed(each.slot)) for each in planned]
    together = [
        (one, other)
        for one, other in combinations(range(len(planned)), 2)
        if planned[other].at_s < planned[one].at_s + planned[one].lasts_s and needs[one] & needs[other]
    ]
    assert together == []
    assert {each.slot for each in planned} == set(range(SLOTS))
    assert {each.name for each in planned} == set(FAULTS)


def test_one_worker_is_left_to_grow_old() -> None:
    """What ends a life keeps to one place, but for the first part of a campaign."""
    planned = plan(3, KINDS, length_s=7200.0, pace=Pace())
    ends = [each for each in planned if FAULTS[each.name].ends_life]

    assert {each.slot for each in ends if each.at_s <= SPARED_FROM * 7200.0} == set(range(SLOTS))
    assert {each.slot for each in ends if each.at_s > SPARED_FROM * 7200.0} == {MORTAL}


def test_a_stop_runs_from_the_end_of_the_last_fault() -> None:
    """While one is active, or nothing waits, standing still is no stop."""
    stops = Stops(0.0)
    stops.tick(1.0, settled=True, waiting=True)
    stops.begin(1, "first")
    stops.begin(2, "second")
    stops.tick(50.0, settled=False, waiting=True)
    stops.end(1, 60.0)
    stops.tick(70.0, settled=False, waiting=True)
    stops.end(2, 80.0)
    stops.tick(83.0, settled=False, waiting=True)
    stops.tick(84.0, settled=True, waiting=True)
    stops.tick(184.0, settled=False, waiting=False)
    stops.tick(185.0, settled=True, waiting=True)

    assert (stops.longest_s, stops.longest_after) == (4.0, "second")
    assert stops.recoveries == {"second": 4.0}


def test_a_stop_that_never_ends_is_seen() -> None:
    """It grows with every look."""
    stops = Stops(0.0)
    for now in range(100):
        stops.tick(float(now), settled=False, waiting=True)

    assert stops.longest_s == 99.0


def test_memory_that_grows_has_a_slope() -> None:
    """A straight line through all samples after the warm-up."""
    growing, flat = Memory(), Memory()
    for age_s in range(600):
        growing.note(float(age_s), 50_000_000 + 1000 * age_s)
        flat.note(float(age_s), 50_000_000)

    assert growing.slope == pytest.approx(1000.0)
    assert flat.slope == pytest.approx(0.0, abs=0.1)
    assert (growing.first, growing.last, growing.peak) == (50_020_000, 50_599_000, 50_599_000)


def make_report(*, verdict: Verdict | None = None, stops: Stops | None = None, storms: int = 0, raw: int = 0) -> Report:
    """A campaign in which all was well, but for what is given."""
    return Report(
        seed=1,
        length_s=60.0,
        rate_per_s=1.0,
        unsure=0,
        writes=1,
        verdict=verdict or Verdict(Counter(events=1, applied=1, orders=1)),
        faults={"line cut": 1},
        skipped=0,
        stops=stops or Stops(0.0),
        problems=[],
        lives=2,
        unasked=[],
        heard={"storm.paused": storms, "(no log line)": raw},
        oldest=Memory(),
        peak=0,
        own=Memory(),
    )


def test_a_campaign_that_kept_every_promise_says_so() -> None:
    """In its last line."""
    assert str(make_report()).endswith("every promise held")


def test_every_broken_promise_is_named() -> None:
    """Accounts that do not balance, a stop that is too long, a storm that nobody ends, a traceback."""
    verdict = Verdict(Counter(events=1))
    verdict.blame("lost", "order 1 version 1")
    broken = make_report(verdict=verdict, stops=Stops(0.0, longest_s=LONGEST_STOP_S + 1), storms=1, raw=1).broken

    assert [told.split()[0] for told in broken] == ["lost", "nothing", "the", "logged:"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_picture_is_drawn_no_more_often_than_it_is_due(is_terminal: bool) -> None:
    """A table in a terminal, plain lines elsewhere; counting the figures costs time."""
    shown, drawn = StringIO(), list[float]()

    def picture() -> Picture:
        drawn.append(age_s)
        return {"applied": f"{age_s:.0f} events"}

    with View(Console(file=shown, force_terminal=is_terminal, width=80), line_every_s=10.0) as view:
        for age_s in (0.5, 5.0, 5.5, 12.0, 12.5):
            view.show(age_s, picture)

    assert drawn == ([5.0, 12.0] if is_terminal else [12.0])
    assert "12 events" in shown.getvalue()
