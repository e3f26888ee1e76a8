"""How quickly copies of a replay may go out: at an even rate, and behind a canary with care.

The first ``canary`` copies go, then nothing until somebody says that they did well. From then on the pace begins with
as many a second as the canary had, and doubles each second, up to the rate.
"""

from typing import Final

MOST_AT_ONCE: Final = 100
"""Copies in flight at a time."""
_UNLIMITED: Final = 1e9
_STEPS_PER_S: Final = 10
"""A high rate comes in about so many portions a second."""


class Pace:
    """``rate`` is copies per second, None for no limit. All times are monotonic seconds."""

    def __init__(self, *, rate: float | None, canary: int, now: float) -> None:
        self._rate = _UNLIMITED if rate is None else rate
        self._canary = canary
        self._left = canary
        self._released_at: float | None = None
        self._tokens = 1.0
        self._filled_at = now

    @property
    def waits_for_canary(self) -> bool:
        """The first ones are out, and nobody said yet what came of them."""
        return self._canary > 0 and self._left <= 0 and self._released_at is None

    @property
    def is_canary(self) -> bool:
        """The canary was not let through yet."""
        return self._canary > 0 and self._released_at is None

    def release(self, now: float) -> None:
        """The canary did well: go on, slowly at first."""
        self._released_at = self._filled_at = now
        self._tokens = 1.0

    def rate(self, now: float) -> float:
        """Copies per second at this moment."""
        if self._released_at is None:
            return self._rate
        doubled = min(60, int(now - self._released_at))
        return min(self._rate, float(self._canary * 2**doubled))

    def allowed(self, now: float) -> int:
        """How many copies may go now, at most 100; 0: wait."""
        self._fill(now)
        most = MOST_AT_ONCE if not self.is_canary else min(MOST_AT_ONCE, self._left)
        # A hair of float error must not cost a turn of waiting.
        return max(0, min(most, int(self._tokens + 1e-6)))

    def wait_s(self, now: float) -> float:
        """How long until a portion may go: one copy at low rates, a tenth of a second's at high ones."""
        self._fill(now)
        rate = self.rate(now)
        portion = min(float(MOST_AT_ONCE), max(1.0, rate / _STEPS_PER_S))
        return max(0.0, portion - self._tokens) / rate

    def spend(self, count: int) -> None:
        """So many went."""
        self._tokens -= count
        self._left -= count

    def _fill(self, now: float) -> None:
        rate = self.rate(now)
        # Not more than one portion is saved up: whoever was slow does not catch up in a burst.
        room = min(float(MOST_AT_ONCE), max(1.0, rate / _STEPS_PER_S))
        self._tokens = min(room, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
