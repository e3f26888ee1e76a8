"""The stage of the benchmarks (private broker, platform in a process of its own), and where their figures go."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.benchmarks.plotting import plot
from tests.benchmarks.record import Record, folder
from tests.benchmarks.runs import Stage
from worker.adapters.privatebroker import PrivateBroker


@pytest.fixture
async def stage(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[Stage]:
    """Empty queues and a platform without orders."""
    async with Stage.set_up(broker, tmp_path) as ready:
        yield ready


@pytest.fixture(scope="session")
def record() -> Iterator[Record]:
    """The figures of this session; in the end a JSON file and a picture, if there were any."""
    made = Record.begin()
    yield made
    if made.empty:
        return
    path = made.write(folder())
    plot(made, path.with_suffix(".png"))
    made.say(f"written: {path} and {path.with_suffix('.png').name}")
