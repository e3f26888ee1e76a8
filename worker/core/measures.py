"""What is counted while the worker works: the figures behind its metrics (``readings.py`` gives them their names).

Counting is paid per batch, not per event: a settled batch adds its outcomes and its ages in one go, a call adds itself.
Plain numbers, without locks: everything runs on one event loop.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from worker.core.model import APPLIED, Ack, AckReason, Dead, Disposition, Reason, Release, Retry, Settlement
from worker.core.verdict import Call

ENTRY_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Orders in one call; MAX_BATCH is 100 by default."""
CALL_BOUNDS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
"""Seconds a call takes; CALL_TIMEOUT_S is 15 by default."""
AGE_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds from an event to its settlement: well below one when idle, hours after an outage, days for a replay."""


class Outcome(StrEnum):
    """What became of a delivery."""

    ACKED = "acked"
    RETRIED = "retried"
    DEAD = "dead"
    RENEWED = "renewed"
    RELEASED = "released"


class CallKind(StrEnum):
    """What a call was for."""

    ORDERS = "orders"
    CONTROL = "control"
    ECHO = "echo"


NO_REASON = "handed-back"
RETRY_REASONS = (Reason.BUSY, Reason.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, Reason.REJECTED, Reason.REJECTED_IN_DOUBT)
"""Why ``outcome.py`` sends a delivery to a retry tier."""
DEAD_REASONS = tuple(reason for reason in Reason if reason not in (Reason.BUSY, Reason.WORN))
RESULTS = (
    *((Outcome.ACKED, reason) for reason in AckReason),
    *((Outcome.RETRIED, reason) for reason in RETRY_REASONS),
    *((Outcome.DEAD, reason) for reason in DEAD_REASONS),
    (Outcome.RENEWED, Reason.WORN),
    (Outcome.RELEASED, NO_REASON),
)
"""Every outcome with every reason that it can have: a closed set."""


class Histogram:
    """How many values were at most so great. ``bounds`` ascend; above the last one there is one more bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value, 0 or more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_ages(self, times_us: Iterable[int], now_us: int) -> None:
        """Count the seconds that passed since each of these times; those in the future count as none.

        Sorted once and cut at the bounds, so that an event costs no step of ours: a third of the time of ``observe``, a
        twentieth of that of prometheus-client's histogram.
        """
        times = sorted(times_us)
        past = bisect_right(times, now_us)
        before = len(times)
        for index, bound in enumerate(self.bounds):
            older = bisect_left(times, now_us - round(bound * 1_000_000))
            self.counts[index] += before - older
            before = older
        self.counts[-1] += before
        self.total += (now_us * past - sum(times[:past])) / 1_000_000


class Measures:
    """Counters and histograms of one process life. ``last_applied_us`` is wall clock, None before the first one."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[Outcome, str]] = Counter()
        self.calls: Counter[tuple[CallKind, Call]] = Counter()
        self.batches: Counter[str] = Counter()
        self.entries = Histogram(ENTRY_BOUNDS)
        self.call_s = Histogram(CALL_BOUNDS_S)
        self.age_occurred_s = Histogram(AGE_BOUNDS_S)
        self.age_first_seen_s = Histogram(AGE_BOUNDS_S)
        self.last_applied_us: int | None = None

    def settled(self, settlements: Sequence[Settlement], *, wall_us: int) -> Counter[tuple[Outcome, str]]:
        """These were carried out. Returns how many of each outcome and reason there were among them."""
        # Nearly all of them share one of three dispositions, and are counted by which object that is.
        given = [each.disposition for each in settlements]
        found = dict(zip(map(id, given), given, strict=True))
        tally: Counter[tuple[Outcome, str]] = Counter()
        for number, times in Counter(map(id, given)).items():
            tally[_outcome(found[number])] += times
        self.outcomes.update(tally)
        if times := tally[_APPLIED]:
            self._applied(settlements, wall_us, all_of_them=times == len(settlements))
        return tally

    def _applied(self, settlements: Sequence[Settlement], wall_us: int, *, all_of_them: bool) -> None:
        versions = [
            each.update.version
            for each in settlements
            if each.update is not None and (all_of_them or each.disposition == APPLIED)
        ]
        self.age_occurred_s.observe_ages([version.time_us for version in versions], wall_us)
        self.age_first_seen_s.observe_ages([version.first_seen_us for version in versions], wall_us)
        self.last_applied_us = wall_us

    def called(self, kind: CallKind, call: Call, took_s: float) -> None:
        """A call ended like this, after so many seconds."""
        self.calls[kind, call] += 1
        self.call_s.observe(took_s)

    def left(self, reason: str, entries: int) -> None:
        """A batch with entries left for the platform, for this reason."""
        self.batches[reason] += 1
        self.entries.observe(entries)


_APPLIED = (Outcome.ACKED, str(AckReason.APPLIED))


def _outcome(disposition: Disposition) -> tuple[Outcome, str]:
    match disposition:
        case Ack(reason=reason):
            return Outcome.ACKED, str(reason)
        case Retry(counts=False, reason=reason):
            return Outcome.RENEWED, reason
        case Retry(reason=reason):
            return Outcome.RETRIED, reason
        case Dead(reason=reason):
            return Outcome.DEAD, reason
        case Release():
            return Outcome.RELEASED, NO_REASON
