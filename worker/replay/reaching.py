"""From the settings to what tools need to work on dead letters: the queue, a publisher, how events are read, the rules.

The command line and the console both come this way.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.deadletters import LIMIT_AT, DeadLetterQueue
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.topology import QueueSpec, planned
from worker.config import Settings
from worker.core.decode import EventSchema
from worker.core.errors import ConnectionLost
from worker.core.fields import INT64_MAX
from worker.core.forecast import Grounds
from worker.journalports import Archive, Holders
from worker.ports import wall_us

WAIT_S = 30.0
"""How long to wait for a broker at first."""


@asynccontextmanager
async def at_the_queue(
    settings: Settings, queue: str, *, holders: Holders | None = None, wait_s: float = WAIT_S
) -> AsyncIterator[DeadLetterQueue]:
    """The queue, connected. ConnectionLost where there is no broker within ``wait_s``."""
    broker = settings.broker
    link = Link(Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s), name="order-worker dead")
    try:
        try:
            async with asyncio.timeout(wait_s):
                await link.get()
        except TimeoutError:
            raise ConnectionLost(f"no broker within {wait_s:g} s") from None
        yield DeadLetterQueue(link, _spec(settings, queue), holders=holders)
    finally:
        await link.close()


def _spec(settings: Settings, queue: str) -> QueueSpec:
    """The queue as we would declare it: only one that is so is known to have our delivery limit."""
    plan = planned(settings.broker)
    ours = next(each for each in plan.queues if each.name == plan.dead_queue)
    return QueueSpec(name=queue, arguments=ours.arguments)


@asynccontextmanager
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """On a connection of its own: under a memory alarm the broker stops reading from those that publish."""
    broker = settings.broker
    link = Link(Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s), name="order-worker replay")
    outlet = Publisher(link)
    try:
        yield outlet
    finally:
        await outlet.close()
        await link.close()


def schema_of(settings: Settings) -> EventSchema:
    """How events are read."""
    event = settings.event
    return EventSchema(event.extra_fields, event.ignore_fields, event.max_clock_skew_s)


async def grounds_of(archive: Archive, settings: Settings) -> Callable[[], Grounds]:
    """The rules that the worker goes by, at the moment of asking."""
    event, horizon_us = settings.event, await archive.horizon_us()
    base = Grounds(terminal=event.terminal_statuses, latest_us=INT64_MAX, horizon_us=horizon_us, allowed=event.allowed)
    ahead_us = round(event.max_clock_skew_s * 1_000_000)
    return lambda: replace(base, latest_us=wall_us() + ahead_us)


def home_of(settings: Settings, queue: str | None) -> str | None:
    """Copies out of our own queue go where retries go; those of others' queues where their producers sent them."""
    return settings.queue if queue in (None, settings.dead_letter_queue) else None


def worn_words(queue: str, deliveries: int) -> str:
    """Why a queue was not taken, without what to do about it."""
    return (
        f"stopped: a message of {queue!r} was handed out {deliveries} times before, and the queue is not declared "
        "as ours: its delivery limit may be 20, and beyond it the broker drops. Each look costs one, this one did "
        f"too. From {LIMIT_AT} on"
    )
