"""Readiness: the reason that is named first, and that a standby is ready."""

from dataclasses import replace

import pytest

from worker.core.readiness import Activity, IntakeStatus, readiness

WELL = Activity(
    mode="running", reason=None, detail="", since_s=0.0, draining=False, unsettled=0, oldest_s=0.0, in_flight=0,
    calls_allowed=4, buffered=0, counts={},
)  # fmt: skip
CONSUMING = IntakeStatus(connected=True, consuming=True, generation=1, unsettled=0, delivered=3)


def test_a_consumer_with_messages_is_active() -> None:
    """The broker handed this channel something."""
    found = readiness(WELL, CONSUMING)

    assert (found.ready, found.reason, found.role) == (True, None, "active")


def test_a_registered_consumer_without_messages_is_ready() -> None:
    """Standby and empty queue look the same, and both are well."""
    found = readiness(WELL, replace(CONSUMING, delivered=0))

    assert (found.ready, found.role) == (True, "standby_or_idle")


@pytest.mark.parametrize("reason", ["manual", "storm", "unavailable", "throttled", "auth", "configuration"])
def test_an_outage_or_a_pause_is_the_reason(reason: str) -> None:
    """Whatever the broker's side looks like meanwhile: a pause disconnects the consumer itself."""
    found = readiness(
        replace(WELL, mode="paused", reason=reason, detail="why"), replace(CONSUMING, consuming=False, delivered=0)
    )

    assert (found.ready, found.reason, found.detail) == (False, reason, "why")


def test_a_lost_connection_is_told_from_a_missing_consumer() -> None:
    """They are repaired in different places."""
    lost, missing = replace(CONSUMING, connected=False, consuming=False), replace(CONSUMING, consuming=False)

    assert readiness(WELL, lost).reason == "not-connected"
    assert readiness(WELL, missing).reason == "not-consuming"


def test_draining_comes_before_everything() -> None:
    """Nobody has to act on anything else any more."""
    found = readiness(replace(WELL, draining=True, reason="auth"), CONSUMING, stalled="stuck")

    assert (found.ready, found.reason) == (False, "draining")


def test_what_the_watchdog_found_is_the_reason() -> None:
    """Consuming is not enough when nothing moves."""
    found = readiness(WELL, CONSUMING, stalled="the loop was blocked")

    assert (found.ready, found.reason, found.detail) == (False, "stalled", "the loop was blocked")
