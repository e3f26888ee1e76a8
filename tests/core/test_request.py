"""What of a batch is sent, and what an answered call has applied: the quick ways say what the rule says."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_update
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.journal import OrderRow
from worker.core.model import Ack, AckReason, Update, Version
from worker.core.request import Request, applied_by, request_of
from worker.core.verdict import AS_REQUESTED, Call, Item, ItemVerdict, Judgement

NAMES = ["status", "shipping_carrier", "shipping_method"]
TIMES = st.integers(1, 4)
WISHES = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9), min_size=1)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """The updates of order 1, often just one."""
    wished = draw(st.lists(st.tuples(WISHES, TIMES), min_size=1, max_size=3))
    updates = [
        make_update(1, fields=fields, at=at, tag=tag, message_id="m") for tag, (fields, at) in enumerate(wished, 1)
    ]
    return Entry(1, updates, 0.0)


def version_at(seconds: int) -> Version:
    return Version(seconds * 1_000_000, -1, seconds * 1_000_000, "m")


rows = st.dictionaries(st.sampled_from(NAMES), st.tuples(st.builds(version_at, TIMES), st.integers(1, 9)))


def asked(batch_entries: Sequence[Entry], row: OrderRow) -> Request:
    batch = Batch(id="b", seq=1, entries=batch_entries, reason=FlushReason.SIZE)
    return request_of(batch, {entry.order_id: row for entry in batch_entries})


def answered(request: Request, *items: ItemVerdict, all_applied: bool = False) -> Judgement:
    verdicts = dict(zip(request.fields, items, strict=True))
    return Judgement(call=Call.ANSWERED, items=verdicts, all_applied=all_applied)


@given(entries(), rows)
def test_exactly_the_fields_are_sent_that_are_newer_than_what_is_known(
    entry: Entry, known: dict[str, tuple[Version, int]]
) -> None:
    """Of each field the greatest version, however many updates and known values there are."""
    expected = {
        name: update.fields[name]
        for name, update in entry.winners.items()
        if name not in known or known[name][0] < update.version
    }
    request = asked([entry], OrderRow(values=known, revision=1))

    assert request.fields == ({1: expected} if expected else {})
    assert (request.entries, request.covered) == (([entry], []) if expected else ([], [entry]))
    assert len(request.settlements) == (0 if expected else len(entry.updates))


@given(entries(), rows)
def test_what_was_applied_has_the_version_of_the_update_that_won(
    entry: Entry, known: dict[str, tuple[Version, int]]
) -> None:
    """Field by field, and nothing that was not sent."""
    request = asked([entry], OrderRow(values=known, revision=1))
    verdicts = [AS_REQUESTED] * len(request.fields)

    expected = {
        order_id: {name: (entry.winners[name].version, value) for name, value in fields.items()}
        for order_id, fields in request.fields.items()
    }
    assert applied_by(request, answered(request, *verdicts)) == expected
    assert applied_by(request, answered(request, *verdicts, all_applied=True)) == expected


def test_only_confirmed_orders_were_applied() -> None:
    """Remapped ones are; what is missing, blamed or without any verdict is not."""
    updates: list[Update] = [make_update(order_id, status=4, at=1) for order_id in (1, 2, 3)]
    batch = [Entry(update.order_id, [update], 0.0) for update in updates]
    request = asked(batch, OrderRow(values={}, revision=1))
    judgement = answered(
        request, AS_REQUESTED, ItemVerdict(item=Item.REMAPPED), ItemVerdict(item=Item.UNCONFIRMED, detail="missing")
    )

    assert list(applied_by(request, judgement)) == [1, 2]
    assert applied_by(request, Judgement(call=Call.REFUSED)) == {}


def test_an_equal_version_is_a_duplicate() -> None:
    """It is acknowledged as one, and nothing is sent."""
    row = OrderRow(values={"status": (version_at(2), 4)}, revision=1)
    request = asked([Entry(1, [make_update(1, status=4, at=2, message_id="m")], 0.0)], row)

    assert request.fields == {}
    assert [each.disposition for each in request.settlements] == [Ack(AckReason.DUPLICATE)]
