"""Does anything move? What a watchdog can tell from outside, however it came to that.

It looks at snapshots, so it also finds what no code path reports: a loop that is blocked, a consumer that nobody keeps,
deliveries that were forgotten. Known outages and pauses are no finding: they have a reason of their own.
"""

from enum import StrEnum

from worker.core.readiness import Activity, IntakeStatus

BLOCKED_S = 5.0
"""A loop that comes late by this much misses heartbeats next (10 s by default)."""
NOT_CONSUMING_S = 30.0
"""Opening a channel and consuming takes a few round trips, and at most a few deadlines of 10 s."""
NOT_SETTLING_S = 120.0
"""Several calls that all time out (15 s each) and their pauses; five such calls are an outage anyway."""

REBUILD_AFTER_S = 30.0
"""A finding that stays so long is not going to end by itself."""
GIVE_UP_AFTER_S = 60.0
"""Longer than connecting and consuming take with all their deadlines."""
CURED_S = 300.0
"""Longer than it takes to find anything again."""

ATTEMPTS = frozenset({"delivered", "calls", "sent"})
"""Counters that grow without anything being settled."""


class Watch:
    """Remembers since when something stands still. All times are monotonic seconds."""

    def __init__(self, *, not_settling_s: float = NOT_SETTLING_S) -> None:
        self._not_settling_s = not_settling_s
        self._missing_since: float | None = None
        self._settled = -1
        self._settled_at = 0.0

    def look(self, now: float, activity: Activity, intake: IntakeStatus, *, late_s: float) -> str:
        """What is wrong at this moment, or an empty text. ``late_s`` is how late the loop was in getting here."""
        well = activity.reason is None and not activity.draining
        consumer = self._consumer_missing(now, wanted=well and intake.connected and not intake.consuming)
        settling = self._not_settling(now, activity, wanted=well and activity.unsettled > 0)
        if late_s >= BLOCKED_S:
            return f"the event loop was blocked for {late_s:.1f} s"
        return consumer or settling

    def _consumer_missing(self, now: float, *, wanted: bool) -> str:
        if not wanted:
            self._missing_since = None
            return ""
        if self._missing_since is None:
            self._missing_since = now
        missing_s = now - self._missing_since
        return f"connected, but not consuming for {missing_s:.0f} s" if missing_s >= NOT_CONSUMING_S else ""

    def _not_settling(self, now: float, activity: Activity, *, wanted: bool) -> str:
        settled = sum(times for name, times in activity.counts.items() if name not in ATTEMPTS)
        if settled != self._settled or not wanted:
            self._settled, self._settled_at = settled, now
            return ""
        still_s = min(now - self._settled_at, activity.oldest_s)
        if still_s < self._not_settling_s:
            return ""
        return f"{activity.unsettled} deliveries, and nothing was settled for {still_s:.0f} s"


class Remedy(StrEnum):
    """What to do about a finding that stays."""

    NOTHING = "nothing"
    REBUILD = "rebuild"
    GIVE_UP = "give up"


class Escalation:
    """Which remedy is due: rebuild the connections once, and where that did not help let somebody restart us.

    A finding that comes back before ``CURED_S`` of good health is the old one: otherwise connections would be rebuilt
    for ever, each time with the whole prefetch delivered anew.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._well_since: float | None = None
        self._rebuilt_at: float | None = None

    def remedy(self, now: float, finding: str) -> Remedy:
        """To be asked with every look; ``finding`` is empty where there is none."""
        if not finding:
            self._get_well(now)
            return Remedy.NOTHING
        self._well_since = None
        self._since = now if self._since is None else self._since
        if self._rebuilt_at is None:
            if now - self._since < REBUILD_AFTER_S:
                return Remedy.NOTHING
            self._rebuilt_at = now
            return Remedy.REBUILD
        return Remedy.GIVE_UP if now - max(self._since, self._rebuilt_at) >= GIVE_UP_AFTER_S else Remedy.NOTHING

    def _get_well(self, now: float) -> None:
        self._since = None
        self._well_since = now if self._well_since is None else self._well_since
        if now - self._well_since >= CURED_S:
            self._rebuilt_at = None
