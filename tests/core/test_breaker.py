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
    breaker.recovered()

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
