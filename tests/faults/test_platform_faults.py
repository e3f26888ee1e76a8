"""The platform fails in one of its ways, and in the middle of that the broker dies as well."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Told
from tests.support.arena import Arena
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

FAULTS: Mapping[str, dict[str, Any]] = {
    "dead": {"kind": "refuse", "standing": True},
    "unavailable": {"kind": "status", "status": 503, "standing": True},
    "throttled": {"kind": "status", "status": 429, "retry_after": 1, "standing": True},
    "failing": {"kind": "status", "status": 500, "rate": 0.7},
    "slow": {"kind": "delay", "seconds": 1.5, "standing": True},
    "resetting": {"kind": "reset_after", "rate": 0.7},
}
RATE_PER_S = 80.0
"""Six workers, platforms and loads share a machine with one broker."""


@pytest.mark.slow
async def test_platform_and_broker_fail_together(node: PrivateBroker, tmp_path: Path, tell: Told) -> None:
    """Six workers, each with a platform that fails in another way, and one broker that is killed under all of them."""
    async with AsyncExitStack() as stack:
        arenas = {name: await stack.enter_async_context(Arena(node, tmp_path)) for name in FAULTS}
        await asyncio.gather(*(arena.start() for arena in arenas.values()))
        loads = {name: arena.load(rate_per_s=RATE_PER_S, refused_every=0) for name, arena in arenas.items()}
        async with AsyncExitStack() as publishing:
            for load in loads.values():
                await publishing.enter_async_context(load)
            await asyncio.gather(*(arena.flowing(100) for arena in arenas.values()))
            generations = {name: arena.generations for name, arena in arenas.items()}
            for name, arena in arenas.items():
                await arena.fault(**FAULTS[name])
            await asyncio.gather(*(_meets_trouble(arena) for arena in arenas.values()))
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
            for arena in arenas.values():
                await arena.simulator.clear_faults()
            back = time.monotonic()
            took = await asyncio.gather(
                *(arena.consuming_again(back, generations=generations[name]) for name, arena in arenas.items())
            )
        verdicts = await asyncio.gather(*(arena.settled() for arena in arenas.values()))

    for took_s, name, verdict in zip(took, FAULTS, verdicts, strict=True):
        assert verdict.figures["dead"] == 0, name
        tell(took_s, verdict, name)


async def _meets_trouble(arena: Arena) -> None:
    """Wait until the worker has seen of the fault, or (where it is only slow) until a call is under way."""
    calls = arena.simulator.platform.calls
    mark = calls.started
    await arena.until(lambda: arena.worker.heard("call.failed") or calls.started >= mark + 2)
