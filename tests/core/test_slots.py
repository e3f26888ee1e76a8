"""Calls in flight: halved by trouble, one more per round of prompt answers, never outside its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.slots import Slots
from worker.core.verdict import Call

MOST = 8


def answer(slots: Slots, call: Call = Call.ANSWERED, *, at: float, took_s: float = 0.1, again: bool = False) -> None:
    """One call of 100 orders that ended at ``at``, with all slots in use."""
    while slots.free:
        slots.take()
    slots.heard(call, started=at - took_s, now=at, orders=100, again=again)
    while slots.in_flight:
        slots.give_back()


def halved(at: float = 10.0) -> Slots:
    slots = Slots(MOST)
    answer(slots, Call.THROTTLED, at=at)
    return slots


def test_it_starts_with_the_most_that_is_allowed() -> None:
    """A platform that is well is used as configured from the first call on."""
    slots = Slots(MOST)

    assert (slots.limit, slots.free) == (MOST, True)


@pytest.mark.parametrize("call", [Call.THROTTLED, Call.UNKNOWN, Call.UNAVAILABLE])
def test_trouble_halves(call: Call) -> None:
    """Multiplicative decrease."""
    slots = Slots(MOST)
    answer(slots, call, at=10.0)

    assert slots.limit == MOST // 2


@pytest.mark.parametrize("call", [Call.REFUSED, Call.AUTH, Call.CONFIGURATION])
def test_what_is_wrong_with_the_request_tells_nothing_of_the_load(call: Call) -> None:
    """Neither more nor fewer."""
    slots = halved()
    answer(slots, call, at=20.0)

    assert slots.limit == MOST // 2


def test_values_that_had_to_be_sent_again_halve_although_they_were_answered() -> None:
    """A success that took two tries says that the platform has too much to do."""
    slots = Slots(MOST)
    answer(slots, at=10.0, again=True)

    assert slots.limit == MOST // 2


def test_calls_of_one_round_halve_only_once() -> None:
    """Four calls in flight together that all fail tell of one trouble."""
    slots = halved(at=10.0)
    answer(slots, Call.UNAVAILABLE, at=10.05, took_s=0.1)

    assert slots.limit == MOST // 2


def test_a_round_of_prompt_answers_adds_one() -> None:
    """Additive increase: one more after as many answers as there are slots."""
    slots = halved()
    limits = []
    for number in range(9):
        answer(slots, at=20.0 + number)
        limits.append(slots.limit)

    assert limits == [4, 4, 4, 5, 5, 5, 5, 5, 6]


def test_slots_that_nobody_used_are_not_multiplied() -> None:
    """One call at a time says nothing about five."""
    slots = halved()
    for number in range(50):
        slots.take()
        slots.heard(Call.ANSWERED, started=20.0 + number, now=20.1 + number, orders=100, again=False)
        slots.give_back()

    assert slots.limit == MOST // 2


def test_answers_that_become_slow_halve_and_what_stays_slow_becomes_usual() -> None:
    """Latency is the earliest sign of too much load; a platform that stays slower is not punished for ever."""
    slots, at = Slots(MOST), 0.0
    for _ in range(50):
        at += 1.0
        answer(slots, at=at, took_s=0.1)
    before = slots.limit
    for _ in range(5):
        at += 3.0
        answer(slots, at=at, took_s=1.0)
    slowest = slots.limit
    for _ in range(200):
        at += 3.0
        answer(slots, at=at, took_s=1.0)

    assert (before, slowest < MOST, slots.limit) == (MOST, True, MOST)


def test_a_large_batch_is_not_slow_because_small_ones_were_quick() -> None:
    """Answers are compared with those of calls of a similar size."""
    slots, at = Slots(MOST), 0.0
    for _ in range(50):
        at += 1.0
        slots.heard(Call.ANSWERED, started=at - 0.02, now=at, orders=1, again=False)
    for _ in range(50):
        at += 3.0
        answer(slots, at=at, took_s=2.0)

    assert slots.limit == MOST


def test_after_a_pause_it_goes_on_with_the_last_good_number() -> None:
    """An outage that took every slot away does not have to be climbed out of."""
    slots = Slots(MOST)
    answer(slots, at=1.0)
    for number in range(5):
        answer(slots, Call.UNAVAILABLE, at=10.0 + number)
    lowest = slots.limit
    slots.recovered()

    assert (lowest, slots.limit) == (1, MOST)


def test_after_being_throttled_the_last_good_number_was_too_many() -> None:
    """The platform said so."""
    slots = Slots(MOST)
    answer(slots, at=1.0)
    answer(slots, Call.THROTTLED, at=10.0)
    slots.recovered()

    assert slots.limit == MOST // 2


@given(
    most=st.integers(1, 50),
    calls=st.lists(
        st.tuples(
            st.sampled_from(Call),
            st.floats(0, 1000),
            st.floats(0, 20),
            st.integers(0, 500),
            st.booleans(),
            st.booleans(),
        )
    ),
)
def test_it_stays_between_one_and_the_most(most: int, calls: list[tuple[Call, float, float, int, bool, bool]]) -> None:
    """Whatever happens, in whatever order: a worker that may not call at all would never find out that it may."""
    slots = Slots(most)
    for call, at, took_s, orders, again, pause in calls:
        slots.heard(call, started=at - took_s, now=at, orders=orders, again=again)
        if pause:
            slots.recovered()

        assert 1 <= slots.limit <= most
