"""Orders that are over: what would change a terminal status is a dead letter, everything else goes on."""

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_delivery, make_update
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.headers import dead_copy, read_history, retry_copy
from worker.core.journal import OrderRow
from worker.core.model import Ack, AckReason, Dead, Reason, Retry, Settlement, Update, Version
from worker.core.request import Request, request_of

TERMINAL = frozenset({64, 128})
AT_10 = Version(10_000_000, -1, 10_000_000, "known")
CANCELLED = OrderRow(values={"status": (AT_10, 128)}, revision=1)
ALLOWED = {"ow-allow-terminal": True}


def asked(*updates: Update, row: OrderRow = CANCELLED) -> Request:
    """What of one entry of order 1 is sent, held against this row."""
    batch = Batch(id="b", seq=1, entries=(Entry(1, list(updates), 0.0),), reason=FlushReason.SIZE)
    return request_of(batch, {1: row}, TERMINAL)


def fates(request: Request) -> list[tuple[str, object]]:
    return [(each.delivery.properties.message_id or "", each.disposition.reason) for each in request.settlements
            if isinstance(each.disposition, Ack | Dead)]  # fmt: skip


def test_a_newer_status_is_dead_and_says_which_status_stands() -> None:
    """Nothing of it is sent; the entry has nothing left to do."""
    request = asked(make_update(1, status=4, carrier="DPD", at=20))
    (settlement,) = request.settlements
    dead = settlement.disposition

    assert request.fields == {}
    assert [entry.order_id for entry in request.covered] == [1]
    assert isinstance(dead, Dead)
    assert dead.reason is Reason.TERMINAL_ORDER
    assert "terminal status 128," in dead.detail
    assert "to 4" in dead.detail


def test_the_same_status_again_is_no_change() -> None:
    """It goes on, with all its fields."""
    assert asked(make_update(1, status=128, carrier="DPD", at=20)).fields == {
        1: {"status": 128, "shipping_carrier": "DPD"}
    }


def test_updates_without_a_status_go_on() -> None:
    """A carrier may be put right after the order is over."""
    request = asked(make_update(1, carrier="DPD", at=20))

    assert (request.fields, request.settlements) == ({1: {"shipping_carrier": "DPD"}}, [])


def test_older_ones_are_superseded_as_ever() -> None:
    """They would change nothing."""
    assert fates(asked(make_update(1, status=4, at=5, message_id="old"))) == [("old", AckReason.SUPERSEDED)]


def test_only_those_that_carry_the_status_leave_a_merged_entry() -> None:
    """Carrier and method of the others are sent, and of the dead one neither field wins."""
    older = make_update(1, carrier="DHL", at=20, message_id="a")
    guilty = make_update(1, status=4, carrier="DPD", at=30, message_id="b")
    other = make_update(1, method="express", at=40, message_id="c")
    request = asked(older, guilty, other)

    assert request.fields == {1: {"shipping_carrier": "DHL", "shipping_method": "express"}}
    assert fates(request) == [("b", Reason.TERMINAL_ORDER)]
    assert request.entries[0].updates == [older, other]


def test_what_is_left_may_be_covered() -> None:
    """The newer one dies, the older one is superseded: each for itself."""
    old, new = make_update(1, status=4, at=5, message_id="old"), make_update(1, status=8, at=20, message_id="new")
    request = asked(old, new)

    assert fates(request) == [("new", Reason.TERMINAL_ORDER), ("old", AckReason.SUPERSEDED)]
    assert len(request.covered) == 1


def test_an_order_that_is_not_over_is_none_of_this() -> None:
    """Another status, no status, or no row at all."""
    update = make_update(1, status=4, at=20)
    for row in (
        OrderRow(values={"status": (AT_10, 8)}, revision=1),
        OrderRow(values={"shipping_carrier": (AT_10, "128")}, revision=1),
        OrderRow(values={}, revision=1),
    ):
        assert asked(update, row=row).fields == {1: {"status": 4}}


def test_a_replay_that_says_so_is_let_through() -> None:
    """And only that header, as we write it."""
    assert asked(make_update(1, status=4, at=20, headers=ALLOWED)).fields == {1: {"status": 4}}
    assert asked(make_update(1, status=4, at=20, headers={"ow-allow-terminal": "true"})).fields == {}


def test_the_permission_stays_on_retries_and_ends_with_a_dead_letter() -> None:
    """A later replay has to say so again."""
    update = make_update(1, status=4, headers=ALLOWED)
    retry = Retry(tier=0, reason=Reason.BUSY, detail="")
    dead = Dead(reason=Reason.REJECTED, detail="")
    copies = [
        retry_copy(Settlement(delivery=update.delivery, disposition=retry, update=update), now_us=0, worker="w"),
        dead_copy(Settlement(delivery=update.delivery, disposition=dead, update=update), now_us=0, worker="w"),
    ]

    assert [read_history(copy.properties.headers).allow_terminal for copy in copies] == [True, False]
    assert "ow-allow-terminal" not in copies[1].properties.headers
    assert not read_history(make_delivery(headers={"ow-allow-terminal": 1}).properties.headers).allow_terminal


@given(
    st.lists(
        st.builds(
            lambda at, status, carrier: make_update(
                1, fields={k: v for k, v in (("status", status), ("shipping_carrier", carrier)) if v} or None, at=at
            ),
            st.integers(0, 20),
            st.sampled_from([None, 4, 64, 128]),
            st.sampled_from([None, "DHL", "DPD"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_update_is_lost_and_none_that_is_sent_changes_the_status(updates: list[Update]) -> None:
    """Each is dead, acknowledged, or still in the entry that is sent, and exactly one of these."""
    request = asked(*updates)
    sent = [update.delivery for entry in request.entries for update in entry.updates]
    settled = [settlement.delivery for settlement in request.settlements]

    assert sorted(map(id, [*sent, *settled])) == sorted(id(update.delivery) for update in updates)
    assert request.fields.get(1, {}).get("status", 128) == 128
