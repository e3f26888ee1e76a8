"""Two workers on one journal at once: what one SQLite file and one PostgreSQL make of it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.util import await_only

from tests.contract.journals import (
    NOW,
    SECOND,
    AnyJournal,
    Pair,
    applied,
    fresh_id,
    opened,
    record_of,
    url_of,
    version,
    versions_in,
)
from worker.adapters.journal.database import Database
from worker.adapters.journal.ways import Kind
from worker.core.journal import BatchRecord, OrderOutcome, OrderRow

DURABLE = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(params=DURABLE)
def durable_url(request: pytest.FixtureRequest) -> str:
    return url_of(request.param, request)


@pytest.fixture
async def pair(durable_url: str) -> AsyncIterator[Pair]:
    async with opened(durable_url, "a", "b") as [a, b]:
        yield Pair(a, b)


async def rounds(journal: AnyJournal, ids: list[int], times: list[int]) -> None:
    """Claim all, apply one version to each, one round per time."""
    for time_us in times:
        rows = await journal.claim(ids, wall_us=NOW)
        outcomes = {each: OrderOutcome(revision=rows[each].revision, applied=applied(time_us)) for each in ids}
        await journal.record(BatchRecord(wall_us=NOW, orders=outcomes))


async def test_overlapping_batches_in_opposite_order_all_get_through(pair: Pair) -> None:
    """No deadlock and no busy database reaches the caller; no claim is lost, and the greatest version stays."""
    first = fresh_id()
    ids = list(range(first, first + 40))
    times = list(range(1, 61))
    random.Random(7).shuffle(times)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            journal = pair.a if number % 2 else pair.b
            mine = ids[:30] if number % 2 else ids[:9:-1]
            group.create_task(rounds(journal, mine, times[number * 10 : (number + 1) * 10]))

    rows = await pair.a.claim(ids, wall_us=NOW)
    assert {row.revision for row in rows.values()} == {31, 61}
    assert [versions_in(rows[each])["status"] for each in ids[10:30]] == [version(60)] * 20


@pytest.mark.postgres
async def test_a_deadlock_is_repeated(postgres_url: str) -> None:
    """PostgreSQL ends one of the two; that one begins anew and its caller hears nothing."""
    first = fresh_id()
    met, waiting = asyncio.Barrier(2), 2
    a, b = Database(postgres_url), Database(postgres_url)

    def both(one: int, other: int) -> Callable[[Connection], int]:
        async def meet() -> None:
            nonlocal waiting
            if waiting:  # only the first time
                waiting -= 1
                await met.wait()

        def work(connection: Connection) -> int:
            lock = text("SELECT revision FROM orders WHERE order_id = :id FOR UPDATE")
            connection.execute(lock, {"id": one})
            await_only(meet())
            return int(connection.execute(lock, {"id": other}).scalar_one())

        return work

    async with opened(postgres_url, "a") as [journal]:
        await journal.claim([first, first + 1], wall_us=NOW)
    found = await asyncio.gather(a.run(both(first, first + 1)), b.run(both(first + 1, first)))
    await a.close()
    await b.close()

    assert list(found) == [1, 1]


@pytest.mark.postgres
async def test_a_frozen_worker_does_not_keep_orders_locked(postgres_url: str) -> None:
    """Stopped in the middle of a transaction: the server ends it after the deadline of that worker."""
    first = fresh_id()
    frozen, thawed = Database(postgres_url, deadline_s=0.5), asyncio.Event()

    def freezes(connection: Connection) -> None:
        connection.execute(text("SELECT 1 FROM orders WHERE order_id = :id FOR UPDATE"), {"id": first})
        locked.set()
        await_only(thawed.wait())

    async with opened(postgres_url, "b") as [other]:
        await other.claim([first], wall_us=NOW)
        locked = asyncio.Event()
        holding = asyncio.create_task(frozen._once(freezes, Kind.WHOLE))
        await locked.wait()
        rows = await other.claim([first], wall_us=NOW)
        thawed.set()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the driver makes of it
            await holding
    again = await frozen.run(lambda connection: connection.scalar(text("SELECT 7")))
    await frozen.close()

    assert again == 7
    assert rows[first].revision == 2


# -- any interleaving -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What one of the workers does to one of two orders."""

    worker: int
    place: int
    time_us: int
    field: str
    claims: bool
    known: bool
    echo_us: int | None


steps = st.lists(
    st.builds(
        Step,
        worker=st.integers(0, 1),
        place=st.integers(0, 1),
        time_us=st.integers(0, 9),
        field=st.sampled_from(["status", "shipping_carrier"]),
        claims=st.booleans(),
        known=st.booleans(),
        echo_us=st.none() | st.integers(NOW, NOW + 3),
    ),
    max_size=16,
)


async def played(journals: list[AnyJournal], first: int, story: list[Step]) -> list[object]:
    """Everything that the journals answered, and what they hold in the end."""
    held: dict[tuple[int, int], OrderRow] = {}
    answers: list[object] = []
    for number, step in enumerate(story):
        journal, order_id, wall_us = journals[step.worker], first + step.place, NOW + number * SECOND
        if step.claims:
            row = (await journal.claim([order_id], wall_us=wall_us))[order_id]
            held[step.worker, step.place] = row
            answers.append(row)
            continue
        claim = held.get((step.worker, step.place))
        outcome = OrderOutcome(
            revision=-1 if claim is None else claim.revision,
            applied=applied(step.time_us, step.time_us, step.field),
            known=step.known,
            echo_us=step.echo_us,
            echoed_us=None if claim is None else claim.echo_us,
        )
        moved = await journal.record(record_of(order_id, outcome, wall_us))
        answers.append({each - first: standing for each, standing in moved.items()})
    last = await journals[0].claim([first, first + 1], wall_us=NOW + 1000 * SECOND)
    return [*answers, last[first], last[first + 1]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=steps)
async def test_any_interleaving_leaves_the_greatest_versions(pair: Pair, story: list[Step]) -> None:
    """Per field the greatest version that was recorded; and every answer is the one that memory gives."""
    first = fresh_id()
    found = await played([pair.a, pair.b], first, story)

    async with opened("", "a", "b") as memory:
        assert found == await played(memory, first, story)
    for place, row in enumerate(found[-2:]):
        assert isinstance(row, OrderRow)
        for field, highest in versions_in(row).items():
            times = [each.time_us for each in story if (each.place, each.field, each.claims) == (place, field, False)]
            assert highest == version(max(times))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=steps)
async def test_at_once_the_greatest_versions_stay_too(pair: Pair, story: list[Step]) -> None:
    """The same steps, all started together: whoever gets through first, nothing goes backwards."""
    first = fresh_id()
    journals = (pair.a, pair.b)

    async def play(step: Step) -> None:
        journal, order_id = journals[step.worker], first + step.place
        row = (await journal.claim([order_id], wall_us=NOW))[order_id]
        values = applied(step.time_us, step.time_us, step.field)
        await journal.record(record_of(order_id, OrderOutcome(revision=row.revision, applied=values)))

    await asyncio.gather(*map(play, story))

    rows = await pair.a.claim([first, first + 1], wall_us=NOW)
    for place in (0, 1):
        ours = [step for step in story if step.place == place]
        greatest = {field: max(s.time_us for s in ours if s.field == field) for field in {s.field for s in ours}}
        assert versions_in(rows[first + place]) == {field: version(time_us) for field, time_us in greatest.items()}
        assert rows[first + place].revision == len(ours) + 1
