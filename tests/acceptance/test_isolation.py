"""One bad event harms only itself, cheaply; and a platform that refuses everything dead-letters nothing.

Calls are counted by the stand-in platform, the control calls included.
"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import World, side_by_side, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

BAD = 42
REFUSAL = "Invalid order status"
NO_PIGEONS = {"shipping_method": {"by pigeon": "Unknown shipping method"}}
FIRST_CALLS = 2
"""The control call at the start, and the batch that holds everything."""
TOGETHER = {"LINGER_S": "0.5"}
"""Long enough for all that waits in the queue at the start to come into one batch."""


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world with a stand-in platform that has all its defaults."""
    async with World(broker, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "options", [{"refusal": "http_400"}, {"refusal": "no_path", "batch": "atomic"}, {"refusal": "no_path"}, {}], ids=str
)
async def test_one_bad_order_among_100_costs_at_most_15_further_calls(world: World, options: dict[str, Any]) -> None:
    """However the platform words it: the bad order is dead-lettered, the other 99 are applied."""
    world.set_options(rejected_orders={BAD: REFUSAL}, **options)
    await world.publish(stamped(order_id, 4) for order_id in range(1, 101))
    worker = await world.start(**TOGETHER)
    letters = await world.until_dead(1)
    await world.until_applied({order_id: 4 for order_id in range(1, 101) if order_id != BAD})
    assert await worker.terminate() == 0

    assert len(world.calls[0].order_ids) == 100
    assert world.all_calls - FIRST_CALLS <= 15
    assert [letter.headers["ow-order-id"] for letter in letters] == [BAD]
    assert letters[0].headers["ow-reason"] == "rejected"
    assert REFUSAL in letters[0].headers["ow-detail"]
    assert await world.leftover() == 0


@pytest.mark.parametrize("refusal", ["path", "no_path", "http_400"])
async def test_one_bad_event_among_500_of_an_order_costs_at_most_6_further_calls(world: World, refusal: str) -> None:
    """The bad value is dead-lettered with its event; the newest values of the others are applied."""
    world.set_options(rejected_values=NO_PIGEONS, refusal=refusal)
    events = {version: numbered(version) for version in range(1, 501)}
    events[250] = numbered(250, shipping_method="by pigeon")
    events[400] = numbered(400, shipping_carrier="Royal Mail")
    await world.publish(events.values())
    worker = await world.start(**TOGETHER)
    letters = await world.until_dead(1)
    await world.until_applied({7: 1500})
    assert await worker.terminate() == 0

    assert world.all_calls - FIRST_CALLS <= 6
    assert b"by pigeon" in letters[0].body
    assert letters[0].headers["ow-reason"] == "rejected"
    assert (worker.counts["dead"], worker.counts["delivered"]) == (1, 500)
    assert world.simulator.platform.orders.get(7).shipping_carrier == "Royal Mail"
    assert await world.leftover() == 0


async def test_bad_newest_event_lets_the_one_before_it_through(world: World) -> None:
    """The newest of 500 is the bad one: the order gets the values of the 499 others."""
    world.set_options(rejected_values=NO_PIGEONS)
    await world.publish(numbered(version, shipping_method="by mail") for version in range(1, 500))
    await world.publish([numbered(500, shipping_method="by pigeon")])
    worker = await world.start(**TOGETHER)
    await world.until_dead(1)
    await world.until_applied({7: 1499})
    assert await worker.terminate() == 0

    assert world.all_calls - FIRST_CALLS <= 6
    assert len(world.dead) == 1
    assert await world.leftover() == 0


def numbered(version: int, **fields: Any) -> dict[str, Any]:
    """One of many events of order 7. Its status is above 1000: terminal ones are never merged away."""
    return stamped(7, version, status=1000 + version, **fields)


PLAGUES: dict[str, dict[str, Any]] = {
    "400": {"kind": "status", "status": 400},
    "403": {"kind": "status", "status": 403},
    "422": {"kind": "status", "status": 422, "body": "graphql"},
    "internal": {"kind": "masked"},
    "internal, no data": {"kind": "errors"},
    "html": {"kind": "html"},
    "404": {"kind": "status", "status": 404, "body": "html"},
    "no data": {"kind": "no_data"},
}


@pytest.mark.parametrize("names", [("400", "403", "internal", "html"), ("422", "404", "no data", "internal, no data")])
@pytest.mark.parametrize("at_start", [True, False], ids=["at the start", "in mid-life"])
async def test_a_platform_that_refuses_everything_dead_letters_nothing(
    broker: PrivateBroker, tmp_path: Path, names: tuple[str, ...], *, at_start: bool
) -> None:
    """The worker holds or pauses, probes, and applies everything when the platform is well again."""
    survive = partial(_survive, broker, tmp_path, at_start=at_start)
    await side_by_side({name: PLAGUES[name] for name in names}, survive)


async def _survive(broker: PrivateBroker, folder: Path, plague: dict[str, Any], *, at_start: bool) -> None:
    async with World(broker, folder) as world:
        if at_start:
            await world.fault(standing=True, **plague)
        worker = await world.launch()
        if not at_start:
            await world.publish([stamped(1, 4)])
            await world.until_applied({1: 4})
            await world.fault(standing=True, **plague)
        await world.publish(stamped(order_id, 4) for order_id in range(1, 101))
        await worker.until(lambda heard: heard.heard("platform.hold") or heard.heard("platform.paused"))
        seen = world.all_calls
        await world.until(lambda: world.all_calls >= seen + 3)
        await world.simulator.clear_faults()
        await world.until_applied(dict.fromkeys(range(1, 101), 4), deadline_s=30.0)
        await worker.until_heard("platform.recovered")
        assert await worker.terminate() == 0

        assert (world.dead, await world.leftover()) == ([], 0)


async def test_a_platform_that_is_broken_for_few_orders_has_all_attempts_to_get_well(world: World) -> None:
    """Fewer orders than it takes to call it an outage are retried one by one, and applied when it works again."""
    worker = await world.start(MAX_ATTEMPTS="100")
    await world.fault(kind="masked", standing=True)
    await world.publish(stamped(order_id, 4) for order_id in (1, 2, 3))
    await world.until(lambda: all(_tries(world, order_id) >= 8 for order_id in (1, 2, 3)), deadline_s=30.0)
    await world.simulator.clear_faults()
    await world.until_applied(dict.fromkeys((1, 2, 3), 4))
    assert await worker.terminate() == 0

    assert (world.dead, await world.leftover()) == ([], 0)


def _tries(world: World, order_id: int) -> int:
    return sum(order_id in call.order_ids for call in world.calls)
