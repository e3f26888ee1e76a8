"""What every journal does, whatever it is made of (``ports.Journal``)."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.fakes import WatchedJournal
from worker.adapters.journal.memory import MemoryJournal
from worker.core.model import Scalar, Version
from worker.ports import Journal

JOURNALS: Mapping[str, Callable[[], Journal]] = {
    "memory": MemoryJournal,
    "fake": lambda: WatchedJournal([], takes_s=0.0),
}


@pytest.fixture(params=sorted(JOURNALS))
def journal(request: pytest.FixtureRequest) -> Journal:
    return JOURNALS[str(request.param)]()


def version(time_us: int, message_id: str = "m") -> Version:
    return Version(time_us, -1, time_us, message_id)


def applied(time_us: int, value: Scalar = 4, name: str = "status") -> dict[str, tuple[Version, Scalar]]:
    return {name: (version(time_us), value)}


async def test_unknown_orders_are_absent(journal: Journal) -> None:
    """Not an empty entry: absent."""
    await journal.write({1: applied(1)})

    assert await journal.read([2, 3]) == {}
    assert await journal.read([]) == {}


async def test_what_was_written_is_read(journal: Journal) -> None:
    """Per order and field, only the orders that were asked for."""
    await journal.write({1: applied(1) | applied(2, "DHL", "shipping_carrier"), 2: applied(3)})

    assert await journal.read([1]) == {1: {"status": version(1), "shipping_carrier": version(2)}}
    assert await journal.read([2, 1, 9]) == {
        1: {"status": version(1), "shipping_carrier": version(2)},
        2: {"status": version(3)},
    }


async def test_fields_of_several_writes_add_up(journal: Journal) -> None:
    """A write speaks of the fields it names."""
    await journal.write({1: applied(1)})
    await journal.write({1: applied(2, "DHL", "shipping_carrier")})

    assert await journal.read([1]) == {1: {"status": version(1), "shipping_carrier": version(2)}}


async def test_a_lower_version_changes_nothing(journal: Journal) -> None:
    """Whoever comes late does not set the clock back."""
    await journal.write({1: applied(5)})
    await journal.write({1: applied(4)})
    await journal.write({1: applied(5)})

    assert await journal.read([1]) == {1: {"status": version(5)}}


async def test_an_empty_write_is_harmless(journal: Journal) -> None:
    """Nothing applied, nothing written."""
    await journal.write({})
    await journal.write({1: {}})

    assert (await journal.read([1])).get(1, {}) == {}


async def test_what_was_read_is_a_snapshot_of_then_or_now_but_never_less(journal: Journal) -> None:
    """A caller holds on to what it read while others write: versions in it only grow."""
    await journal.write({1: applied(1)})
    known = await journal.read([1])
    await journal.write({1: applied(2)})

    assert known[1]["status"] in (version(1), version(2))


writes = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["status", "shipping_carrier"]), st.integers(0, 9)), max_size=20
)


@pytest.mark.parametrize("name", sorted(JOURNALS))
@given(writes=writes)
def test_in_any_order_the_greatest_version_stays(name: str, writes: list[tuple[int, str, int]]) -> None:
    """Per order and field the maximum of what was written."""

    async def play() -> dict[int, dict[str, Version]]:
        journal = JOURNALS[name]()
        for order_id, field, time_us in writes:
            await journal.write({order_id: applied(time_us, None, field)})
        return {order_id: dict(fields) for order_id, fields in (await journal.read([1, 2, 3])).items()}

    greatest: dict[int, dict[str, Version]] = {}
    for order_id, field, time_us in writes:
        fields = greatest.setdefault(order_id, {})
        fields[field] = max(fields.get(field, version(time_us)), version(time_us))

    assert asyncio.run(play()) == greatest


async def test_memory_keeps_the_orders_that_were_touched_last() -> None:
    """Its one bound, in number of orders."""
    journal = MemoryJournal(limit=2)
    for order_id in (1, 2, 1, 3):
        await journal.write({order_id: applied(order_id)})

    assert set(await journal.read([1, 2, 3])) == {1, 3}
