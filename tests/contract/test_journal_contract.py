"""What every journal does, whatever it is made of (``ports.Journal``)."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.journals import KINDS, applied, opened, url_of, version
from tests.pipeline.fakes import WatchedJournal
from worker.adapters.journal.memory import MemoryJournal
from worker.core.model import Version
from worker.ports import Journal


@pytest.fixture(params=[*KINDS, "fake"])
def place(request: pytest.FixtureRequest) -> str:
    return "fake" if request.param == "fake" else url_of(request.param, request)


@pytest.fixture
async def journal(place: str) -> AsyncIterator[Journal]:
    if place == "fake":
        yield WatchedJournal([], takes_s=0.0)
        return
    async with opened(place, "a") as [made]:
        yield made


async def test_unknown_orders_are_absent(journal: Journal, one: int) -> None:
    """Not an empty entry: absent."""
    await journal.write({one: applied(1)})

    assert await journal.read([one + 1, one + 2]) == {}
    assert await journal.read([]) == {}


async def test_what_was_written_is_read(journal: Journal, one: int) -> None:
    """Per order and field, only the orders that were asked for."""
    two = one + 1
    await journal.write({one: {**applied(1), **applied(2, "DHL", "shipping_carrier")}, two: applied(3)})

    assert await journal.read([one]) == {one: {"status": version(1), "shipping_carrier": version(2)}}
    assert await journal.read([two, one, one + 9]) == {
        one: {"status": version(1), "shipping_carrier": version(2)},
        two: {"status": version(3)},
    }


async def test_fields_of_several_writes_add_up(journal: Journal, one: int) -> None:
    """A write speaks of the fields it names."""
    await journal.write({one: applied(1)})
    await journal.write({one: applied(2, "DHL", "shipping_carrier")})

    assert await journal.read([one]) == {one: {"status": version(1), "shipping_carrier": version(2)}}


async def test_a_lower_version_changes_nothing(journal: Journal, one: int) -> None:
    """Whoever comes late does not set the clock back."""
    await journal.write({one: applied(5)})
    await journal.write({one: applied(4)})
    await journal.write({one: applied(5)})

    assert await journal.read([one]) == {one: {"status": version(5)}}


async def test_an_empty_write_is_harmless(journal: Journal, one: int) -> None:
    """Nothing applied, nothing written."""
    await journal.write({})
    await journal.write({one: {}})

    assert (await journal.read([one])).get(one, {}) == {}


async def test_what_was_read_is_a_snapshot_of_then_or_now_but_never_less(journal: Journal, one: int) -> None:
    """A caller holds on to what it read while others write: versions in it only grow."""
    await journal.write({one: applied(1)})
    known = await journal.read([one])
    await journal.write({one: applied(2)})

    assert known[one]["status"] in (version(1), version(2))


writes = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["status", "shipping_carrier"]), st.integers(0, 9)), max_size=12
)
_first = itertools.count(1_000_000_000, 10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=writes)
async def test_in_any_order_the_greatest_version_stays(journal: Journal, writes: list[tuple[int, str, int]]) -> None:
    """Per order and field the maximum of what was written."""
    first = next(_first)
    greatest: dict[int, dict[str, Version]] = {}
    for place, field, time_us in writes:
        await journal.write({first + place: applied(time_us, None, field)})
        fields = greatest.setdefault(first + place, {})
        fields[field] = max(fields.get(field, version(time_us)), version(time_us))

    assert await journal.read([first, first + 1, first + 2]) == greatest


async def test_memory_keeps_the_orders_that_were_touched_last() -> None:
    """Its one bound, in number of orders."""
    journal = MemoryJournal(limit=2)
    for order_id in (1, 2, 1, 3):
        await journal.write({order_id: applied(order_id)})

    assert set(await journal.read([1, 2, 3])) == {1, 3}
