"""Is it ready, and if not, why: what probes of an orchestrator and people want to know.

First match wins:

    draining             asked to stop
    manual, storm        paused until a person resumes it
    unavailable, throttled, auth, configuration     the platform is away: holding, or paused and probing
    copies               a copy for the dead-letter queue or a retry queue cannot be placed (its detail says why)
    journal              the journal is away, and nothing may be acknowledged that it does not know
    stalled              the watchdog found that nothing moves (its detail says what)
    not-connected        no connection to the broker (yet, or at the moment)
    not-consuming        connected, but the broker has not confirmed the consumer

A registered consumer is ready, whether it gets messages or not: with a single active consumer it may be the standby,
and AMQP does not tell that from an empty queue. So the role is ``active`` once this channel was handed a message, and
``standby_or_idle`` before.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class Activity:
    """What the pipeline is doing. ``since_s`` is how long it has been holding or paused, ``oldest_s`` the age of the
    delivery that waits longest; 0 where there is none. ``reason`` is the kind of outage. ``storm_share`` is the share
    of dead letters among the recent decisions. ``budget`` are the calls allowed per hour, None without a limit."""

    mode: str
    reason: str | None
    detail: str
    since_s: float
    draining: bool
    unsettled: int
    oldest_s: float
    in_flight: int
    calls_allowed: int
    buffered: int
    counts: Mapping[str, int]
    journal_up: bool = True
    storm_tripped: bool = False
    storm_share: float = 0.0
    budget: int | None = None
    budget_left: int | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class IntakeStatus:
    """What the consumer is doing. ``consuming`` is the broker's consume-ok; ``delivered`` counts messages of the
    channel that is open, ``generation`` the channels so far.

    Of several ``partitions`` all are registered where it is consuming, and ``serving`` are those whose open channel was
    handed a message; the counts are those of all channels together. ``fast_lane``: deliveries are cut out of the byte
    stream, on every open channel."""

    connected: bool
    consuming: bool
    generation: int
    unsettled: int
    delivered: int
    partitions: int = 1
    serving: int = 0
    fast_lane: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class Readiness:
    """``reason`` is one of the list above, or None when ready."""

    ready: bool
    reason: str | None = None
    detail: str = ""
    role: str | None = None


def readiness(activity: Activity, intake: IntakeStatus, *, stalled: str = "") -> Readiness:
    """Judge one moment. ``stalled`` is what the watchdog found, empty if nothing."""
    if activity.draining:
        return Readiness(ready=False, reason="draining")
    if activity.reason is not None:
        return Readiness(ready=False, reason=activity.reason, detail=activity.detail)
    if stalled:
        return Readiness(ready=False, reason="stalled", detail=stalled)
    if not intake.connected:
        return Readiness(ready=False, reason="not-connected", detail="no connection to the broker")
    if not intake.consuming:
        return Readiness(ready=False, reason="not-consuming", detail="the broker has not confirmed the consumer")
    return Readiness(ready=True, role="active" if intake.delivered else "standby_or_idle")
