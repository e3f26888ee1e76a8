"""What every journal does, whatever it is made of with what was applied (``journalports.Ledger``)."""

import itertools
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import applied_record
from tests.contract.journals import KINDS, applied, opened, url_of, version
from tests.pipeline.fakes import WatchedJournal
from worker.adapters.journal.memory import ORDERS_KEPT, MemoryJournal
from worker.core.model import Scalar, Version
from worker.journalports import Ledger


@pytest.fixture(params=[*KINDS, "fake"])
def place(request: pytest.FixtureRequest) -> str:
    return "fake" if request.param == "fake" else url_of(request.param, request)


@pytest.fixture
async def journal(place: str) -> AsyncIterator[Ledger]:
    if place == "fake":
        yield WatchedJournal([], takes_s=0.0)
        return
    async with opened(place, "a") as [made]:
        yield made


async def test_unknown_orders_are_absent(journal: Ledger, one: int) -> None:
    """Not an empty entry: absent."""
    await journal.record(applied_record({one: applied(1)}))

    assert await journal.known([one + 1, one + 2]) == {}
    assert await journal.known([]) == {}


async def test_what_was_applied_is_known(journal: Ledger, one: int) -> None:
    """Per order and field, only the orders that were asked for."""
    two = one + 1
    await journal.record(
        applied_record({one: {**applied(1), **applied(2, "DHL", "shipping_carrier")}, two: applied(3)})
    )

    assert await journal.known([one]) == {one: {**applied(1), **applied(2, "DHL", "shipping_carrier")}}
    assert await journal.known([two, one, one + 9]) == {
        one: {**applied(1), **applied(2, "DHL", "shipping_carrier")},
        two: applied(3),
    }


async def test_fields_of_several_records_add_up(journal: Ledger, one: int) -> None:
    """A record speaks of the fields it names."""
    await journal.record(applied_record({one: applied(1)}))
    await journal.record(applied_record({one: applied(2, "DHL", "shipping_carrier")}))

    assert await journal.known([one]) == {one: {**applied(1), **applied(2, "DHL", "shipping_carrier")}}


async def test_a_lower_version_changes_nothing(journal: Ledger, one: int) -> None:
    """Whoever comes late does not set the clock back."""
    await journal.record(applied_record({one: applied(5)}))
    await journal.record(applied_record({one: applied(4)}))
    await journal.record(applied_record({one: applied(5)}))

    assert await journal.known([one]) == {one: applied(5)}


async def test_an_empty_record_is_harmless(journal: Ledger, one: int) -> None:
    """Nothing applied, nothing known."""
    await journal.record(applied_record({}))
    await journal.record(applied_record({one: {}}))

    assert (await journal.known([one])).get(one, {}) == {}


async def test_what_is_known_is_a_snapshot_of_then_or_now_but_never_less(journal: Ledger, one: int) -> None:
    """A caller holds on to what it read while others write: versions in it only grow."""
    await journal.record(applied_record({one: applied(1)}))
    known = await journal.known([one])
    await journal.record(applied_record({one: applied(2)}))

    assert known[one] in (applied(1), applied(2))


writes = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["status", "shipping_carrier"]), st.integers(0, 9)), max_size=12
)
_first = itertools.count(1_000_000_000, 10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=writes)
async def test_in_any_order_the_greatest_version_stays(journal: Ledger, writes: list[tuple[int, str, int]]) -> None:
    """Per order and field the maximum of what was written."""
    first = next(_first)
    greatest: dict[int, dict[str, tuple[Version, Scalar]]] = {}
    for place, field, time_us in writes:
        await journal.record(applied_record({first + place: applied(time_us, None, field)}))
        fields = greatest.setdefault(first + place, {})
        if field not in fields or fields[field][0] < version(time_us):
            fields[field] = (version(time_us), None)

    assert await journal.known([first, first + 1, first + 2]) == greatest


async def test_memory_keeps_the_orders_that_were_touched_last() -> None:
    """Its one bound, in number of orders."""
    journal = MemoryJournal(limit=2)
    for order_id in (1, 2, 1, 3):
        await journal.record(applied_record({order_id: applied(order_id)}))

    assert set(await journal.known([1, 2, 3])) == {1, 3}


async def test_memory_takes_no_more_room_for_orders_that_it_forgot() -> None:
    """However many there were: a backlog of millions needs what its first hundred thousand needed."""
    # A dict doubles at powers of two: the smaller limit is as far below one.
    journal, room = MemoryJournal(limit=ORDERS_KEPT // 128), []
    tracemalloc.start()
    for first in range(0, 5000, 100):
        await journal.record(applied_record({first + each: applied(1) for each in range(100)}))
        room.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()

    assert max(room) < 1.1 * room[9]
