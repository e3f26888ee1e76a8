"""The delay tiers: how often an update was tried, how long the next one keeps it away, and who waits in one.

Later events of an order go on while an earlier one waits. So what is refused meanwhile may be refused only because the
earlier one is not applied yet; that is why it is remembered who waits, and until when.
"""

from collections.abc import Sequence
from typing import Final

from worker.core.model import Update, Version

REMEMBERED: Final = 100_000
"""Orders of which it is known that something of theirs waits; the oldest are forgotten first."""


class Tiers:
    """``delays_s`` are the tiers, the shortest first; an update is tried ``max_attempts`` times at most."""

    def __init__(self, delays_s: Sequence[float], *, max_attempts: int) -> None:
        self._delays_s = tuple(delays_s)
        self._max_attempts = max_attempts
        self._waiting: dict[int, dict[Version, float]] = {}

    def exhausted(self, update: Update) -> bool:
        """Whether that was its last attempt."""
        return update.attempt >= self._max_attempts

    def tier_of(self, update: Update) -> int:
        """Into which one it goes after this attempt."""
        return min(update.attempt, len(self._delays_s)) - 1

    def send(self, order_id: int, updates: Sequence[Update], now: float) -> None:
        """These updates of one order wait from now on. ``now`` is monotonic seconds."""
        waiting = {version: until for version, until in self._waiting.pop(order_id, {}).items() if until > now}
        for update in updates:
            # The copy comes back after the tier's delay and then has to pass the queue: twice the delay is a guess.
            waiting[update.version] = now + 2 * self._delays_s[self.tier_of(update)] + 1
        if waiting:
            self._waiting[order_id] = waiting
        while len(self._waiting) > REMEMBERED:
            del self._waiting[next(iter(self._waiting))]

    def earlier_waits(self, update: Update, now: float) -> bool:
        """Whether an earlier one of its order still waits."""
        waiting = self._waiting.get(update.order_id, {})
        return any(version < update.version and until > now for version, until in waiting.items())
