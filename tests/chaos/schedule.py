"""When which fault happens, to whom and for how long: everything that is random about a campaign, from one seed.

Faults come at random, a few seconds apart, and may overlap; every round ends with a calm, in which stops are measured:
while something is broken on purpose, nobody can tell a slow recovery from the fault itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

SLOTS = 2
"""Workers on the queue: one consumes, one stands by."""
MORTAL = 0
"""Behind ``SPARED_FROM`` of a campaign only this place meets faults that end a life, so that the other worker grows old
enough to tell whether its memory does too."""
SPARED_FROM = 0.25
OF_A_PLACE = frozenset({"worker", "line"})


@dataclass(slots=True, frozen=True, kw_only=True)
class Kind:
    """What is needed to plan a fault: how often it comes (relative to the others), and for how long, in seconds.

    ``needs``: what it has for itself meanwhile; ``ends_life``: the worker that it is against does not survive it.
    """

    name: str
    weight: float
    lasts_s: tuple[float, float]
    needs: tuple[str, ...] = ()
    ends_life: bool = False

    def needed(self, slot: int) -> list[str]:
        """The names of what it needs: each place has a worker and a line of its own."""
        return sorted(f"{need} {slot}" if need in OF_A_PLACE else need for need in self.needs)


@dataclass(slots=True, frozen=True, kw_only=True)
class Pace:
    """Seconds: the mean gap between two beginnings, the length of a round, and of the calm at its end."""

    gap_s: float = 2.5
    round_s: float = 60.0
    calm_s: float = 15.0


@dataclass(slots=True, frozen=True, kw_only=True)
class Planned:
    """One fault: ``at_s`` after the start, against the worker ``slot`` where it is against one."""

    number: int
    at_s: float
    name: str
    lasts_s: float
    slot: int

    def __str__(self) -> str:
        return f"{self.number:4d}  {self.at_s:7.1f} s  {self.name} for {self.lasts_s:.1f} s, worker {self.slot}"


def plan(seed: int, kinds: Sequence[Kind], *, length_s: float, pace: Pace) -> list[Planned]:
    """Every fault of a campaign, the first one first. The same arguments give the same plan."""
    chance = random.Random(seed)
    planned: list[Planned] = []
    busy_until: dict[str, float] = {}
    at_s = chance.expovariate(1 / pace.gap_s)
    while at_s < length_s:
        slot = chance.randrange(SLOTS)
        left_s = min(pace.round_s - pace.calm_s - at_s % pace.round_s, length_s - at_s)
        busy = {need for need, until_s in busy_until.items() if until_s > at_s}
        spared = at_s > SPARED_FROM * length_s and slot != MORTAL
        kind = _choose(chance, [kind for kind in kinds if not (spared and kind.ends_life)], slot, busy, left_s=left_s)
        if kind is not None:
            lasts_s = min(chance.uniform(*kind.lasts_s), left_s)
            planned.append(Planned(number=len(planned) + 1, at_s=at_s, name=kind.name, lasts_s=lasts_s, slot=slot))
            busy_until |= dict.fromkeys(kind.needed(slot), at_s + lasts_s)
        at_s += chance.expovariate(1 / pace.gap_s)
    return planned


def _choose(chance: random.Random, kinds: Sequence[Kind], slot: int, busy: set[str], *, left_s: float) -> Kind | None:
    possible = [kind for kind in kinds if kind.lasts_s[0] < left_s and busy.isdisjoint(kind.needed(slot))]
    return chance.choices(possible, [kind.weight for kind in possible])[0] if possible else None
