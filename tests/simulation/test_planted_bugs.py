"""The simulation bites: it finds every deliberate bug, and soon."""

import sys
from collections.abc import Callable

import pytest

from tests.simulation import journalbugs, verdictbugs
from tests.simulation.bugs import BUGS
from tests.simulation.simulation import simulate

MOST_SEEDS = 2_000
assert {journalbugs.__name__, verdictbugs.__name__} < {plant.__module__ for plant in BUGS.values()}


@pytest.mark.parametrize("plant", BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_caught(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within as many seeds as the test command runs; the first one that shows it is printed."""
    plant(monkeypatch)
    for seed in range(MOST_SEEDS):
        if violations := simulate(seed).violations:
            sys.stdout.write(f"{plant.__name__}: seed {seed}: {violations[0][:150]}\n")
            return

    pytest.fail(f"{plant.__name__} was not caught within {MOST_SEEDS} seeds")
