"""Stopping: intake ends, what can be finished is finished, the rest goes back to the broker, and the exit code is 0."""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

SLACK_S = 3.0
"""What a process on a busy machine may take to go beyond its grace."""
ORDERS = range(1, 301)
WANTED = dict.fromkeys(ORDERS, 4)
SMALL = {"PREFETCH": "200", "MAX_BATCH": "20", "MAX_IN_FLIGHT": "2"}
"""A worker that cannot take everything at once."""


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world with a stand-in platform that has all its defaults."""
    async with World(broker, tmp_path) as made:
        yield made


async def finish(world: World) -> None:
    """A next worker, on a platform that is well, brings everything to its end."""
    await world.simulator.clear_faults()
    world.set_options(latency_s=0.0)
    worker = await world.start()
    await world.until_applied(WANTED)
    assert await worker.terminate() == 0
    assert (world.dead, await world.leftover()) == ([], 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_worker_leaves_at_once(world: World, number: signal.Signals) -> None:
    """Nothing to do, nothing to wait for; the broker sees no consumer any more."""
    worker = await world.start()
    worker.send(number)

    assert await worker.ended(deadline_s=SLACK_S) == 0
    assert worker.heard("worker.draining", signal=number.name)
    await world.until_consumers(0)


async def test_full_prefetch_is_sent_before_leaving(world: World) -> None:
    """What the worker holds when it is asked to stop is applied and acknowledged; what the broker holds stays there."""
    world.set_options(latency_s=0.05)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    worker = await world.start(**SMALL)
    await world.until(lambda: world.calls)

    assert await worker.terminate() == 0
    applied = sum(world.status(order_id) == 4 for order_id in ORDERS)
    assert (worker.counts["applied"], worker.counts["released"]) == (applied, 0)
    assert worker.counts["delivered"] == applied
    assert await world.leftover() == len(ORDERS) - applied


async def test_a_call_under_way_is_waited_for_and_counted(world: World) -> None:
    """A slow platform answers during the grace: the answer is used."""
    await world.fault(kind="delay", seconds=1.0, where="before", standing=True)
    worker = await world.start()
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await world.until(lambda: world.calls)

    assert await worker.terminate() == 0
    assert (worker.counts["applied"], worker.counts["released"]) == (len(ORDERS), 0)
    assert all(world.status(order_id) == 4 for order_id in ORDERS)
    assert await world.leftover() == 0


async def test_hung_platform_costs_the_grace_and_no_message(world: World) -> None:
    """Within grace and slack the worker is gone, and everything unfinished is with the broker again."""
    worker = await world.start(CALL_TIMEOUT_S="1", DRAIN_GRACE_S="2", **SMALL)
    await world.fault(kind="hang", standing=True)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await world.until(lambda: world.calls)
    asked = time.monotonic()

    assert await worker.terminate() == 0
    assert time.monotonic() - asked < 2.0 + SLACK_S
    assert worker.counts["released"] == worker.counts["delivered"] > 0
    await finish(world)


async def test_hold_does_not_delay_leaving(world: World) -> None:
    """While the platform is away there is nothing to finish: everything held is handed back at once."""
    worker = await world.start()
    await world.simulator.refuse()
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await worker.until_heard("platform.hold")
    asked = time.monotonic()

    assert await worker.terminate() == 0
    assert time.monotonic() - asked < SLACK_S
    assert worker.counts["released"] == worker.counts["delivered"] > 0
    await finish(world)


async def test_pause_does_not_delay_leaving(world: World) -> None:
    """The same when the worker consumes nothing any more."""
    worker = await world.start()
    world.set_options(scopes=())
    world.simulator.platform.tokens.revoke_all()
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await worker.until_heard("platform.paused")
    await world.until_consumers(0)
    asked = time.monotonic()

    assert await worker.terminate() == 0
    assert time.monotonic() - asked < SLACK_S
    world.set_options(scopes=world.options.scopes)
    await finish(world)


async def test_second_signal_leaves_at_once_and_loses_nothing(world: World) -> None:
    """Whoever asks twice does not want to wait: a non-zero exit code, and the broker redelivers."""
    worker = await world.start()
    await world.fault(kind="hang", standing=True)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS)
    await world.until(lambda: world.calls)
    worker.send(signal.SIGTERM)
    await worker.until_heard("worker.draining")
    worker.send(signal.SIGTERM)

    assert await worker.ended(deadline_s=SLACK_S) == 1
    assert worker.heard("worker.forced_exit", signal="SIGTERM")
    await finish(world)


async def test_events_that_come_during_the_drain_stay_with_the_broker(world: World) -> None:
    """Between the signal and the end nothing new is taken in."""
    await world.fault(kind="delay", seconds=1.0, where="before", standing=True)
    worker = await world.start()
    await world.publish([stamped(1, 4)])
    await world.until(lambda: world.calls)
    worker.send(signal.SIGTERM)
    await worker.until_heard("worker.draining")
    await world.until_consumers(0)
    await world.publish(stamped(order_id, 4) for order_id in ORDERS if order_id > 1)

    assert await worker.ended() == 0
    assert worker.counts["delivered"] == 1
    await finish(world)
