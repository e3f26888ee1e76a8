"""The same loads with other settings, in turns with the usual ones; and with a platform whose latency varies."""

import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.benchmarks.figures import Figures
from tests.benchmarks.loads import load_named
from tests.benchmarks.record import Record, at_most, none_wrong
from tests.benchmarks.runs import WORKER, Stage, has_setting
from tests.benchmarks.standin import RANDOM_LATENCY_S
from tests.benchmarks.test_main_job import EVENTS, ROUNDS

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(7200)]

MOST_SQLITE_CPU_S = 2.5
MOST_ORDINARY_SHARE = 1.2


@asynccontextmanager
async def sqlite(stage: Stage) -> AsyncIterator[str]:
    """A journal of its own for one run: what a journal knows already is covered, and fills no call."""
    path = stage.folder / "bench.db"
    yield f"sqlite:///{path}"
    for file in stage.folder.glob("bench.db*"):
        file.unlink()


@pytest.mark.parametrize("letter", ["A", "C"])
async def test_a_journal_in_a_file_stays_cheap(stage: Stage, record: Record, letter: str) -> None:
    """Every call leaves what it did in SQLite, on the disk."""
    load = load_named(letter, EVENTS)
    runs: list[Figures] = []
    for _ in range(ROUNDS):
        async with sqlite(stage) as url:
            runs.append(await stage.worker(load, name=f"{WORKER}, SQLite", journal_url=url))
    (ours,) = record.compare(runs)

    record.judge(
        none_wrong(ours),
        at_most(f"{letter}, SQLite: CPU seconds per 100,000 events", MOST_SQLITE_CPU_S, ours.cpu_per_100k_s, " s"),
    )


@pytest.mark.parametrize("letter", ["A", "C"])
async def test_the_ordinary_lane_costs_what_the_client_library_costs(stage: Stage, record: Record, letter: str) -> None:
    """Where the fast lane cannot be used, all that is added to the library's own consuming is a fifth."""
    name = f"{WORKER}, ordinary lane"
    load = load_named(letter, EVENTS)
    worker: list[Figures] = []
    bare: list[Figures] = []
    for _ in range(ROUNDS):
        if has_setting("delivery_lane"):
            worker.append(await stage.worker(load, name=name, delivery_lane="ordinary"))
        else:  # then the ordinary one is all there is
            worker.append(await stage.worker(load, name=name))
        bare.append(await stage.bare(load))
    ours, loop = record.compare(worker, bare)

    share = ours.cpu_per_100k_s / loop.cpu_per_100k_s
    record.judge(
        none_wrong(ours),
        at_most(f"{letter}, ordinary lane: CPU, share of the bare loop's", MOST_ORDINARY_SHARE, share),
    )


@pytest.mark.parametrize("letter", ["A", "C"])
async def test_uvloop_beside_asyncio(stage: Stage, record: Record, letter: str) -> None:
    """The same with both event loops; nothing is asked of either but that it is right."""
    if not has_setting("event_loop") or importlib.util.find_spec("uvloop") is None:
        pytest.skip("this worker runs on asyncio's event loop only, or uvloop is not installed")
    load = load_named(letter, EVENTS)
    runs: Mapping[str, list[Figures]] = {"asyncio": [], "uvloop": []}
    for _ in range(ROUNDS):
        for loop, figures in runs.items():
            figures.append(await stage.worker(load, name=f"{WORKER}, {loop}", event_loop=loop))

    record.judge(none_wrong(*record.compare(*runs.values())))


@pytest.mark.parametrize("letter", ["A", "B", "C"])
async def test_no_order_ends_wrong_when_calls_take_turns_to_be_slow(stage: Stage, record: Record, letter: str) -> None:
    """5 to 60 ms a call: two calls for one order would overtake each other."""
    load = load_named(letter, EVENTS)
    name = f"{WORKER}, 5-60 ms"
    runs = [await stage.worker(load, name=name, latency_s=RANDOM_LATENCY_S) for _ in range(ROUNDS)]

    record.judge(none_wrong(*record.compare(runs)))


async def test_events_in_any_order_end_at_the_newest(stage: Stage, record: Record) -> None:
    """About half of the events are older than what is applied when they come: they fill no call."""
    load = load_named("B", EVENTS).shuffled(seed=2)
    runs = [await stage.worker(load) for _ in range(ROUNDS)]

    record.judge(none_wrong(*record.compare(runs)))
