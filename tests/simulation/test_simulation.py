"""The promises, held against thousands of stories. `make simulate` runs as many as there is time for."""

import random
import sys
import time
from itertools import pairwise

import pytest

from tests.simulation.run import failure
from tests.simulation.scenario import Trouble, scenario_of
from tests.simulation.simulation import simulate

SEEDS = 2_000
CHUNKS = 12
BOUNDS = [SEEDS * chunk // CHUNKS for chunk in range(CHUNKS + 1)]


@pytest.mark.parametrize(("first", "after"), list(pairwise(BOUNDS)))
def test_no_story_breaks_a_promise(first: int, after: int) -> None:
    """Whatever fails and heals: nothing lost, nothing backwards, nobody punished for others, at rest in the end."""
    began = time.process_time()
    for seed in range(first, after):
        trace = simulate(seed)
        if trace.violations:
            pytest.fail(failure(seed, trace.violations, trace.lines()), pytrace=False)
    sys.stdout.write(f"{(after - first) / (time.process_time() - began):.0f} seeds per second of CPU\n")


@pytest.mark.parametrize("seed", [2, 48, 351, 573])
def test_a_seed_tells_the_same_story_again(seed: int) -> None:
    """To the last line, whatever ran before it."""
    first = simulate(seed).lines()
    random.seed(time.time_ns())
    simulate(seed + 1)

    assert simulate(seed).lines() == first


def test_the_stories_know_every_trouble() -> None:
    """None of the faults is out of reach of the seeds that are run."""
    met = {fault.trouble for seed in range(SEEDS) for fault in scenario_of(seed).faults}

    assert met == set(Trouble)


def test_a_failure_says_how_to_see_it_again() -> None:
    """Seed, promises, story, command."""
    text = failure(7, ["event 1 is lost"], simulate(7).lines())

    assert "seed 7 broke 1 promises" in text
    assert "event 1 is lost" in text
    assert "broker.consuming" in text
    assert "make simulate SEEDS=1 FROM=7" in text
