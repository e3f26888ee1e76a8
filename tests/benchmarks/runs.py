"""One run of each kind on one stage: the worker, aio-pika's bare loop, and one call per message.

The queue is filled before the clock starts, and each is a process of its own. What is left in the queue, or wrong on
the platform, is part of what a run came to: whoever asked for it judges that.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figures, calls_of
from tests.benchmarks.loads import Load
from tests.benchmarks.program import Program, running
from tests.benchmarks.queues import DEADLINE_S, Queues
from tests.benchmarks.standin import LATENCY_S, Latency, Platform
from tests.support import generation
from worker.adapters.privatebroker import PrivateBroker
from worker.config import Settings, variable
from worker.simulator.options import Options

PREFETCH = 2000
MAX_BATCH = 500
"""Orders in a call, as the figures that the worker is held against were measured with."""
WORKER = "worker"
BARE = "bare consume and ack"
BASELINE = "one call per message"
BASELINE_EVENTS = 5_000
"""A twentieth of the load: rates and costs of it do not depend on how long it goes on."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Stage:
    """Where runs take place."""

    folder: Path
    queues: Queues
    platform: Platform

    @classmethod
    @asynccontextmanager
    async def set_up(cls, broker: PrivateBroker, folder: Path, *, partitions: int = 1) -> AsyncIterator["Stage"]:
        """Empty queues and a platform without orders."""
        async with Queues.made(broker, partitions=partitions) as queues, Platform.start(folder) as platform:
            yield cls(folder=folder, queues=queues, platform=platform)

    def start_worker(self, name: str = "worker", **settings: str) -> Program:
        """Start a worker on these queues, with these settings on top of the usual ones; the caller ends it."""
        names, addresses = self.queues.names, self.platform.addresses
        usual = {
            "amqp_url": self.queues.url,
            "exchange": names.exchanges[0].name,
            "queue": names.work_queue,
            "dead_letter_queue": names.dead_queue,
            "oauth_url": addresses["oauth_url"],
            "graphql_url": addresses["graphql_url"],
            "client_id": Options().client_id,
            "client_secret": Options().client_secret,
            "journal_url": "memory",
            "admin_port": "0",
            "max_batch": str(MAX_BATCH),
            "prefetch": str(PREFETCH),
        }
        if len(names.work_queues) > 1:
            usual |= {"partitions": str(len(names.work_queues)), "hash_exchange": generation.hash_exchange()}
        variables = {variable(key): value for key, value in (usual | settings).items()}
        return Program(self.folder, name, "worker", "run", **variables)

    async def worker(
        self, load: Load, *, name: str = WORKER, latency_s: Latency = LATENCY_S, **settings: str
    ) -> Figures:
        """Fill the queue, and let a worker empty it."""
        await self.platform.reset(latency_s=latency_s)
        await self.queues.publish(load)
        async with running(self.start_worker(**settings)) as program:
            await program.until_logged("broker.consuming")
            program.mark()
            await self.queues.until_taken()
            peak_mb = program.peak_mb
            assert await program.end(signal.SIGTERM) == 0
        seconds = program.wall_s("worker.stopped") - program.wall_s("broker.consuming")
        return await self._figures(name, load, program, seconds, peak_mb)

    def start_bare(self, events: int) -> Program:
        """Start aio-pika's bare loop; it ends by itself after so many events."""
        arguments = (self.queues.url, self.queues.names.work_queue, str(events), str(PREFETCH))
        return Program(self.folder, "bare", "tests.benchmarks.bare", *arguments)

    def start_baseline(self, events: int) -> Program:
        """Start one call per message; it ends by itself after so many events."""
        addresses = self.platform.addresses
        urls = (addresses["oauth_url"], addresses["graphql_url"])
        arguments = (self.queues.url, self.queues.names.work_queue, *urls, str(events))
        return Program(self.folder, "baseline", "tests.benchmarks.baseline", *arguments)

    async def bare(self, load: Load) -> Figures:
        """The same queue, consumed and acknowledged by aio-pika, one by one."""
        return await self._yardstick(BARE, load, self.start_bare, calls=False)

    async def baseline(self, load: Load) -> Figures:
        """The same platform and queue, one call per message."""
        return await self._yardstick(BASELINE, load, self.start_baseline)

    async def _yardstick(
        self, name: str, load: Load, start: Callable[[int], Program], *, calls: bool = True
    ) -> Figures:
        await self.platform.reset()
        await self.queues.publish(load)
        async with running(start(len(load))) as program:
            await program.until_printed()
            program.mark()
            peak_mb = await _peak_until_ended(program)
        assert program.returncode == 0
        return await self._figures(name, load, program, program.printed[-1]["took_s"], peak_mb, calls=calls)

    async def _figures(
        self, name: str, load: Load, program: Program, seconds: float, peak_mb: float, *, calls: bool = True
    ) -> Figures:
        """``calls`` is false for what calls nobody: then no order can be wrong."""
        platform_cpu_s = self.platform.work_cpu_s
        state: dict[str, Any] = await self.platform.state()
        count, entries = calls_of(state)
        wrong = await self.platform.wrong(load) if calls else []
        left = await self.queues.left()
        await self.queues.purge()  # aio-pika's bare loop loses its last acks in some runs: nobody is to inherit them
        return Figures(
            name=name,
            load=load.name,
            events=len(load),
            seconds=seconds,
            cpu_s=program.work_cpu_s,
            start_cpu_s=program.cpu_before_s,
            peak_mb=peak_mb,
            calls=count,
            entries=entries,
            wrong=len(wrong),
            overlaps=sum(state["calls"]["overlaps"].values()),
            left=left,
            platform_cpu_s=platform_cpu_s,
        )


async def _peak_until_ended(program: Program) -> float:
    """The most memory that a program had which ends by itself, as of the last look at it."""
    ended = asyncio.create_task(program.end(None, deadline_s=DEADLINE_S), name="end")
    peak_mb = 0.0
    while not ended.done():
        try:
            peak_mb = max(peak_mb, program.peak_mb)
        except (RuntimeError, OSError):  # it ended a moment ago
            break
        await asyncio.wait((ended,), timeout=0.1)
    await ended
    return peak_mb


def has_setting(name: str) -> bool:
    """Whether this version of the worker knows the setting."""
    return name in Settings.model_fields
