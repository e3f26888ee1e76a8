"""The platform's request budget: so many calls in the last hour and the last day, for each client."""

from collections import defaultdict, deque
from collections.abc import Callable

HOUR_S = 3600.0
DAY_S = 86_400.0


class Rates:
    """Sliding windows; a call that is not admitted costs nothing. Memory is bounded by the limits themselves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: defaultdict[tuple[str, float], deque[float]] = defaultdict(deque)

    def admit(self, client: str, *, hourly: int, daily: int) -> bool:
        """Whether this client may make one more call now, and if so count it. A limit of 0 is no limit."""
        now = self._clock()
        limits = [(span, limit) for span, limit in ((HOUR_S, hourly), (DAY_S, daily)) if limit]
        windows = [(self._recent(client, span, now), limit) for span, limit in limits]
        if any(len(window) >= limit for window, limit in windows):
            return False
        for window, _ in windows:
            window.append(now)
        return True

    def clear(self) -> None:
        """Forget all calls."""
        self._windows.clear()

    def _recent(self, client: str, span_s: float, now: float) -> deque[float]:
        window = self._windows[client, span_s]
        while window and window[0] <= now - span_s:
            window.popleft()
        return window
