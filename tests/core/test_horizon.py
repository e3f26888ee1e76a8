"""Updates that are older than what the journal remembers, of orders that it does not know."""

from tests.builders import make_update
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.horizon import Horizon
from worker.core.journal import OrderRow
from worker.core.model import Dead, Reason, Update, Version
from worker.core.request import Request, request_of

AT_50 = Horizon(days=90, before_us=50_000_000)
UNKNOWN = OrderRow(values={}, revision=7)
KNOWN = OrderRow(values={"status": (Version(1, -1, 1, "m"), 8)}, revision=7)


def asked(*updates: Update, row: OrderRow = UNKNOWN, horizon: Horizon = AT_50) -> Request:
    batch = Batch(id="b", seq=1, entries=(Entry(1, list(updates), 0.0),), reason=FlushReason.SIZE)
    return request_of(batch, {1: row}, horizon=horizon)


def test_an_update_behind_the_horizon_of_an_unknown_order_is_dead() -> None:
    """What it lost against may have been forgotten; the detail says when, and which setting that is."""
    request = asked(make_update(1, status=4, at=49.999999))
    (settlement,) = request.settlements
    dead = settlement.disposition

    assert request.fields == {}
    assert len(request.covered) == 1
    assert isinstance(dead, Dead)
    assert dead.reason is Reason.TOO_OLD_TO_JUDGE
    assert "older than 1970-01-01T00:00:50" in dead.detail
    assert "JOURNAL_RETENTION_DAYS=90" in dead.detail


def test_on_the_horizon_and_behind_it_everything_is_known() -> None:
    """The bound itself was not forgotten."""
    assert asked(make_update(1, status=4, at=50)).fields == {1: {"status": 4}}


def test_an_order_that_is_known_is_judged_by_what_is_known() -> None:
    """However old the update is."""
    assert asked(make_update(1, status=4, at=3), row=KNOWN).fields == {1: {"status": 4}}


def test_a_journal_that_forgot_nothing_has_no_horizon() -> None:
    """Even what happened before 1970 goes on."""
    assert asked(make_update(1, status=4, at=-5), horizon=Horizon(days=90)).fields == {1: {"status": 4}}


def test_only_what_is_too_old_leaves_a_merged_entry() -> None:
    """The newer one is sent, alone."""
    old, new = make_update(1, status=4, carrier="DHL", at=1), make_update(1, status=8, at=60)
    request = asked(old, new)

    assert request.fields == {1: {"status": 8}}
    assert [each.delivery for each in request.settlements] == [old.delivery]
    assert request.entries[0].updates == [new]
