"""What the broker does to queues, consumers and publishers while it is well: deletion, timeouts, a memory alarm."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from tests.faults.conftest import Told
from tests.support.arena import Arena
from tests.support.world import side_by_side
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

TIMEOUT_S = 5
IMPATIENT = {"CALL_TIMEOUT_S": "1", "HOLD_LIMIT_S": "2", "MAX_UNSETTLED_S": "4", "DRAIN_GRACE_S": "2"}
TIMED_OUT = "delivery acknowledgement on channel"
ALARM_DEADLINE_S = 25.0
WATERMARK = "set_vm_memory_high_watermark"


async def exists(arena: Arena) -> bool:
    """Whether the work queue is there."""
    async with arena.outside() as person:
        channel = await person.channel()
        try:
            await channel.queue_declare(arena.names.work_queue, passive=True)
        except ChannelNotFoundEntity:
            return False
    return True


@asynccontextmanager
async def short_consumer_timeout(arena: Arena) -> AsyncIterator[None]:
    """The broker closes channels with deliveries that are unsettled for 5 s instead of 30 min, and looks every second.

    Only channels opened inside the block are affected.
    """
    usual = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}
    for name, value in {"consumer_timeout": 1000 * TIMEOUT_S, "channel_tick_interval": 1000}.items():
        await arena.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")
    try:
        yield
    finally:
        for name, value in usual.items():
            await arena.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")


@pytest.mark.parametrize("mode", ["declare", pytest.param("passive", marks=pytest.mark.slow)])
async def test_a_queue_deleted_under_us_is_consumed_from_when_it_is_back(arena: Arena, tell: Told, mode: str) -> None:
    """The broker cancels the consumer. A queue that somebody deleted is not made again behind their back, in neither
    mode; once it is there, the worker consumes. What was in it is lost, nothing that was published later."""
    await arena.start(TOPOLOGY=mode)
    async with arena.load():
        await arena.flowing()
        generations = arena.generations
        async with arena.outside() as person:
            await (await person.channel()).queue_delete(arena.names.work_queue)
        await arena.worker.until_heard("broker.channel_gone", detail="the broker cancelled the consumer")
        await arena.worker.until(lambda worker: len(worker.heard("broker.not_consuming")) >= 3)
        ready = (await arena.state())["ready"]
        there = await exists(arena)
        arena.accounting.forgive()
        await arena.declare()
        took_s = await arena.consuming_again(time.monotonic(), generations=generations)
        await arena.assert_full_prefetch()
    verdict = await arena.settled()

    assert (ready, there) == (False, False)
    tell(took_s, verdict)


@pytest.mark.slow
async def test_an_outage_longer_than_the_consumer_timeout_dead_letters_nothing(
    node: PrivateBroker, tmp_path: Path, tell: Told
) -> None:
    """With bounds that fit the broker's, the worker hands back in time and has nothing in hand when the broker looks.
    With bounds that do not, the broker closes the channel (406) in the middle of a hold, and that is survived."""
    async with Arena(node, tmp_path) as outer, short_consumer_timeout(outer):
        await side_by_side({"in time": IMPATIENT, "too late": {}}, partial(_outlast, node, tmp_path, tell))


async def _outlast(node: PrivateBroker, folder: Path, tell: Told, settings: Mapping[str, str]) -> None:
    async with asyncio.timeout(90), Arena(node, folder) as arena:
        await arena.start(**settings)
        async with arena.load(refused_every=0):
            await arena.flowing()
            await arena.simulator.refuse()
            down = time.monotonic()
            await arena.worker.until_heard("platform.paused" if settings else "platform.hold")
            await arena.until(lambda: time.monotonic() > down + 2 * TIMEOUT_S)
            await arena.simulator.clear_faults()
            took_s = await arena.recovered(time.monotonic())
            await arena.assert_full_prefetch()
        verdict = await arena.settled()

        assert verdict.figures["dead"] == 0
        hit = [line for line in arena.worker.heard("broker.channel_gone") if TIMED_OUT in line["detail"]]
        assert bool(hit) is not bool(settings)
        tell(took_s, verdict, "in time" if settings else "too late")


@pytest.mark.usefixtures("each_lane_at_length")
async def test_an_alarm_that_blocks_the_copies_keeps_their_originals(arena: Arena, tell: Told) -> None:
    """While the broker takes no message, none is dead-lettered or retried, so none of them is acknowledged; the copies
    that it blocked are lost with their connection, and afterwards all are where they belong."""
    arena.set_options(busy_orders=dict.fromkeys(range(1, 11), 3))
    await arena.start()
    async with arena.load(refused_every=10):
        await arena.flowing()
        await arena.ctl(WATERMARK, "absolute", "1")
        try:
            settled = len(arena.worker.heard("message.dead"))
            await arena.worker.until_heard("broker.copy_failed", deadline_s=ALARM_DEADLINE_S)
            late = len(arena.worker.heard("message.dead")) - settled
            held = (await arena.state())["unsettled"]
            # The broker never reads the copies that it blocked; without this it would take them when the alarm ends.
            await arena.ctl("close_all_connections", "alarm")
        finally:
            await arena.ctl(WATERMARK, "absolute", "1GB")
        over = time.monotonic()
        done = len(arena.worker.heard("message.dead"))
        await arena.worker.until(lambda worker: len(worker.heard("message.dead")) > done, deadline_s=10.0)
        took_s = time.monotonic() - over
        await arena.assert_full_prefetch()
    verdict = await arena.settled()

    assert held > 0
    # Those on their way when the alarm began: the broker blocks a connection at its next publish.
    assert late <= 5
    assert verdict.figures["dead"] > 0
    tell(took_s, verdict)
