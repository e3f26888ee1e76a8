"""How many calls may be in flight: as many as the platform bears, found out by trying (AIMD, as TCP does).

    start         with the most that is allowed
    increase      by one for every round of prompt answers while all slots are in use
    decrease      halved by a call that was throttled, got no answer or was never taken, by values that had to be sent
                  again, and by answers that take twice as long as they used to; at most once per round, because calls
                  that were in flight together tell of the same trouble
    after a pause the last number at which answers came promptly (half of it if it ended in being throttled)

Answers are compared with earlier ones of calls of a similar size only: a full batch may well take longer than a small
one. What is normal follows slowly, so a platform that stays slower is not held against itself for ever.
"""

from dataclasses import dataclass

from worker.core.verdict import Call

SLOWER = 2.0
"""Answers that take so many times as long as usual, and ``SLACK_S`` more, say that the platform has too much to do."""
SLACK_S = 0.1
SAMPLES = 10
"""Answers of a size that have to be known before one can be called slow."""
QUICK, SLOW = 0.3, 0.02
"""Weights of a new answer in what is now and in what is usual: the last few calls, and about the last fifty."""

TROUBLE = frozenset({Call.THROTTLED, Call.UNKNOWN, Call.UNAVAILABLE})


@dataclass(slots=True)
class _Latency:
    """Seconds that calls of one size take: usually, and now."""

    usual_s: float
    now_s: float
    samples: int = 0

    def add(self, took_s: float) -> bool:
        """Take note of an answer; True if they are slow now."""
        self.samples += 1
        self.now_s += QUICK * (took_s - self.now_s)
        self.usual_s += max(SLOW, 1.0 / self.samples) * (took_s - self.usual_s)
        return self.samples > SAMPLES and self.now_s > SLOWER * self.usual_s + SLACK_S


class Slots:
    """Counts the calls in flight and says whether one more may start. ``most`` is the upper bound, 1 the lower."""

    def __init__(self, most: int) -> None:
        self.in_flight = 0
        self._most = most
        self._limit = float(most)
        self._good = most
        self._cut_at = float("-inf")
        self._latency: dict[int, _Latency] = {}

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def free(self) -> bool:
        """Whether one more call may start."""
        return self.in_flight < self.limit

    def take(self) -> None:
        """A call starts."""
        self.in_flight += 1

    def give_back(self) -> None:
        """A call has ended, however."""
        self.in_flight -= 1

    def heard(self, call: Call, *, started: float, now: float, orders: int, again: bool) -> None:
        """A call that began at ``started`` (monotonic seconds) and carried so many orders ended like this; its slot
        is still taken. ``again``: these values were sent before, and nobody knows what became of that."""
        slow = call is Call.ANSWERED and self._is_slow(orders, now - started)
        if call in TROUBLE or slow or (again and call is Call.ANSWERED):
            self._decrease(started, now)
            if call is Call.THROTTLED:
                self._good = min(self._good, self.limit)
        elif call is Call.ANSWERED:
            self._good = self.limit
            self._increase()

    def recovered(self) -> None:
        """Calls may start again after a pause."""
        self._limit = float(self._good)

    def _is_slow(self, orders: int, took_s: float) -> bool:
        size = orders.bit_length()
        latency = self._latency.setdefault(size, _Latency(took_s, took_s))
        return latency.add(took_s)

    def _increase(self) -> None:
        if self.in_flight < self.limit:
            return  # It was never tried whether more would do.
        self._limit = min(float(self._most), self._limit + 1.0 / self.limit)

    def _decrease(self, started: float, now: float) -> None:
        if started < self._cut_at:
            return
        self._limit = max(1.0, self._limit / 2)
        self._cut_at = now
