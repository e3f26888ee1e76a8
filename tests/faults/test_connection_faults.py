"""The connection between worker and broker breaks, hangs or crawls under load; the broker itself is well."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import Told
from tests.support.arena import Arena
from tests.support.proxy import TcpProxy, Way
from tests.support.world import side_by_side
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120), pytest.mark.usefixtures("each_lane_at_length")]

ALERT = "?heartbeat=1"
"""Behind the URL, which outranks HEARTBEAT_S (5 at least, for false alarms cost more than they bring). A silent peer is
noticed after about 7 s by the worker, and after 3 s by the broker."""
NOTICED_S = 15.0
CRAWL_BYTES_PER_S = 20_000
"""A tenth of what the load makes."""

NO_SUCH_QUEUE = "{'queue.declare', 0, <<\"no such queue\">>, true, false, false, false, false, []}"
SETTLED_BEFORE = "{'basic.ack', 1, false}"


async def channels_get(arena: Arena, method: str) -> None:
    """Every channel that consumes does this (an Erlang term), as if its client had sent it."""
    consuming = "[{consumer_count, N}] <- [rabbit_channel:info(P, [consumer_count])], N > 0"
    await arena.ctl("eval", f"[rabbit_channel:do(P, {method}) || P <- rabbit_channel:list(), {consuming}].")


async def noticed(arena: Arena, losses: int) -> None:
    """Wait until the worker knows that it lost the channel."""
    await arena.worker.until(lambda worker: len(worker.heard("broker.channel_gone")) > losses, deadline_s=NOTICED_S)


async def reset(_arena: Arena, proxy: TcpProxy) -> None:
    """RST."""
    await proxy.cut()


async def finished(_arena: Arena, proxy: TcpProxy) -> None:
    """FIN."""
    await proxy.finish()


async def cut_in_a_frame(arena: Arena, proxy: TcpProxy) -> None:
    """The broker's bytes break off in the middle of something."""
    proxy.cut_after(1234, Way.DOWN)
    await noticed(arena, 0)
    await proxy.heal()


async def deaf(arena: Arena, proxy: TcpProxy) -> None:
    """Half open: what the worker says does not arrive."""
    proxy.blackhole(Way.UP)
    await noticed(arena, 0)
    await proxy.heal()


async def mute(arena: Arena, proxy: TcpProxy) -> None:
    """Half open: what the broker says does not arrive."""
    proxy.blackhole(Way.DOWN)
    await noticed(arena, 0)
    await proxy.heal()


async def dark(arena: Arena, proxy: TcpProxy) -> None:
    """Nothing arrives anywhere, and nobody is told."""
    proxy.blackhole()
    await noticed(arena, 0)
    await proxy.heal()


async def connections_closed(arena: Arena, _proxy: TcpProxy) -> None:
    """An administrator closes them all."""
    await arena.ctl("close_all_connections", "maintenance")


async def channel_error(arena: Arena, _proxy: TcpProxy) -> None:
    """The broker closes the channel with an error; the connection stays."""
    await channels_get(arena, NO_SUCH_QUEUE)


async def frozen_broker(arena: Arena, _proxy: TcpProxy) -> None:
    """The broker stands still for longer than the worker believes it alive."""
    node = arena.node.pids[0]
    os.kill(node, signal.SIGSTOP)
    try:
        await noticed(arena, 0)
    finally:
        os.kill(node, signal.SIGCONT)


async def frozen_worker(arena: Arena, _proxy: TcpProxy) -> None:
    """The worker stands still until the broker has given it up."""
    arena.worker.send(signal.SIGSTOP)
    try:
        async with asyncio.timeout(NOTICED_S), arena.outside() as person:
            channel = await person.channel()
            count: int | None = 1
            while count:
                count = (await channel.queue_declare(arena.names.work_queue, passive=True)).consumer_count
    finally:
        arena.worker.send(signal.SIGCONT)


Break = Callable[[Arena, TcpProxy], Awaitable[None]]
SUDDEN: tuple[Break, ...] = (reset, finished, cut_in_a_frame, connections_closed, channel_error, frozen_broker)
LASTING: tuple[Break, ...] = (deaf, mute, dark, frozen_worker)


QUICK = (reset, channel_error)


@pytest.mark.parametrize(
    "fault",
    [fault if fault in QUICK else pytest.param(fault, marks=pytest.mark.slow) for fault in SUDDEN],
    ids=lambda fault: fault.__name__,
)
async def test_a_lost_connection_is_replaced(node: PrivateBroker, tmp_path: Path, tell: Told, fault: Break) -> None:
    """Without help, within 10 s, with the whole prefetch, and every event accounted for."""
    await _replaced(node, tmp_path, tell, fault)


@pytest.mark.slow
async def test_a_connection_lost_in_silence_is_replaced(node: PrivateBroker, tmp_path: Path, tell: Told) -> None:
    """The same, where somebody first has to notice; these wait for most of their time, so they do it side by side."""
    await side_by_side({fault.__name__: fault for fault in LASTING}, partial(_replaced, node, tmp_path, tell))


async def _replaced(node: PrivateBroker, folder: Path, tell: Told, fault: Break) -> None:
    async with asyncio.timeout(90), Arena(node, folder) as arena, TcpProxy(arena.node.port) as proxy:
        await arena.start(AMQP_URL=proxy.url() + ALERT)
        async with arena.load():
            await arena.flowing()
            generations = arena.generations
            await fault(arena, proxy)
            took_s = await arena.consuming_again(time.monotonic(), generations=generations)
            await arena.assert_full_prefetch()
        verdict = await arena.settled()
        tell(took_s, verdict, fault.__name__)


@pytest.mark.slow
async def test_a_slow_connection_is_only_slow(arena: Arena, tell: Told) -> None:
    """No loss of the channel, nothing delivered twice, and full speed as soon as the line allows it."""
    async with TcpProxy(arena.node.port) as proxy:
        await arena.start(AMQP_URL=proxy.url())
        async with arena.load() as load:
            await arena.flowing()
            proxy.slow(bytes_per_s=CRAWL_BYTES_PER_S, delay_s=0.05)
            behind = load.events + 600
            await arena.until(lambda: load.events > behind)
            await proxy.heal()
            took_s = await arena.recovered(time.monotonic())
            await arena.assert_full_prefetch()
        verdict = await arena.settled()

    assert arena.generations == 1
    assert arena.worker.counts["delivered"] == load.events
    tell(took_s, verdict)


async def test_a_second_settlement_would_be_seen(arena: Arena) -> None:
    """The accounts find it in the log of the broker, and mostly in that of the worker; nothing else is wrong here."""
    await arena.start()
    async with arena.load():
        await arena.flowing()
        generations = arena.generations
        await channels_get(arena, SETTLED_BEFORE)
        await arena.consuming_again(time.monotonic(), generations=generations)
    await arena.arrived()
    assert await arena.worker.terminate() == 0
    problems = (await arena.verdict()).problems

    assert set(problems) == {"settled twice"}
    # The worker may have noticed that the channel is gone before it was told why.
    assert "broker log" in {case.partition(":")[0] for case in problems["settled twice"]}
