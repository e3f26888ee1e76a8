"""May calls start? One small machine for every kind of outage.

                 outage                          hold limit over, or auth/configuration,
    RUNNING ---------------> HOLDING ----------> or a known wait beyond the hold limit  ----> PAUSED
       ^                        |                                                               |
       +------------------------+---------------------- the platform answers again ------------+

HOLDING keeps everything unsettled in memory and lets only probes through. PAUSED has handed everything back to the
broker and consumes nothing, so the broker and its tools see it. Both end by themselves as soon as a probe is accepted.

A control call touches no order, so an accepted one may prove nothing: where calls fail again before any order was
applied, the next probes are entries (``needs_entry``). Otherwise a platform that only minds orders (a missing scope is
one case) would have every message handed back and fetched again at the rate of the probes.

A pause by hand, or one after which a person has to look (``BY_HAND``), outranks all this: it begins at once from any
state, nobody probes, and only ``let_go`` ends it. An outage of the platform that was known before, or was reported
meanwhile, is then taken up again.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from worker.core.outage import BY_HAND, Outage, OutageKind

IMMEDIATE = frozenset({OutageKind.AUTH, OutageKind.CONFIGURATION})


class Mode(StrEnum):
    """What the worker does at the moment."""

    RUNNING = "running"
    HOLDING = "holding"
    PAUSED = "paused"


@dataclass(slots=True)
class Breaker:
    """State of the way to the platform. Times are monotonic seconds; ``hold_limit_s`` bounds HOLDING."""

    hold_limit_s: float
    mode: Mode = Mode.RUNNING
    outage: Outage | None = None
    since: float = 0.0
    retry_at: float = 0.0
    throttled: int = 0
    beneath: Outage | None = None
    unproved: bool = False

    def trip(self, outage: Outage, *, now: float, wait_s: float | None) -> bool:
        """Note an outage; ``wait_s`` is how long the platform asked us to wait, if it did. True if the mode changed.

        An outage that a later call reports while one is known only updates what is known of it.
        """
        before = self.mode
        if self.unproved:
            outage = replace(outage, needs_entry=True)
        if self.mode is Mode.RUNNING:
            self.since = now
            self.mode = Mode.HOLDING
        if self.by_hand:
            self.beneath = outage
        else:
            self.outage = outage
        if outage.kind is OutageKind.THROTTLED:
            self.throttled += 1
        if wait_s is not None:
            self.wait(wait_s, now=now)
        if (outage.kind in IMMEDIATE and not outage.needs_entry) or self.retry_at - now > self.hold_limit_s:
            self.mode = Mode.PAUSED
        return self.mode is not before

    def pause_by_hand(self, outage: Outage, *, now: float) -> None:
        """Pause until ``let_go``. A later reason replaces an earlier one: one ``let_go`` ends both."""
        if not self.by_hand:
            self.beneath, self.since = self.outage, now
        self.mode, self.outage = Mode.PAUSED, outage

    def let_go(self, *, now: float) -> None:
        """A person ends the pause: RUNNING, or what the platform's own outage beneath it asks for."""
        if not self.by_hand:
            return
        beneath, self.beneath = self.beneath, None
        self.mode, self.outage = Mode.RUNNING, None
        if beneath is not None:
            self.trip(beneath, now=now, wait_s=None)

    def pause(self) -> None:
        """Hand back at once, whatever the hold limit says."""
        self.mode = Mode.PAUSED

    def wait(self, wait_s: float, *, now: float) -> None:
        """Nobody may call or probe for so long."""
        self.retry_at = max(self.retry_at, now + wait_s)

    def expire(self, now: float) -> bool:
        """Turn a hold that lasted too long into a pause; True if that happened now."""
        if self.mode is Mode.HOLDING and now >= self.since + self.hold_limit_s:
            self.mode = Mode.PAUSED
            return True
        return False

    def reopen(self, now: float) -> None:
        """From PAUSED back to HOLDING: consume again, because only an entry can show whether the platform works."""
        if self.by_hand:
            return
        self.mode = Mode.HOLDING
        self.since = now

    def applied(self) -> None:
        """The platform took an order: it works, whatever control calls say."""
        self.unproved = False

    def recovered(self, *, by_entry: bool) -> None:
        """A probe was accepted. Under a pause by hand that only ends the outage beneath."""
        self.unproved = not by_entry
        if self.by_hand:
            self.beneath = None
        else:
            self.mode, self.outage = Mode.RUNNING, None
        self.retry_at = 0.0
        self.throttled = 0

    @property
    def by_hand(self) -> bool:
        """Whether it is paused until a person ends it."""
        return self.outage is not None and self.outage.kind in BY_HAND

    @property
    def running(self) -> bool:
        """Whether calls may start."""
        return self.mode is Mode.RUNNING

    def deadline(self) -> float | None:
        """When ``expire`` has something to say."""
        return self.since + self.hold_limit_s if self.mode is Mode.HOLDING else None
