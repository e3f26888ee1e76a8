"""How long nothing was settled although something waited and nothing was broken on purpose; and how fast it recovered.

Times are monotonic seconds, handed in. A stop begins when the last fault ended or the last event was settled, whichever
was later; so the time from the end of all faults to the first settled event is a stop too, and is noted as the recovery
of the fault that ended last.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Stops:
    """``longest_s`` with the fault that ended before it, and the slowest recovery of each kind of fault."""

    since_s: float
    longest_s: float = 0.0
    longest_at_s: float = 0.0
    longest_after: str = ""
    recoveries: dict[str, float] = field(default_factory=dict)
    active: dict[int, str] = field(default_factory=dict)
    _ended: str = "nothing"
    _recovered: bool = True

    def begin(self, number: int, name: str) -> None:
        """A fault begins."""
        self.active[number] = name

    def end(self, number: int, now: float) -> None:
        """A fault is over; its repair is done."""
        self._ended = self.active.pop(number)
        self.since_s = max(self.since_s, now)
        self._recovered = bool(self.active)

    def tick(self, now: float, *, settled: bool, waiting: bool) -> None:
        """A look: whether anything was settled since the last one, and whether anything waits to be."""
        if not self.active and (waiting or settled):
            self._note(now - self.since_s, now)
            if settled and not self._recovered:
                self._recovered = True
                self.recoveries[self._ended] = max(self.recoveries.get(self._ended, 0.0), now - self.since_s)
        if settled or not waiting:
            self.since_s = max(self.since_s, now)

    def _note(self, length_s: float, now: float) -> None:
        if length_s > self.longest_s:
            self.longest_s, self.longest_at_s, self.longest_after = length_s, now, self._ended
