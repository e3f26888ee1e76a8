"""The broker goes away under load and comes back: killed, restarted, its application stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.conftest import Told
from tests.support.arena import Arena

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120), pytest.mark.usefixtures("each_lane_at_length")]


async def killed(arena: Arena) -> None:
    """A power cut."""
    await asyncio.to_thread(arena.node.kill)
    await asyncio.to_thread(arena.node.start)


async def restarted(arena: Arena) -> None:
    """As an administrator would."""
    await asyncio.to_thread(arena.node.restart)


async def stopped_app(arena: Arena) -> None:
    """RabbitMQ stops within an Erlang node that goes on."""
    await arena.ctl("stop_app")
    await arena.ctl("start_app")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "fault",
    [killed, pytest.param(restarted, marks=SLOW), pytest.param(stopped_app, marks=SLOW)],
    ids=lambda fault: fault.__name__,
)
async def test_a_broker_that_comes_back_is_consumed_from_again(
    arena: Arena, tell: Told, fault: Callable[[Arena], Awaitable[None]]
) -> None:
    """Without help, within 10 s, with the whole prefetch, and every event accounted for."""
    await arena.start()
    async with arena.load() as load:
        await arena.flowing()
        generations = arena.generations
        await fault(arena)
        back = time.monotonic()
        took_s = await arena.consuming_again(back, generations=generations)
        await arena.assert_full_prefetch()
    verdict = await arena.settled()

    assert load.unsure > 0
    tell(took_s, verdict)
