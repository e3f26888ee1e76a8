"""Permits for calls, where the platform allows only so many (RATE_PER_HOUR, RATE_PER_DAY).

Two rules, in this order of importance: never more calls than allowed, in any hour; and where that is what limits us,
fuller batches instead of more calls. So a full batch leaves as soon as the budget allows any call, and one that is not
full only if the budget would bear such calls for ever: at even distances.

The windows are pyrate-limiter's: exact ones over the calls themselves, and it takes the time from its caller. It loads
multiprocessing and SQLite for windows of other kinds, 2.4 MB, so it is imported where there is a budget.
"""

import math
from typing import TYPE_CHECKING, cast

from worker.core.budget import HOUR_S, calls_per_turn

if TYPE_CHECKING:
    from pyrate_limiter import InMemoryBucket

_MS = 1000
WINDOW_S = HOUR_S + 1.0
"""A little more than an hour: the platform's window sees a call later than ours does, and not always by as much."""


class Permits:
    """``per_hour`` calls in any hour, and no more than a sixth of them in a sixth of it; None: no limit.

    It forgets with the process: a worker that is started anew may spend what an earlier one has spent already, and then
    the platform throttles it.
    """

    def __init__(self, per_hour: int | None) -> None:
        self._bucket = None if per_hour is None else _bucket(per_hour)
        self.per_hour = per_hour
        self._distance_s = 0.0 if per_hour is None else WINDOW_S / per_hour
        self._last = -math.inf

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._bucket is not None

    def left(self, now: float) -> int | None:
        """How many more calls this hour allows; None without a budget."""
        if self._bucket is None or self.per_hour is None:
            return None
        self._bucket.leak(int(now * _MS))
        return self.per_hour - self._bucket.count()

    def wait_s(self, now: float, *, full: bool) -> float:
        """0: a call may start now, and was counted. Otherwise the seconds after which asking again makes sense."""
        if self._bucket is None:
            return 0.0
        if not full and now < self._last + self._distance_s:
            return self._last + self._distance_s - now
        from pyrate_limiter import RateItem

        call = RateItem("call", int(now * _MS))
        self._bucket.leak(call.timestamp)
        if self._bucket.put(call):
            self._last = now
            return 0.0
        wait_ms = cast("int", self._bucket.waiting(call))  # awaitable only for buckets on a server
        return max(1, wait_ms) / _MS


def _bucket(per_hour: int) -> "InMemoryBucket":
    from pyrate_limiter import InMemoryBucket, Rate

    turn = calls_per_turn(per_hour)
    window_ms = int(WINDOW_S * _MS)
    hour = Rate(per_hour, window_ms)
    return InMemoryBucket([Rate(turn, window_ms * turn // per_hour), hour] if turn < per_hour else [hour])
