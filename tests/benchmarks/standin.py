"""The stand-in platform in a process of its own, looked at over its control interface."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.benchmarks.loads import Load
from tests.benchmarks.program import Program, running

LATENCY_S = 0.02
RANDOM_LATENCY_S = (0.005, 0.06)
Latency = float | tuple[float, float]


class Platform:
    """Answers after its latency: 20 ms, or what ``reset`` was given."""

    def __init__(self, program: Program, session: aiohttp.ClientSession) -> None:
        self.addresses: Mapping[str, str] = program.printed[0]
        self._program = program
        self._session = session

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path) -> AsyncIterator["Platform"]:
        """On free ports, until the block ends."""
        arguments = ("simulate", "--port", "0", "--sim-port", "0", "--latency", str(LATENCY_S))
        async with running(Program(folder, "platform", "worker", *arguments)) as program:
            await program.until_printed()
            async with aiohttp.ClientSession(raise_for_status=True) as session:
                yield cls(program, session)

    @property
    def work_cpu_s(self) -> float:
        """CPU seconds of its process since the last ``reset``."""
        return self._program.work_cpu_s

    async def reset(self, *, latency_s: Latency = LATENCY_S, keep_history: bool = False) -> None:
        """Forget orders and calls. Single changes are kept only where they are asked for: they cost memory and time."""
        options = {"latency_s": latency_s, "keep_history": keep_history}
        async with self._session.patch(self.addresses["sim_url"] + "options", json=options):
            pass
        async with self._session.post(self.addresses["sim_url"] + "reset"):
            pass
        self._program.mark()

    async def state(self) -> dict[str, Any]:
        """Its counters."""
        async with self._session.get(self.addresses["sim_url"] + "state") as response:
            return dict(await response.json())

    async def wrong(self, load: Load) -> list[int]:
        """The orders that do not say what their newest event wants, also those that were never seen."""
        unseen = set(load.newest)
        async for order in self._each("orders"):
            if load.is_right(order):
                unseen.discard(order["id"])
        return sorted(unseen)

    async def calls(self) -> list[dict[str, Any]]:
        """Its last 10,000 calls."""
        return [call async for call in self._each("calls")]

    async def history(self) -> list[dict[str, Any]]:
        """Every change since the last ``reset(keep_history=True)``."""
        return [change async for change in self._each("history")]

    async def _each(self, what: str) -> AsyncIterator[dict[str, Any]]:
        """One after the other: there may be a million."""
        async with self._session.get(self.addresses["sim_url"] + what) as response:
            async for line in response.content:
                yield msgspec.json.decode(line)
