"""The watchdog's judgement: what stands still for how long is a finding, and what explains it is none."""

from dataclasses import replace

import pytest

from worker.core.readiness import Activity, IntakeStatus
from worker.core.watch import (
    BLOCKED_S,
    CURED_S,
    GIVE_UP_AFTER_S,
    NOT_CONSUMING_S,
    NOT_SETTLING_S,
    REBUILD_AFTER_S,
    Escalation,
    Remedy,
    Watch,
)

BUSY = Activity(
    mode="running", reason=None, detail="", since_s=0.0, draining=False, unsettled=7, oldest_s=1e6, in_flight=1,
    calls_allowed=4, buffered=0, counts={"delivered": 7, "applied": 3},
)  # fmt: skip
CONSUMING = IntakeStatus(connected=True, consuming=True, generation=1, unsettled=7, delivered=7)
MISSING = replace(CONSUMING, consuming=False)


def test_a_blocked_loop_is_a_finding() -> None:
    """It comes late itself."""
    watch = Watch()

    assert watch.look(0.0, BUSY, CONSUMING, late_s=BLOCKED_S - 0.1) == ""
    assert "blocked for 5.0 s" in watch.look(1.0, BUSY, CONSUMING, late_s=BLOCKED_S)
    assert watch.look(2.0, BUSY, CONSUMING, late_s=0.0) == ""


def test_connected_without_a_consumer_is_a_finding_after_a_while() -> None:
    """Opening takes its time; the clock starts anew after each success."""
    watch = Watch()
    assert watch.look(0.0, BUSY, MISSING, late_s=0.0) == ""
    assert watch.look(NOT_CONSUMING_S - 1, BUSY, MISSING, late_s=0.0) == ""

    assert "not consuming for 30 s" in watch.look(NOT_CONSUMING_S, BUSY, MISSING, late_s=0.0)
    assert watch.look(NOT_CONSUMING_S + 1, BUSY, CONSUMING, late_s=0.0) == ""
    assert watch.look(NOT_CONSUMING_S + 2, BUSY, MISSING, late_s=0.0) == ""


def test_deliveries_without_a_settlement_are_a_finding() -> None:
    """However many more are delivered and sent meanwhile."""
    watch = Watch()
    watch.look(0.0, BUSY, CONSUMING, late_s=0.0)
    more = replace(BUSY, counts={"delivered": 99, "calls": 5, "sent": 50, "applied": 3})

    assert watch.look(NOT_SETTLING_S - 1, more, CONSUMING, late_s=0.0) == ""
    assert "7 deliveries" in watch.look(NOT_SETTLING_S, more, CONSUMING, late_s=0.0)


def test_any_settlement_starts_the_clock_anew() -> None:
    """Slow is not stuck."""
    watch = Watch()
    watch.look(0.0, BUSY, CONSUMING, late_s=0.0)
    watch.look(100.0, replace(BUSY, counts={"delivered": 7, "dead": 1, "applied": 3}), CONSUMING, late_s=0.0)

    assert watch.look(NOT_SETTLING_S + 1, BUSY, CONSUMING, late_s=0.0) == ""


def test_a_message_after_a_silent_night_is_no_finding() -> None:
    """Only as long as something waits there is something to settle."""
    watch = Watch()
    idle = replace(BUSY, unsettled=0, oldest_s=0.0)
    for hour in range(10):
        assert watch.look(hour * 3600.0, idle, CONSUMING, late_s=0.0) == ""

    assert watch.look(36_001.0, replace(BUSY, oldest_s=0.5), CONSUMING, late_s=0.0) == ""


@pytest.mark.parametrize("known", [{"reason": "unavailable"}, {"reason": "manual"}, {"draining": True}], ids=str)
def test_a_known_reason_is_no_finding(known: dict[str, str | bool]) -> None:
    """It is told as what it is; and the clocks start anew after it."""
    watch = Watch()
    away = replace(BUSY, **known)  # type: ignore[arg-type]
    for second in range(0, 1000, 10):
        assert watch.look(float(second), away, MISSING, late_s=0.0) == ""

    assert watch.look(1000.0, BUSY, MISSING, late_s=0.0) == ""


def test_a_finding_is_given_time_before_anything_is_done_about_it() -> None:
    """Most end by themselves."""
    escalation = Escalation()
    looks = [escalation.remedy(float(now), "stalled") for now in range(int(REBUILD_AFTER_S) + 1)]

    assert looks[:-1] == [Remedy.NOTHING] * int(REBUILD_AFTER_S)
    assert looks[-1] is Remedy.REBUILD


def test_findings_that_end_in_between_start_anew() -> None:
    """Two short ones are not a long one."""
    escalation = Escalation()
    findings = ["stalled"] * 20 + [""] + ["stalled"] * 20

    assert {escalation.remedy(float(now), finding) for now, finding in enumerate(findings)} == {Remedy.NOTHING}


def test_a_finding_that_comes_back_soon_after_a_rebuild_is_the_old_one() -> None:
    """Connections are not rebuilt for ever."""
    escalation = Escalation()
    escalation.remedy(0.0, "stalled")
    escalation.remedy(REBUILD_AFTER_S, "stalled")
    escalation.remedy(REBUILD_AFTER_S + 1.0, "")
    again = REBUILD_AFTER_S + CURED_S / 2
    first = escalation.remedy(again, "stalled")

    assert first is Remedy.NOTHING
    assert escalation.remedy(again + GIVE_UP_AFTER_S, "stalled") is Remedy.GIVE_UP


def test_after_a_while_of_good_health_a_rebuild_is_tried_again() -> None:
    """A trouble of next week is a new one."""
    escalation = Escalation()
    escalation.remedy(0.0, "stalled")
    escalation.remedy(REBUILD_AFTER_S, "stalled")
    escalation.remedy(100.0, "")
    escalation.remedy(100.0 + CURED_S, "")
    escalation.remedy(1000.0, "stalled")

    assert escalation.remedy(1000.0 + REBUILD_AFTER_S, "stalled") is Remedy.REBUILD
