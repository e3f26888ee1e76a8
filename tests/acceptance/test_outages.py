"""The platform's bad hours: nothing is dead-lettered, nothing is lost, and the worker recovers by itself."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.workerprocess import WorkerProcess
from tests.support.world import POLL_S, World, side_by_side, stamped
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import AckReason

pytestmark = pytest.mark.broker

ORDERS = range(1, 101)
IMPATIENT = {"CALL_TIMEOUT_S": "1"}
SHORT_HOLD = {**IMPATIENT, "HOLD_LIMIT_S": "2"}

FAULTS: Mapping[str, dict[str, Any]] = {
    "503 for a while": {"kind": "status", "status": 503, "for_s": 1.5},
    "500 three times": {"kind": "status", "status": 500, "next": 3},
    "502 with a page": {"kind": "status", "status": 502, "body": "html", "next": 3},
    "connections refused": {"kind": "refuse", "for_s": 1.5},
    "no answer, not done": {"kind": "hang", "next": 2},
    "no answer, but done": {"kind": "hang", "applied": True, "next": 2},
    "reset before": {"kind": "reset_before", "next": 3},
    "reset after": {"kind": "reset_after", "next": 3},
    "half a reply": {"kind": "truncated", "next": 3},
    "reply breaks off": {"kind": "cut_short", "next": 3},
    "a page instead": {"kind": "html", "next": 3},
    "token endpoint down": {"kind": "status", "status": 503, "on": "token", "next": 3},
    "one 401": {"kind": "status", "status": 401, "next": 1},
}


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world with a stand-in platform that has all its defaults."""
    async with World(broker, tmp_path) as made:
        yield made


async def end_well(world: World, worker: WorkerProcess) -> None:
    """Everything applied and settled, nothing dead-lettered, and no order ever in two calls at once."""
    assert await worker.terminate() == 0
    assert (world.dead, await world.leftover()) == ([], 0)
    assert world.simulator.platform.calls.overlaps.total() == 0
    assert worker.counts["released"] == 0 or worker.heard("platform.paused")


async def until_acknowledged(port: int, events: int) -> None:
    """Wait until the worker says so of so many events: an order may be right while an older event of it waits in a
    retry tier, or for its call to be sent again. The test's own time limit ends that."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as admin:
        while True:
            async with admin.get("/state") as answer:
                counts = (await answer.json())["counts"]
            if sum(counts.get(reason, 0) for reason in AckReason) == events:
                return
            await asyncio.sleep(POLL_S)


@pytest.mark.parametrize("names", [tuple(FAULTS)[:5], tuple(FAULTS)[5:10], tuple(FAULTS)[10:]], ids=", ".join)
async def test_a_passing_fault_is_ridden_out(broker: PrivateBroker, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Whatever goes wrong with a call, its values arrive in the end, once the platform is well."""
    await side_by_side({name: FAULTS[name] for name in names}, partial(_ride_out, broker, tmp_path))


async def _ride_out(broker: PrivateBroker, folder: Path, fault: dict[str, Any]) -> None:
    async with World(broker, folder) as world:
        worker = await world.start(**IMPATIENT)
        await world.publish([stamped(1, 2)])
        await world.until_applied({1: 2})
        if fault.get("on") == "token":
            world.simulator.platform.tokens.revoke_all()
        await world.fault(**fault)
        await world.publish(stamped(order_id, 4) for order_id in ORDERS)
        await world.until_applied(dict.fromkeys(ORDERS, 4))
        await world.publish(stamped(order_id, 8) for order_id in ORDERS)
        await world.until_applied(dict.fromkeys(ORDERS, 8))

        await end_well(world, worker)


async def test_a_call_that_is_done_late_only_repeats_what_was_sent(world: World) -> None:
    """The platform carries out calls after their connection is gone: the same absolute values, so nothing changes."""
    worker = await world.start(**IMPATIENT)
    await world.until(lambda: world.all_calls)
    await world.fault(kind="late", seconds=0.5, next=2)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await world.until_applied(dict.fromkeys(ORDERS, 4))
    await world.until(lambda: all(call.applied_s for call in world.calls))
    await world.publish(stamped(order_id, 8) for order_id in ORDERS)
    await world.until_applied(dict.fromkeys(ORDERS, 8))

    await end_well(world, worker)


THROTTLES: Mapping[str, tuple[float, dict[str, Any]]] = {
    # An HTTP date has whole seconds, so it may be almost one second early.
    "429, seconds": (1.9, {"status": 429, "retry_after": 2}),
    "429, date": (0.9, {"status": 429, "retry_after_date_s": 2.0}),
    "503, seconds": (1.9, {"status": 503, "retry_after": 2}),
    "503, date": (0.9, {"status": 503, "retry_after_date_s": 2.0}),
}


async def test_retry_after_holds_every_call(broker: PrivateBroker, tmp_path: Path) -> None:
    """No call of any kind before the time that the platform named, in seconds or as a date."""
    await side_by_side(THROTTLES, partial(_be_throttled, broker, tmp_path))


async def _be_throttled(broker: PrivateBroker, folder: Path, case: tuple[float, dict[str, Any]]) -> None:
    at_least_s, fault = case
    async with World(broker, folder) as world:
        # One call at a time: another one could be on its way already when the first is answered.
        worker = await world.start(MAX_IN_FLIGHT="1")
        await world.until(lambda: world.all_calls)
        await world.fault(kind="status", next=1, **fault)
        await world.publish(stamped(order_id, 4) for order_id in ORDERS)
        said = await worker.until_heard("platform.hold")
        await world.until_applied(dict.fromkeys(ORDERS, 4))
        calls = world.simulator.platform.calls.recent
        told = next(call.answered_s or 0.0 for call in calls if call.status == fault["status"])

        assert said["reason"] == "throttled"
        assert min(call.started_s for call in calls if call.started_s > told) - told >= at_least_s
        await end_well(world, worker)


async def test_hold_limit_hands_everything_back_and_the_worker_returns(world: World) -> None:
    """The broker shows no consumer while the worker waits; it comes back by itself."""
    worker = await world.start(**SHORT_HOLD)
    await world.simulator.refuse()
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await worker.until_heard("platform.hold")
    # Two for as long as the first message is held: RabbitMQ counts the narrow consumer until its delivery is settled.
    assert await world.consumers() in (1, 2)
    await worker.until_heard("platform.paused")
    await world.until_consumers(0)
    await world.publish(stamped(order_id, 8) for order_id in ORDERS)
    await world.simulator.clear_faults()
    await world.until_applied(dict.fromkeys(ORDERS, 8))
    await world.until_consumers(1)

    assert worker.heard("platform.recovered")
    await end_well(world, worker)


async def test_hung_platform_past_the_hold_limit_hands_everything_back(world: World) -> None:
    """Calls that never answer are an outage too."""
    worker = await world.start(**SHORT_HOLD)
    await world.fault(kind="hang", standing=True)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await worker.until_heard("platform.paused", deadline_s=40.0)
    await world.until_consumers(0)
    await world.simulator.clear_faults()
    await world.until_applied(dict.fromkeys(ORDERS, 4))

    await end_well(world, worker)


async def test_nothing_stays_unsettled_longer_than_the_limit(world: World) -> None:
    """Calls without an answer, just too few to be called an outage, end in a release as well."""
    worker = await world.start(**SHORT_HOLD, MAX_UNSETTLED_S="4", DRAIN_GRACE_S="2")
    await world.fault(kind="hang", standing=True)
    await world.publish([stamped(1, 4)])
    await worker.until_heard("broker.channel_gone", deadline_s=10.0)
    await world.simulator.clear_faults()
    await world.until_applied({1: 4})

    await end_well(world, worker)


async def test_long_retry_after_releases_at_once(world: World) -> None:
    """A wait that is known to be longer than the hold limit need not be sat out with messages in hand."""
    worker = await world.start(**SHORT_HOLD)
    await world.until(lambda: world.all_calls)
    await world.fault(kind="status", status=429, retry_after=4, next=1)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    paused = await worker.until_heard("platform.paused")
    await world.until_consumers(0)
    await world.until_applied(dict.fromkeys(ORDERS, 4))

    assert "after_s" not in paused  # what was sat out says for how long
    assert not worker.heard("platform.hold")
    await end_well(world, worker)


async def test_tokens_that_expire_are_replaced_without_a_failed_call(world: World) -> None:
    """A token lives for one second, the worker for at least three."""
    world.set_options(token_lifetime_s=1)
    worker = await world.start()
    issued = world.simulator.platform.tokens.issued
    versions = iter(range(1_001, 1_000_000))  # no status that ends an order
    while world.simulator.platform.tokens.issued < issued + 3:
        version = next(versions)
        await world.publish([stamped(1, version)])
        await world.until_applied({1: version})

    assert not worker.heard("call.failed")
    await end_well(world, worker)


async def test_revoked_token_costs_one_fresh_one_and_no_pause(world: World) -> None:
    """A 401 with a token that looked good: fetch another, send the same again."""
    worker = await world.start()
    await world.publish([stamped(1, 2)])
    await world.until_applied({1: 2})
    issued = world.simulator.platform.tokens.issued
    world.simulator.platform.tokens.revoke_all()
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await world.until_applied(dict.fromkeys(ORDERS, 4))

    assert world.simulator.platform.tokens.issued == issued + 1
    assert not worker.heard("platform.paused")
    assert not worker.heard("platform.hold")
    await end_well(world, worker)


async def test_any_mixture_of_faults_ends_with_the_greatest_versions(world: World) -> None:
    """1,500 events of 100 orders in random order of faults: every order ends at its last version."""
    world.set_options(latency_s=(0.0, 0.02), seed=7)
    for kind, rate in (("reset_after", 0.1), ("reset_before", 0.1), ("truncated", 0.05), ("partial", 0.05)):
        await world.fault(kind=kind, rate=rate)
    await world.fault(kind="status", status=503, rate=0.05)
    port = free_port()
    worker = await world.start(**IMPATIENT, MAX_BATCH="20", MAX_ATTEMPTS="50", ADMIN_PORT=str(port))
    for version in range(2, 17):
        await world.publish(stamped(order_id, version) for order_id in ORDERS)
        await asyncio.sleep(0)
    await world.until_applied(dict.fromkeys(ORDERS, 16), deadline_s=40.0)
    await world.simulator.clear_faults()
    await until_acknowledged(port, 1_500)

    await end_well(world, worker)
    assert all(world.status(order_id) == 16 for order_id in ORDERS)
