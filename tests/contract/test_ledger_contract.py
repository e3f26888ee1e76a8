"""Claims, revisions and echoes, the same on every journal (``journalports.Ledger``, ``core/journal.py``)."""

import pytest
from msgspec.structs import replace

from tests.contract.journals import (
    CLAIM_US,
    NOW,
    SECOND,
    Pair,
    applied,
    record_of,
    version,
    versions_in,
)
from worker.core.journal import BatchRecord, Claim, OrderOutcome, OrderRow
from worker.core.model import Scalar, Version
from worker.journalports import Ledger

EXPIRES = NOW + CLAIM_US


@pytest.fixture
def ledger(pair: Pair) -> Ledger:
    return pair.a


async def claim(ledger: Ledger, order_id: int, wall_us: int = NOW) -> OrderRow:
    return (await ledger.claim([order_id], wall_us=wall_us))[order_id]


async def test_an_order_never_seen_is_claimed_empty(ledger: Ledger, one: int) -> None:
    """Every order asked for is in the answer."""
    rows = await ledger.claim([one + 1, one], wall_us=NOW)

    nothing = OrderRow(values={}, revision=1, expires_us=EXPIRES)
    assert rows == {one: nothing, one + 1: nothing}
    assert await ledger.claim([], wall_us=NOW) == {}


async def test_a_claim_hands_out_values_and_versions(ledger: Ledger, one: int) -> None:
    """What the caller needs to leave out what is covered, and to send an echo."""
    row = await claim(ledger, one)
    values = {**applied(7, 8), **applied(9, None, "shipping_method")}
    await ledger.record(record_of(one, OrderOutcome(revision=row.revision, applied=values)))

    row = await claim(ledger, one)

    assert row == OrderRow(values=values, revision=2, expires_us=EXPIRES)
    assert versions_in(row) == {"status": version(7), "shipping_method": version(9)}


@pytest.mark.parametrize("value", [None, True, 0, -(2**63), 2**63 - 1, 2**70, 0.1, 1e300, "", "ä\x00\udcff\U0001f600"])
async def test_values_and_versions_come_back_exactly(ledger: Ledger, one: int, value: Scalar) -> None:
    """Whatever an event may hold, texts that are no UTF-8 included."""
    exact = Version(-(2**60), 2**63 - 1, 2**60, "id\x00\udcff'\"é")
    row = await claim(ledger, one)
    await ledger.record(record_of(one, OrderOutcome(revision=row.revision, applied={"weight": (exact, value)})))

    (found,) = (await claim(ledger, one)).values.values()

    assert found == (exact, value)
    assert type(found[1]) is type(value)


async def test_a_known_outcome_clears_the_claim(pair: Pair, one: int) -> None:
    """The next one finds nothing standing."""
    row = await claim(pair.a, one)

    moved = await pair.a.record(record_of(one, OrderOutcome(revision=row.revision)))

    assert moved == {}
    assert (await claim(pair.b, one)).standing is None


async def test_an_unknown_outcome_leaves_the_claim(pair: Pair, one: int) -> None:
    """The call may still be executed, until the claim ends."""
    row = await claim(pair.a, one)
    await pair.a.record(record_of(one, OrderOutcome(revision=row.revision, known=False)))

    assert (await claim(pair.b, one, NOW + SECOND)).standing == Claim("a", EXPIRES)


async def test_a_claim_without_record_stands(pair: Pair, one: int) -> None:
    """A crash between claim and record; an expired claim is handed out like any other, and so is one's own."""
    await claim(pair.a, one)

    assert (await claim(pair.a, one, NOW + 2 * CLAIM_US)).standing == Claim("a", EXPIRES)


async def test_who_was_overtaken_learns_it(pair: Pair, one: int) -> None:
    """The revision moved: both were at the order at once. The claim that stands now is not theirs to clear."""
    first = await claim(pair.a, one)
    second = await claim(pair.b, one)

    moved = await pair.a.record(record_of(one, OrderOutcome(revision=first.revision, applied=applied(5))))

    assert second.standing == Claim("a", EXPIRES)
    assert moved == {one: Claim("b", EXPIRES)}
    assert await pair.b.record(record_of(one, OrderOutcome(revision=second.revision, applied=applied(4)))) == {}
    assert await pair.a.record(record_of(one, OrderOutcome(revision=first.revision))) == {one: None}
    assert (await claim(pair.a, one)).values == applied(5)


async def test_an_expiry_never_shrinks(pair: Pair, one: int) -> None:
    """A worker whose clock is behind must not shorten what another one is waited for."""
    await claim(pair.a, one, NOW)
    await claim(pair.b, one, NOW - 10 * SECOND)

    assert (await claim(pair.b, one, NOW)).standing == Claim("b", EXPIRES)


async def test_an_echo_is_owed_until_it_was_sent(pair: Pair, one: int) -> None:
    """It is handed out with each claim, and cleared by the record of the call that was it."""
    row = await claim(pair.a, one)
    await pair.a.record(record_of(one, OrderOutcome(revision=row.revision, applied=applied(1), echo_us=EXPIRES)))

    row = await claim(pair.b, one)
    await pair.b.record(record_of(one, OrderOutcome(revision=row.revision)))
    again = await claim(pair.b, one)
    await pair.b.record(record_of(one, OrderOutcome(revision=again.revision, echoed_us=again.echo_us)))

    assert (row.echo_us, again.echo_us) == (EXPIRES, EXPIRES)
    assert (await claim(pair.b, one)).echo_us is None


async def test_an_echo_noted_meanwhile_is_not_cleared(pair: Pair, one: int) -> None:
    """Who sends an echo settles the one it was handed, not one that came later; of two the later one stays."""
    row = await claim(pair.a, one)
    await pair.a.record(record_of(one, OrderOutcome(revision=row.revision, echo_us=NOW)))
    ours, theirs = await claim(pair.a, one), await claim(pair.b, one)
    await pair.b.record(record_of(one, OrderOutcome(revision=theirs.revision, echo_us=EXPIRES)))
    await pair.a.record(record_of(one, OrderOutcome(revision=ours.revision, echoed_us=ours.echo_us)))

    assert (await claim(pair.a, one)).echo_us == EXPIRES


async def test_due_echoes_are_those_to_be_sent_now(ledger: Ledger, one: int) -> None:
    """Owed and due, or a claim that ran out a minute ago and that nobody looked after; never more than asked for."""
    far = 10 * NOW + one * CLAIM_US  # other tests share the table, and none of theirs is as late
    rows = await ledger.claim([one, one + 1, one + 2], wall_us=far)
    await ledger.record(record_of(one, OrderOutcome(revision=rows[one].revision, echo_us=far + 5), far))
    await ledger.record(record_of(one + 1, OrderOutcome(revision=rows[one + 1].revision), far))

    async def due(wall_us: int) -> list[int]:
        return [each for each in await ledger.due_echoes(wall_us, 10_000) if one <= each < one + 1000]

    assert await due(far + 4) == []
    assert await due(far + 5) == [one]
    assert await due(far + CLAIM_US + 59 * SECOND) == [one]
    assert await due(far + CLAIM_US + 60 * SECOND) == [one, one + 2]
    assert len(await ledger.due_echoes(far + CLAIM_US + 60 * SECOND, 1)) == 1


async def test_a_record_needs_no_claim(ledger: Ledger, one: int) -> None:
    """A row that was forgotten meanwhile is made anew; it is contested, because nobody knows."""
    outcome = OrderOutcome(revision=7, applied=applied(3), echo_us=NOW)

    assert await ledger.record(record_of(one, outcome)) == {one: None}
    row = await claim(ledger, one)
    assert (row.values, row.echo_us, row.revision) == (applied(3), NOW, 1)


async def test_a_record_may_be_repeated(ledger: Ledger, one: int) -> None:
    """After an error nobody knows whether it was written."""
    row = await claim(ledger, one)
    record = record_of(one, OrderOutcome(revision=row.revision, applied=applied(3), echo_us=NOW))
    await ledger.record(record)
    await ledger.record(replace(record, wall_us=NOW + 1))

    assert await claim(ledger, one) == OrderRow(values=applied(3), revision=2, echo_us=NOW, expires_us=EXPIRES)


async def test_an_empty_record_is_harmless(ledger: Ledger) -> None:
    """Nothing came of the batch."""
    assert await ledger.record(BatchRecord(wall_us=NOW)) == {}
