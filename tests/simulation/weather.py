"""Which troubles there are at a moment."""

import asyncio
import random

from tests.simulation.scenario import Trouble


class Weather:
    """Troubles, by the virtual time at which each ends. Some are those of one worker alone."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self._until: dict[tuple[Trouble, str], float] = {}

    def begin(self, trouble: Trouble, lasts_s: float, *, worker: str = "") -> None:
        """It is there from now on."""
        self._until[trouble, worker] = now() + lasts_s

    def clear(self) -> None:
        """All is well."""
        self._until.clear()

    def has(self, trouble: Trouble, chance: float = 1.0, *, worker: str = "") -> bool:
        """Whether it strikes now."""
        if not self._until:
            return False
        return self._until.get((trouble, worker), 0.0) > now() and (chance == 1.0 or self.dice.random() < chance)


def now() -> float:
    """Virtual monotonic seconds."""
    return asyncio.get_running_loop().time()
