"""The storm guard: when most messages end as dead letters, something bigger is wrong than the messages.

A producer with a new format, a rule that went wrong, a platform that rejects everything in good order: none of them
looks like an outage, and left alone each would empty the work queue into the dead-letter queue. So every decision is
counted before it is carried out, and when more than ``ratio`` of the last ``window`` decisions are ``Dead`` (looked at
from ``AT_LEAST`` decisions on), no further message is dead-lettered until a person has looked (``restart``).

Acks and retries go on: they lose nothing. Dead letters of orders that a person did not allow (``allowed.py``) count
neither way: they were asked for, and say nothing of what the others are like.
"""

from collections import deque
from collections.abc import Iterable
from itertools import repeat

from worker.core.model import Dead, Reason, Release, Settlement

AT_LEAST = 20
"""Fewer decisions than this prove nothing: three bad events out of five are an ordinary morning."""


class StormGuard:
    """Counts decisions. ``ratio`` is above 0 and at most 1 (1: never a storm), ``window`` at least ``AT_LEAST``."""

    def __init__(self, *, ratio: float, window: int) -> None:
        self._ratio = ratio
        self._recent: deque[bool] = deque(maxlen=window)
        self._dead = 0
        self.tripped = False

    def admit(self, settlements: Iterable[Settlement]) -> list[Settlement]:
        """Count these decisions, made together, and return those that may be carried out, in their order.

        Decisions made together have no order in time, so the good ones count first: a batch of 100 with 25 bad orders
        is no storm, wherever in it they are. The decision that trips the guard is withheld already.
        """
        decided = list(settlements)
        kinds = [type(settlement.disposition) for settlement in decided]
        self._count_good(len(decided) - kinds.count(Dead) - kinds.count(Release))
        if Dead not in kinds:
            return decided
        return [each for each in decided if not isinstance(each.disposition, Dead) or self._may_die(each.disposition)]

    def restart(self) -> None:
        """A person has looked: count from nothing."""
        self._recent.clear()
        self._dead = 0
        self.tripped = False

    @property
    def detail(self) -> str:
        """What was counted, for people."""
        return f"{self._dead} of the last {len(self._recent)} decisions were dead letters"

    @property
    def share(self) -> float:
        """The share of dead letters among the recent decisions, 0 to 1; 0 without any."""
        return self._dead / len(self._recent) if self._recent else 0.0

    def _may_die(self, dead: Dead) -> bool:
        if not self.tripped and dead.reason is not Reason.NOT_ALLOWED:
            self._count(dead=True)
            seen = len(self._recent)
            self.tripped = seen >= AT_LEAST and self._dead > self._ratio * seen
        return not self.tripped

    def _count_good(self, number: int) -> None:
        self._recent.extend(repeat(False, number))
        if self._dead:
            self._dead = sum(self._recent)

    def _count(self, *, dead: bool) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._dead -= self._recent[0]
        self._recent.append(dead)
        self._dead += dead
