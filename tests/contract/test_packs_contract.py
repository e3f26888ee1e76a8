"""History of whole batches: wherever a journal puts it, it comes back in order, by order, and is forgotten by age."""

from tests.builders import make_update
from tests.contract.journals import CLAIM_US, NOW, SECOND, AnyJournal, Pair, applied, record_of, version, versions_in
from worker.adapters.journal import packs
from worker.adapters.journal.sql import SqlJournal
from worker.core.bookkeeping import History
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord, OrderOutcome
from worker.core.model import APPLIED, Settlement

DAY = 86_400 * SECOND
TABLES = ("history", "history_packs", "history_found", "history_unsorted")


def batch(*order_ids: int, wall_us: int = NOW, message_id: str = "m") -> BatchRecord:
    """The record of a batch as the worker makes it."""
    updates = [
        make_update(order_id, at=1_000.0, sequence=place, tag=place + 1, message_id=f"{message_id}{place}")
        for place, order_id in enumerate(order_ids)
    ]
    settlements = [
        Settlement(delivery=update.delivery, disposition=APPLIED, update=update, batch_id="b") for update in updates
    ]
    return BatchRecord(wall_us=wall_us, history=History(settlements, wall_us=wall_us, worker="w"))


def replayed(order_id: int, message_id: str) -> HistoryRow:
    return HistoryRow(
        at_us=NOW, disposition="ack", reason="applied", order_id=order_id, message_id=message_id,
        version=version(1, message_id), replay_id=f"r{order_id}", replay_place=0,
    )  # fmt: skip


async def counts(journal: AnyJournal) -> list[int]:
    """The rows of each table of history."""
    assert isinstance(journal, SqlJournal)
    return await journal.database.run(
        lambda on: [on.exec_driver_sql(f"SELECT count(*) FROM {each}").scalar_one() for each in TABLES]  # noqa: S608
    )


async def test_a_batch_comes_back_as_its_rows(pair: Pair, one: int) -> None:
    """Of each order its own, several of one order in their order, whatever is in a message id."""
    record = batch(one, one + 1, one, one + 2, message_id="m\x00\udcff")
    await pair.a.record(record)

    found = [row for _, row in await pair.b.history(one)]

    assert [row.version for row in found] == [record.history[0].version, record.history[2].version]
    assert [(row.fields, row.worker, row.batch_id, row.attempt) for row in found] == [
        (row.fields, "w", "b", 1) for row in (record.history[0], record.history[2])
    ]
    assert len(await pair.b.history(one + 2)) == 1
    assert await pair.b.history(one + 3) == []


async def test_pages_go_through_batches_and_single_rows_alike(pair: Pair, one: int) -> None:
    """What belongs to a replay is kept elsewhere; numbers rise all the same, and each row comes once."""
    await pair.a.record(batch(one, one, one + 1, message_id="a"))
    await pair.b.record(BatchRecord(wall_us=NOW, history=[replayed(one, "b0"), replayed(one + 1, "-")]))
    await pair.a.record(batch(one + 1, one, message_id="c"))
    await pair.b.record(BatchRecord(wall_us=NOW, history=[replayed(one, "d0")]))

    pages: list[list[tuple[int, str]]] = []
    after = 0
    while page := await pair.a.history(one, after=after, limit=2):
        pages.append([(number, row.message_id) for number, row in page])
        after = page[-1][0]

    assert [[message_id for _, message_id in page] for page in pages] == [["a0", "a1"], ["b0", "c1"], ["d0"]]
    numbers = [number for page in pages for number, _ in page]
    assert numbers == sorted(set(numbers))
    assert [row.message_id for row in (await pair.b.outcomes(f"r{one}")).values()] == ["d0"]


async def test_pruning_forgets_whole_batches_and_leaves_nothing_of_them(own: AnyJournal) -> None:
    """The oldest first, at least as many of them in each step as asked for; what finds them goes along."""
    for number in range(5):
        await own.record(batch(1, 2, 3, wall_us=NOW + number * SECOND))
    await own.history(1)  # they can be found now

    steps = [await own.prune(NOW + 3 * SECOND, limit=4) for _ in range(4)]
    assert (sum(steps), steps[-1]) == (9, 0)

    assert [row.at_us for _, row in await own.history(2)] == [NOW + 3 * SECOND, NOW + 4 * SECOND]
    assert await own.prune(NOW + DAY, limit=100) == 6
    assert await own.history(1) == []
    if isinstance(own, SqlJournal):
        assert await counts(own) == [0, 0, 0, 0]


async def test_what_finds_batches_is_written_by_the_thousand(own: AnyJournal) -> None:
    """A batch writes a pack and a list; the list is gone when enough of them are there."""
    if not isinstance(own, SqlJournal) or not own.database.is_sqlite:
        return
    orders = range(1, 1001)
    for _ in range(packs.SORTED_IN_AT // 1000 - 1):
        await own.record(batch(*orders))
    before = await counts(own)
    await own.record(batch(*orders))

    assert (before, await counts(own)) == ([0, 9, 0, 9], [0, 10, 10_000, 0])


async def test_what_came_between_the_first_claim_and_its_record_is_merged(pair: Pair, one: int) -> None:
    """A late record of a claim that nobody knows any more changes the row without raising its revision."""
    claimed = (await pair.a.claim([one], wall_us=NOW))[one]
    await pair.b.record(record_of(one, OrderOutcome(revision=0, applied=applied(9), known=False)))
    await pair.a.record(record_of(one, OrderOutcome(revision=claimed.revision, applied=applied(7, "DPD", "carrier"))))

    found = (await pair.b.claim([one], wall_us=NOW + CLAIM_US))[one]

    assert versions_in(found) == {"status": version(9), "carrier": version(7)}
    assert found.standing is None
