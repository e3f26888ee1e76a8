"""Records of whole batches, and of rows that somebody else wrote after the claim, the same on every journal."""

from tests.contract.journals import CLAIM_US, NOW, Pair, applied, record_of, version, versions_in
from worker.adapters.journal.claiming import Claims, Handed
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord, OrderOutcome, OrderRow

EXPIRES = NOW + CLAIM_US


def row(order_id: int | None, number: int = 0) -> HistoryRow:
    return HistoryRow(at_us=NOW, disposition="ack", reason="applied", order_id=order_id, message_id=f"m-{number}")


async def test_a_batch_of_any_size_is_recorded_as_a_whole(pair: Pair, one: int) -> None:
    """More orders than a statement takes, more rows of history than orders, and some without an order, in order."""
    ids = range(one, one + 237)
    rows = await pair.a.claim(ids, wall_us=NOW)
    outcomes = {
        order_id: OrderOutcome(revision=claimed.revision, applied=applied(order_id))
        for order_id, claimed in rows.items()
    }
    history = [row(one, number) for number in range(111)] + [row(None), *map(row, ids[1:])]
    await pair.a.record(BatchRecord(wall_us=NOW, orders=outcomes, history=history))

    again = await pair.b.claim(ids, wall_us=NOW)

    assert again == {order_id: OrderRow(values=applied(order_id), revision=2, expires_us=EXPIRES) for order_id in ids}
    assert [each.message_id for _, each in await pair.a.history(one)] == [f"m-{number}" for number in range(111)]
    assert len(await pair.a.history(one + 236)) == 1


async def test_what_a_late_record_applied_is_merged(pair: Pair, one: int) -> None:
    """It changes values without a claim: whoever claimed before that and records after it loses none of them."""
    first = (await pair.a.claim([one], wall_us=NOW))[one]
    second = (await pair.b.claim([one], wall_us=NOW))[one]
    await pair.a.record(record_of(one, OrderOutcome(revision=first.revision, applied=applied(9))))
    mine = {**applied(7), **applied(7, "DPD", "shipping_carrier")}
    await pair.b.record(record_of(one, OrderOutcome(revision=second.revision, applied=mine)))

    found = (await pair.a.claim([one], wall_us=NOW))[one]

    assert versions_in(found) == {"status": version(9), "shipping_carrier": version(7)}
    assert found.standing is None


async def test_an_echo_that_a_late_record_owes_stays(pair: Pair, one: int) -> None:
    """Nobody who claimed before it was noted can have sent it."""
    first = (await pair.a.claim([one], wall_us=NOW))[one]
    second = (await pair.b.claim([one], wall_us=NOW))[one]
    await pair.a.record(record_of(one, OrderOutcome(revision=first.revision, echo_us=NOW + 5)))
    await pair.b.record(record_of(one, OrderOutcome(revision=second.revision)))

    found = (await pair.a.claim([one], wall_us=NOW))[one]

    assert (found.echo_us, found.standing) == (NOW + 5, None)


async def test_one_order_that_was_overtaken_holds_up_none_of_its_batch(pair: Pair, one: int) -> None:
    """All of the batch is recorded, once, and only that order is told of."""
    ids = [one, one + 1, one + 2]
    rows = await pair.a.claim(ids, wall_us=NOW)
    await pair.b.claim([one + 1], wall_us=NOW + 1)
    outcomes = {order_id: OrderOutcome(revision=rows[order_id].revision, applied=applied(3)) for order_id in ids}
    moved = await pair.a.record(BatchRecord(wall_us=NOW, orders=outcomes, history=[*map(row, ids)]))

    again = await pair.b.claim(ids, wall_us=NOW + 2)

    assert set(moved) == {one + 1}
    assert [again[order_id].values for order_id in ids] == [applied(3)] * 3
    assert [again[order_id].standing is None for order_id in ids] == [True, False, True]
    assert [len(await pair.a.history(order_id)) for order_id in ids] == [1, 1, 1]


def test_claims_that_are_never_recorded_are_forgotten() -> None:
    """Calls that were cancelled leave theirs: the latest are kept."""
    claims = Claims(kept=2)
    handed = {number: Handed(OrderRow(values={}, revision=number), "{}", NOW) for number in (1, 2, 3)}
    claims.note(handed)

    assert claims.take(1, 1) is None
    assert claims.take(2, 1) is None
    assert claims.take(2, 2) == handed[2]
    assert claims.take(2, 2) is None
