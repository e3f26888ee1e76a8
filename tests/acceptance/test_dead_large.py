"""A queue of 200,000 dead letters: the commands go through it with the memory that they need for 20,000.

``ORDER_WORKER_TEST_LETTERS=1000000`` makes it a million (a quarter of an hour on two cores).
"""

import asyncio
import os
import time
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path

import pytest
from pamqp.commands import Basic
from pamqp.common import FieldTable

from tests.builders import NOW_US
from tests.chaos.memory import MEGABYTE, resident_bytes
from tests.support.broker import Outside
from tests.support.tool import Tool
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.times import format_time

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(3600)]

FEW, MANY = 20_000, int(os.environ.get("ORDER_WORKER_TEST_LETTERS", "200000"))
FIRST_ORDER = 46_000_000
MOST_MORE = 30 * MEGABYTE + 60 * (MANY - FEW)
"""What more letters may need more: counters, what the allocator happens to keep, and the channel of each window of a
thousand letters, which holds them until the end (50 bytes a letter; bodies are some hundred)."""


@dataclass(slots=True, frozen=True)
class Run:
    """What a command said, and what it took."""

    stdout: str
    stderr: str
    seconds: float
    peak: int


async def fill(outside: Outside, queue: str, first: int, last: int) -> None:
    """Dead letters as the worker makes them, without waiting for each confirm."""
    assert outside.connection.transport is not None
    channel = await outside.connection.transport.connection.channel(publisher_confirms=False)
    for number in range(first, last):
        order_id = FIRST_ORDER + number
        headers: FieldTable = {
            "ow-reason": "rejected" if number % 4 else "retries-exhausted",
            "ow-detail": "status: the platform does not take this value for an order that is cancelled",
            "ow-failed-at": format_time(NOW_US + number),
            "ow-occurred-at": format_time(NOW_US - number),
            "ow-first-seen": format_time(NOW_US),
            "ow-message-id": f"m-{number}",
            "ow-exchange": "order-updates",
            "ow-routing-key": str(order_id),
            "ow-order-id": order_id,
            "ow-worker": "1.0",
        }
        properties = Basic.Properties(
            headers=headers, message_id=f"copy-{number:09}", content_type="application/json", delivery_mode=2
        )
        body = b'{"id": %d, "status": 4, "shipping_carrier": "Royal Mail", "shipping_method": "Tracked 24"}' % order_id
        await channel.basic_publish(body, exchange="", routing_key=queue, properties=properties)
    async with asyncio.timeout(900):
        while await outside.ready(queue) != last:  # noqa: ASYNC110 - only the broker knows, so it is polled
            await asyncio.sleep(0.2)
    await channel.close()


async def run(tool: Tool, *arguments: str) -> Run:
    """Run a sub-command of ``dead`` to its end, however long it takes, and watch its memory."""
    began = time.monotonic()
    async with tool.started("dead", *arguments, JOURNAL_URL="sqlite:///journal.db") as process:
        watching = asyncio.create_task(watched(process))
        stdout, stderr = await process.communicate()
        peak = await watching
    assert process.returncode == 0, stderr.decode()
    return Run(stdout.decode(), stderr.decode(), time.monotonic() - began, peak)


async def watched(process: Process) -> int:
    """The most that it held at any look."""
    peak = 0
    while process.returncode is None:
        peak = max(peak, resident_bytes(process.pid))
        await asyncio.sleep(0.05)
    return peak


async def test_memory_is_flat_however_long_the_queue_is(
    tmp_path: Path, broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """Sync, list, export and discard; figures are printed with -s."""
    tool = Tool(tmp_path, broker.url, queues)
    queue = queues.dead_queue
    commands = (
        ("sync",),
        ("list",),
        ("export", "all.ndjson", "--force"),
        ("discard", "--reason", "retries-exhausted"),
    )
    peaks: dict[int, list[int]] = {FEW: [], MANY: []}
    for count, before in ((FEW, 0), (MANY, FEW)):
        await fill(outside, queue, before, count)
        for command in commands:
            done = await run(tool, *command)
            peaks[count].append(done.peak)
            print(f"{count} letters, {' '.join(command)}: {done.seconds:.1f} s, {done.peak / MEGABYTE:.0f} MB")  # noqa: T201 - for people
            await outside.until_ready(queue, count)
    with (tmp_path / "all.ndjson").open("rb") as file:
        exported = sum(1 for _ in file)
    discarded = await run(tool, "discard", "--reason", "retries-exhausted", "--yes", "--to-file", "gone.ndjson")
    print(f"discarding a quarter of them: {discarded.seconds:.1f} s, {discarded.peak / MEGABYTE:.0f} MB")  # noqa: T201 - for people
    await outside.until_ready(queue, MANY - MANY // 4)

    assert exported == MANY
    assert f"{MANY // 4} of {MANY} dead letters discarded" in discarded.stdout
    assert [many - few < MOST_MORE for few, many in zip(peaks[FEW], peaks[MANY], strict=True)] == [True] * len(commands)
    assert discarded.peak - peaks[FEW][0] < MOST_MORE
