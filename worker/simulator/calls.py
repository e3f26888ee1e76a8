"""Every call to the GraphQL endpoint: who made it, what it was about, when it was answered, and which overlapped."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.simulator.connections import Connection

KEPT_CALLS = 10_000


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One call, from its arrival until it is answered or cut off. Monotonic seconds; ``wall_s`` is UTC since 1970."""

    number: int
    connection: Connection
    started_s: float
    wall_s: float
    client: str = ""
    operations: tuple[str, ...] = ()
    order_ids: tuple[int, ...] = ()
    fault: str | None = None
    applied_s: float | None = None
    answered_s: float | None = None
    status: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The call as it is shown under ``/_sim/calls``; ``status`` is null where the client got no answer."""
        names = (
            "number",
            "client",
            "operations",
            "order_ids",
            "fault",
            "started_s",
            "wall_s",
            "applied_s",
            "answered_s",
        )
        return {**{name: getattr(self, name) for name in names}, "status": self.status}


class Calls:
    """Counters of all calls and the last ``KEPT_CALLS`` of them; unless ``keep_orders``, answered ones without orders.

    An overlap is an order named by a call while an earlier call that names it too is unanswered and its client still
    connected: what a worker must never do. A call that its client gave up is not in flight, even if it executes later.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._number = 0
        self._in_flight: dict[int, Call] = {}
        self.open: set[Call] = set()
        self.keep_orders = True
        self.clear()

    def clear(self) -> None:
        """Start counting anew; calls in flight stay known (and started), and numbers are never used twice."""
        self.answered = self.unanswered = 0
        self.started = self.max_concurrent = len(self.open)
        self.by_operation: Counter[str] = Counter()
        self.by_status: Counter[int] = Counter()
        self.entries: Counter[int] = Counter()
        self.overlaps: Counter[int] = Counter()
        self.recent: deque[Call] = deque(sorted(self.open, key=lambda call: call.number), maxlen=KEPT_CALLS)

    def start(self, connection: Connection) -> Call:
        """A call arrived."""
        self._number += 1
        call = Call(number=self._number, connection=connection, started_s=self._clock(), wall_s=self._wall())
        self.started += 1
        self.open.add(call)
        self.max_concurrent = max(self.max_concurrent, len(self.open))
        self.recent.append(call)
        return call

    def enter(self, call: Call, operation: str, order_ids: Sequence[int] = ()) -> None:
        """The call turned out to run ``operation`` on these orders (one call may run several)."""
        self.by_operation[operation] += 1
        if operation == "updateOrders":
            self.entries[len(order_ids)] += 1
        call.operations += (operation,)
        call.order_ids += tuple(order_ids)
        for order_id in order_ids:
            other = self._in_flight.get(order_id)
            if other is not None and other is not call and other.connection.is_open:
                self.overlaps[order_id] += 1
            self._in_flight[order_id] = call

    def finish(self, call: Call, status: int | None) -> None:
        """The call is answered with ``status``, or (None) cut off or abandoned. Only the first time counts."""
        if call not in self.open:
            return
        self.open.discard(call)
        call.status, call.answered_s = status, self._clock()
        if status is None:
            self.unanswered += 1
        else:
            self.answered += 1
            self.by_status[status] += 1
        for order_id in call.order_ids:
            if self._in_flight.get(order_id) is call:
                del self._in_flight[order_id]
        if not self.keep_orders:
            call.order_ids = ()

    def as_json(self) -> dict[str, Any]:
        """The counters as they are shown under ``/_sim/state``."""
        mutations = self.entries.total()
        total = sum(size * times for size, times in self.entries.items())
        return {
            "started": self.started,
            "answered": self.answered,
            "unanswered": self.unanswered,
            "in_flight": len(self.open),
            "max_concurrent": self.max_concurrent,
            "by_operation": dict(self.by_operation),
            "by_status": {str(status): times for status, times in sorted(self.by_status.items())},
            "entries_per_call": {str(size): times for size, times in sorted(self.entries.items())},
            "mean_entries": round(total / mutations, 3) if mutations else 0.0,
            "overlaps": {str(order_id): times for order_id, times in self.overlaps.items()},
        }
