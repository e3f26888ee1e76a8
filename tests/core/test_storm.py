"""The storm guard: when it trips, what it withholds, and what it leaves alone."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_delivery
from worker.core.model import Ack, AckReason, Dead, Disposition, Reason, Release, Retry, Settlement
from worker.core.storm import AT_LEAST, StormGuard

DEAD: Disposition = Dead(reason=Reason.INVALID_EVENT, detail="why")
ACK: Disposition = Ack(AckReason.APPLIED)
RETRY: Disposition = Retry(tier=0, reason=Reason.BUSY, detail="why")


def decided(*dispositions: Disposition) -> list[Settlement]:
    delivery = make_delivery(b"{}")
    return [Settlement(delivery=delivery, disposition=each) for each in dispositions]


def guard(*, ratio: float = 0.5, window: int = 200) -> StormGuard:
    return StormGuard(ratio=ratio, window=window)


def dead_letters(settlements: Sequence[Settlement]) -> int:
    return sum(isinstance(each.disposition, Dead) for each in settlements)


def test_nineteen_dead_letters_prove_nothing() -> None:
    """Below 20 decisions any share is let through."""
    storm = guard()

    assert dead_letters(storm.admit(decided(*[DEAD] * 19))) == 19
    assert not storm.tripped


def test_the_twentieth_is_withheld_with_all_behind_it() -> None:
    """It counts before it is carried out."""
    storm = guard()
    admitted = storm.admit(decided(*[DEAD] * 30))

    assert dead_letters(admitted) == 19
    assert storm.tripped
    assert storm.detail == "20 of the last 20 decisions were dead letters"


def test_exactly_the_ratio_is_no_storm() -> None:
    """More than half: half is not."""
    storm = guard()
    storm.admit(decided(*[ACK, DEAD] * 50))
    assert not storm.tripped
    storm.admit(decided(DEAD))

    assert storm.tripped


def test_only_the_window_counts() -> None:
    """What was well long ago does not outweigh what goes wrong now."""
    storm = guard(window=20)
    storm.admit(decided(*[ACK] * 1000))
    for _ in range(10):
        storm.admit(decided(DEAD))
    assert not storm.tripped
    storm.admit(decided(DEAD))

    assert storm.tripped


def test_retries_are_decisions_like_acks() -> None:
    """A platform in trouble does not look better or worse than it is."""
    storm = guard()
    storm.admit(decided(*[RETRY, RETRY, DEAD] * 60))

    assert not storm.tripped


def test_releases_are_no_decisions() -> None:
    """Nothing was decided about what goes back."""
    storm = guard()
    releases: list[Disposition] = [Release()] * 100
    storm.admit(decided(*releases, *[DEAD] * 30))

    assert storm.tripped


@pytest.mark.parametrize("order", ["bad first", "good first"])
def test_decisions_made_together_have_no_order(order: str) -> None:
    """A quarter of a batch is no storm, wherever in the batch it is."""
    storm = guard()
    bad, good = [DEAD] * 25, [ACK] * 75
    admitted = storm.admit(decided(*(bad + good if order == "bad first" else good + bad)))

    assert not storm.tripped
    assert len(admitted) == 100


def test_good_decisions_pass_during_a_storm() -> None:
    """They lose nothing; only dead letters wait for a person."""
    storm = guard()
    storm.admit(decided(*[DEAD] * 30))
    admitted = storm.admit(decided(ACK, DEAD, RETRY))

    assert [each.disposition for each in admitted] == [ACK, RETRY]


def test_a_storm_does_not_pass_by_itself() -> None:
    """However many good decisions follow."""
    storm = guard()
    storm.admit(decided(*[DEAD] * 30))
    storm.admit(decided(*[ACK] * 1000))

    assert storm.tripped


def test_restart_counts_from_nothing() -> None:
    """A person has looked: another 19 may pass before it asks again."""
    storm = guard()
    storm.admit(decided(*[DEAD] * 30))
    storm.restart()

    assert not storm.tripped
    assert dead_letters(storm.admit(decided(*[DEAD] * 30))) == 19


def test_ratio_one_switches_it_off() -> None:
    """Nothing is more than all."""
    storm = guard(ratio=1.0)

    assert dead_letters(storm.admit(decided(*[DEAD] * 1000))) == 1000


@given(
    window=st.integers(AT_LEAST, 40),
    ratio=st.sampled_from([0.1, 0.5, 0.9]),
    bad=st.lists(st.booleans(), max_size=120),
)
def test_it_trips_exactly_when_the_window_says_so(window: int, ratio: float, bad: list[bool]) -> None:
    """Against a count made anew at each step, for any sequence of single decisions."""
    storm = guard(ratio=ratio, window=window)
    seen: list[bool] = []
    for is_dead in bad:
        seen.append(is_dead)
        recent = seen[-window:]
        stormy = is_dead and len(recent) >= AT_LEAST and sum(recent) > ratio * len(recent)
        admitted = storm.admit(decided(DEAD if is_dead else ACK))

        assert storm.tripped == stormy
        assert len(admitted) == (0 if stormy else 1)
        if stormy:
            break


def test_its_share_is_what_people_see_coming() -> None:
    """0 before the first decision, and again after a person has looked."""
    storm = guard()
    before = storm.share
    storm.admit(decided(*[ACK] * 6, *[DEAD] * 2))
    seen = storm.share
    storm.restart()

    assert (before, seen, storm.share) == (0.0, 0.25, 0.0)


def test_dead_letters_that_were_asked_for_count_neither_way() -> None:
    """A hundred orders that are not allowed make no storm, and hide none."""
    storm = guard()
    asked_for: Disposition = Dead(reason=Reason.NOT_ALLOWED, detail="why")
    admitted = [dead_letters(storm.admit(decided(*each))) for each in ([asked_for] * 100, [DEAD] * 20, [asked_for])]

    assert admitted == [100, 19, 0]
    assert storm.detail == "20 of the last 20 decisions were dead letters"
