"""Event loop lag: the worst of the last minute, measured without a task."""

import asyncio

from tests.support.virtualtime import VirtualTimeLoop
from worker.looplag import EVERY_S, KEPT_S, LoopLag


def keep_busy(seconds: float) -> None:
    """As something would that does not let the loop go on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.keep_busy(seconds)


async def test_a_stall_is_seen_for_a_minute() -> None:
    """However short scrapes are apart, or long."""
    async with LoopLag() as lag:
        await asyncio.sleep(10.0)
        before = lag.most_s
        keep_busy(3.0)
        await asyncio.sleep(0.1)
        after = lag.most_s
        await asyncio.sleep(KEPT_S - 1.0)
        still = lag.most_s
        await asyncio.sleep(2.0)

        assert before < 1e-6
        assert 3.0 - EVERY_S <= after <= 3.0
        assert still == after
        assert lag.most_s < 1e-6


async def test_nothing_is_left_of_it() -> None:
    """No timer that would call it again; what was seen can still be read."""
    async with LoopLag() as lag:
        keep_busy(2.0)
        await asyncio.sleep(0.1)
    seen = lag.most_s
    keep_busy(5.0)
    await asyncio.sleep(1.0)

    assert lag.most_s == seen > 1.0
