"""The commands as people run them, against a real broker: a process of their own with names of their own."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiormq.abc import DeliveredMessage

from tests.support.broker import DEADLINE_S, Outside
from tests.support.world import partitioned
from worker.adapters.amqp.topology import Topology

PREFIX = "ORDER_WORKER_"


@dataclass(slots=True, frozen=True)
class Finished:
    """How it ended."""

    code: int
    stdout: str
    stderr: str


class Tool:
    """Runs ``python -m worker`` in a directory of the test, with these settings and nothing of the machine's."""

    def __init__(self, directory: Path, url: str, names: Topology) -> None:
        self.directory = directory
        self._settings = {
            "AMQP_URL": url,
            "EXCHANGE": names.exchanges[0].name,
            "QUEUE": names.work_queue,
            **partitioned(names),
            "DEAD_LETTER_QUEUE": names.dead_queue,
        }

    def use(self, settings: Mapping[str, str]) -> None:
        """These settings from now on; names without prefix."""
        self._settings |= settings

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """That of the process; names are given without prefix."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return inherited | {f"{PREFIX}{name}": value for name, value in (self._settings | dict(settings)).items()}

    @asynccontextmanager
    async def started(self, *arguments: str, **settings: str) -> AsyncIterator[Process]:
        """Start it and leave it running; killed if it outlives the block."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", *arguments),
            env=self.environment(settings),
            cwd=self.directory,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, *arguments: str, stdin: bytes = b"", **settings: str) -> Finished:
        """Run it to the end."""
        async with self.started(*arguments, **settings) as process:
            return await finished(process, stdin)


async def finished(process: Process, stdin: bytes = b"") -> Finished:
    """Wait for the end of a process; at most 40 s."""
    async with asyncio.timeout(2 * DEADLINE_S):
        # Also closes its standard input, if that is a pipe of ours.
        stdout, stderr = await process.communicate(None if process.stdin is None else stdin)
    return Finished(process.returncode or 0, (stdout or b"").decode(), (stderr or b"").decode())


async def take_all(outside: Outside, queue: str, count: int) -> list[DeliveredMessage]:
    """Remove ``count`` messages, in the order in which the queue gives them out."""
    assert outside.connection.transport is not None
    channel = await outside.connection.transport.connection.channel()
    messages: list[DeliveredMessage] = []
    complete = asyncio.Event()

    async def receive(message: DeliveredMessage) -> None:
        messages.append(message)
        if len(messages) >= count:
            complete.set()

    async with asyncio.timeout(DEADLINE_S):
        await channel.basic_consume(queue, receive, no_ack=True)
        await complete.wait()
        await channel.close()
    return messages
