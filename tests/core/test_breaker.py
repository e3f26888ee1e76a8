"""The breaker's transitions, and the outages that trip it."""

import pytest

from worker.core.breaker import Breaker, Mode
from worker.core.outage import Outage, OutageKind, outage_of
from worker.core.verdict import Call, Judgement


def outage(kind: OutageKind = OutageKind.UNAVAILABLE, *, needs_entry: bool = False) -> Outage:
    return Outage(kind=kind, detail="why", needs_entry=needs_entry)


def tripped(kind: OutageKind = OutageKind.UNAVAILABLE, *, now: float = 100.0, wait_s: float | None = None) -> Breaker:
    breaker = Breaker(hold_limit_s=300.0)
    assert breaker.trip(outage(kind), now=now, wait_s=wait_s)
    return breaker


def test_it_starts_running() -> None:
    """Calls may start, nothing is due."""
    breaker = Breaker(hold_limit_s=300.0)

    assert breaker.running
    assert breaker.deadline() is None
    assert not breaker.expire(1e9)


@pytest.mark.parametrize(
    ("kind", "needs_entry", "mode"),
    [
        (OutageKind.UNAVAILABLE, False, Mode.HOLDING),
        (OutageKind.UNAVAILABLE, True, Mode.HOLDING),
        (OutageKind.THROTTLED, False, Mode.HOLDING),
        (OutageKind.AUTH, False, Mode.PAUSED),
        (OutageKind.CONFIGURATION, False, Mode.PAUSED),
        (OutageKind.CONFIGURATION, True, Mode.HOLDING),
    ],
)
def test_each_outage_leads_to_its_mode(kind: OutageKind, needs_entry: bool, mode: Mode) -> None:
    """What a person has to repair pauses at once, unless only an entry can show that it is repaired."""
    breaker = Breaker(hold_limit_s=300.0)

    assert breaker.trip(outage(kind, needs_entry=needs_entry), now=0.0, wait_s=None)
    assert breaker.mode is mode
    assert not breaker.running


def test_a_hold_that_lasts_too_long_becomes_a_pause() -> None:
    """At the deadline, once."""
    breaker = tripped(now=100.0)

    assert breaker.deadline() == 400.0
    assert not breaker.expire(399.9)
    assert breaker.expire(400.0)
    assert breaker.mode is Mode.PAUSED
    assert not breaker.expire(500.0)
    assert breaker.deadline() is None


def test_another_outage_does_not_start_the_hold_anew() -> None:
    """Only what is known of it changes."""
    breaker = tripped(now=100.0)

    assert not breaker.trip(outage(OutageKind.THROTTLED), now=200.0, wait_s=None)
    assert breaker.since == 100.0
    assert breaker.outage == outage(OutageKind.THROTTLED)


def test_a_known_wait_beyond_the_hold_limit_pauses_at_once() -> None:
    """There is no use in holding messages for so long."""
    assert tripped(OutageKind.THROTTLED, wait_s=300.0).mode is Mode.HOLDING
    assert tripped(OutageKind.THROTTLED, wait_s=300.1).mode is Mode.PAUSED


def test_the_longest_wait_that_was_asked_for_counts() -> None:
    """Several calls may be told different waits; repeated throttling is counted."""
    breaker = tripped(OutageKind.THROTTLED, now=100.0, wait_s=50.0)
    breaker.trip(outage(OutageKind.THROTTLED), now=110.0, wait_s=10.0)

    assert breaker.retry_at == 150.0
    assert breaker.throttled == 2


def test_a_holding_breaker_may_still_be_paused() -> None:
    """By an outage that needs a person, or by the limit of unsettled time."""
    by_outage, by_limit = tripped(), tripped()
    by_limit.pause()

    assert by_outage.trip(outage(OutageKind.AUTH), now=101.0, wait_s=None)
    assert (by_outage.mode, by_limit.mode) == (Mode.PAUSED, Mode.PAUSED)


def test_reopening_holds_anew() -> None:
    """Deliveries come again, and are held for at most the limit again."""
    breaker = tripped(OutageKind.AUTH)
    breaker.reopen(1000.0)

    assert (breaker.mode, breaker.deadline()) == (Mode.HOLDING, 1300.0)


def test_recovery_forgets_the_outage() -> None:
    """The next one starts from nothing."""
    breaker = tripped(OutageKind.THROTTLED, wait_s=1000.0)
    breaker.recovered(by_entry=True)

    assert breaker == Breaker(hold_limit_s=300.0, since=100.0)
    assert breaker.trip(outage(), now=500.0, wait_s=None)
    assert breaker.deadline() == 800.0


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (Call.UNAVAILABLE, OutageKind.UNAVAILABLE),
        (Call.UNKNOWN, OutageKind.UNAVAILABLE),
        (Call.THROTTLED, OutageKind.THROTTLED),
        (Call.AUTH, OutageKind.AUTH),
        (Call.CONFIGURATION, OutageKind.CONFIGURATION),
    ],
)
def test_a_call_verdict_names_its_outage(call: Call, kind: OutageKind) -> None:
    """With what the platform said and asked for."""
    judgement = Judgement(call=call, detail="why", retry_after="9")

    assert outage_of(judgement) == Outage(kind=kind, detail="why", retry_after="9")


MANUAL = Outage(kind=OutageKind.MANUAL, detail="a person")
STORM = Outage(kind=OutageKind.STORM, detail="too many")


@pytest.mark.parametrize("by_hand", [MANUAL, STORM], ids=["manual", "storm"])
def test_a_pause_by_hand_ends_only_by_hand(by_hand: Outage) -> None:
    """No probe, no deadline and no other outage moves it."""
    breaker = Breaker(hold_limit_s=300.0)
    breaker.pause_by_hand(by_hand, now=10.0)
    breaker.recovered(by_entry=False)
    breaker.reopen(20.0)

    assert not breaker.expire(1e9)
    assert breaker.by_hand
    assert (breaker.mode, breaker.outage, breaker.since) == (Mode.PAUSED, by_hand, 10.0)
    breaker.let_go(now=30.0)
    assert breaker.running
    assert breaker.outage is None


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_outage_beneath_a_pause_by_hand_is_taken_up_again(when: str) -> None:
    """The person's resume does not make the platform well."""
    breaker = tripped(now=100.0) if when == "before" else Breaker(hold_limit_s=300.0)
    breaker.pause_by_hand(MANUAL, now=200.0)
    if when == "meanwhile":
        breaker.trip(outage(), now=250.0, wait_s=None)
    assert breaker.outage == MANUAL
    breaker.let_go(now=1000.0)

    assert breaker.mode is Mode.HOLDING
    assert breaker.outage == outage()
    assert breaker.deadline() == 1300.0


def test_an_outage_that_ended_beneath_a_pause_by_hand_is_forgotten() -> None:
    """A probe that was on its way was accepted."""
    breaker = tripped()
    breaker.pause_by_hand(MANUAL, now=200.0)
    breaker.recovered(by_entry=False)
    breaker.let_go(now=300.0)

    assert breaker.running


def test_a_wait_that_the_platform_asked_for_outlasts_a_pause_by_hand() -> None:
    """Resuming must not send before the Retry-After is over."""
    breaker = tripped(OutageKind.THROTTLED, now=100.0, wait_s=250.0)
    breaker.pause_by_hand(MANUAL, now=110.0)
    breaker.let_go(now=120.0)

    assert not breaker.running
    assert breaker.retry_at == 350.0


def test_one_resume_ends_a_pause_and_a_storm() -> None:
    """The later reason is shown, and nothing is left beneath."""
    breaker = Breaker(hold_limit_s=300.0)
    breaker.pause_by_hand(MANUAL, now=10.0)
    breaker.pause_by_hand(STORM, now=20.0)
    assert breaker.outage == STORM
    breaker.let_go(now=30.0)

    assert breaker.running


def test_letting_go_of_what_nobody_holds_changes_nothing() -> None:
    """Only a pause by hand is ended by hand: an outage goes on being probed for."""
    breaker = tripped()
    breaker.let_go(now=200.0)

    assert breaker.mode is Mode.HOLDING
