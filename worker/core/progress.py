"""How far a publication is: which lines are confirmed, and when every line says that it happened.

Both have to survive a kill at any moment. A line is stamped by rule, not by a clock: the first line of a *stretch* has
the stretch's time, each further line one microsecond more. A stretch is written down before its first line is sent, so
a line that may be at the broker keeps its stamp (and with it its place in time) in every later try.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from worker.core.errors import UsageError
from worker.core.lines import Line

MAX_LAG_US: Final = 1_000_000
"""How far stamps of a live stream may fall behind the clock before a new stretch begins."""
_FORMAT: Final = 1
_AGAIN: Final = "publish from the start with --restart"


@dataclass(slots=True, kw_only=True)
class Progress:
    """Confirmed are all lines up to ``confirmed_to`` (blank ones included) and those in ``beyond``.

    ``run_id`` makes the message ids, the same in every try. ``events`` counts the confirmed events. ``checksum`` is
    that of the line ``confirmed_to``: it tells an input that changed meanwhile. ``stretches`` holds (first line,
    microseconds), ascending; the last one ends at ``stamped_to``.
    """

    run_id: str
    exchange: str
    confirmed_to: int = 0
    checksum: int = 0
    events: int = 0
    beyond: set[int] = field(default_factory=set)
    stretches: list[tuple[int, int]] = field(default_factory=list)
    stamped_to: int = 0
    _checksums: dict[int, int] = field(default_factory=dict)

    # -- stamps ---------------------------------------------------------------------------------------------------

    def reserve(self, last_line: int, now_us: int) -> bool:
        """Stamp all lines up to ``last_line`` that have no stamp. True: write the state down before sending them."""
        if last_line <= self.stamped_to:
            return False
        first = self.stamped_to + 1
        following = self.stamp_us(first) if self.stretches else None
        if following is None or now_us - following > MAX_LAG_US:
            # A clock that was set back must not put later lines before earlier ones.
            self.stretches.append((first, now_us if following is None else max(now_us, following)))
        self.stamped_to = last_line
        return True

    def stamp_us(self, line: int) -> int:
        """When this line happened, unless it says so itself. It must have been reserved."""
        first, time_us = self.stretches[bisect_right(self.stretches, (line, 1 << 64)) - 1]
        return time_us + line - first

    def message_id(self, line: int) -> str:
        """The same in every try: whoever gets an event twice can tell."""
        return f"{self.run_id}-{line}"

    # -- confirmed lines ------------------------------------------------------------------------------------------

    def begin(self, line: Line) -> bool:
        """Whether this line is still to be published. Call it for all lines in order; blank ones are done at once.

        Raises UsageError where the input is not the one that was published from before.
        """
        if line.number <= self.confirmed_to:
            if line.number == self.confirmed_to and line.checksum != self.checksum:
                raise UsageError(f"the input changed since line {line.number} was published: {_AGAIN}")
            return False
        self._checksums[line.number] = line.checksum
        if line.number not in self.beyond and not line.is_blank:
            return True
        self.beyond.add(line.number)
        self._advance()
        return False

    def confirm(self, line: int) -> None:
        """The broker has the event of this line."""
        self.events += 1
        self.beyond.add(line)
        self._advance()

    def check_end(self, last_line: int) -> None:
        """The input ended here. Raises UsageError where it is shorter than what was published from it."""
        if last_line < max(self.beyond, default=self.confirmed_to):
            raise UsageError(f"the input has {last_line} lines, more were published from it before: {_AGAIN}")

    def _advance(self) -> None:
        # A line counts as passed only once it was read in this run: its checksum is needed.
        while (following := self.confirmed_to + 1) in self.beyond and following in self._checksums:
            self.beyond.remove(following)
            self.confirmed_to = following
            self.checksum = self._checksums.pop(following)
        while len(self.stretches) > 1 and self.stretches[1][0] <= self.confirmed_to:
            del self.stretches[0]

    # -- the state file -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {
            "format": _FORMAT,
            "run_id": self.run_id,
            "exchange": self.exchange,
            "confirmed_to": self.confirmed_to,
            "checksum": self.checksum,
            "events": self.events,
            "beyond": sorted(self.beyond),
            "stretches": [list(stretch) for stretch in self.stretches],
            "stamped_to": self.stamped_to,
        }

    @classmethod
    def from_json(cls, state: object) -> Self:
        """The state of an earlier run. Raises UsageError where it is none."""
        if not isinstance(state, dict) or state.get("format") != _FORMAT or not _is_sound(state):
            raise UsageError(f"is no state of a publication that this version can read: {_AGAIN}")
        return cls(
            run_id=state["run_id"],
            exchange=state["exchange"],
            confirmed_to=state["confirmed_to"],
            checksum=state["checksum"],
            events=state["events"],
            beyond=set(state["beyond"]),
            stretches=[(first, time_us) for first, time_us in state["stretches"]],
            stamped_to=state["stamped_to"],
        )


def _is_sound(state: Mapping[str, Any]) -> bool:
    texts = (state.get("run_id"), state.get("exchange"))
    numbers = [state.get(name) for name in ("confirmed_to", "checksum", "events", "stamped_to")]
    stretches = state.get("stretches")
    return (
        all(isinstance(text, str) and text for text in texts)
        and _are_counts(numbers)
        and _are_counts(state.get("beyond"))
        and isinstance(stretches, list)
        and all(_are_counts(stretch) and len(stretch) == 2 for stretch in stretches)
        and bool(stretches) == bool(state["stamped_to"])
    )


def _are_counts(values: object) -> bool:
    return isinstance(values, Collection) and all(type(value) is int and value >= 0 for value in values)
