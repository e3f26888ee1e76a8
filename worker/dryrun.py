"""The dry run: the worker on copies of the traffic, with nothing behind it.

Its queue is its own, bound to the producers' exchange: the work queue, its retries and its dead letters are not
touched, the platform is not called, no token is fetched, and the journal is only read. So it can be started before the
first real run, and beside one; beside one it shows what is sent already as superseded.

All its log lines carry ``dry_run``: what they tell would have happened.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.copyqueue import close_copies, open_copies
from worker.adapters.journal.readonly import ReadOnlyJournal, journal_to_read
from worker.app import signals, unless_stopped
from worker.assembling import Ends, pipeline_of
from worker.caller import Caller
from worker.config import Settings
from worker.core.errors import ConnectionLost
from worker.core.horizon import Horizon
from worker.core.model import Delivery
from worker.core.rulesfile import rules_of
from worker.rehearsing import Books, LimitedIntake, NoTokens, PretendedPlatform, RehearsedSettler, Show
from worker.retrying import forever

log = structlog.get_logger(__name__)

NEVER = 1.0
"""Of the storm guard: a dry run is to show all there is, and its summary has the dead letters."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Bounds:
    """When it ends by itself: after so many seconds, after so many events. None: it does not."""

    seconds: float | None = None
    count: int | None = None


def queue_of(queue: str) -> str:
    """The name of this process's queue of copies."""
    return f"{queue}.dry-run.{socket.gethostname()}-{os.getpid()}"


async def rehearse(settings: Settings, bounds: Bounds, show: Show | None = None) -> Books:
    """Read copies until a bound is reached, SIGINT or SIGTERM; what would have happened.

    ``show`` is given the orders of each call. Raises BrokerRefused where the broker does, and JournalOutdated.
    """
    books, stop, queue = Books(), asyncio.Event(), queue_of(settings.queue)
    with structlog.contextvars.bound_contextvars(dry_run=True), signals(stop, settings.drain_grace_s):
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(journal_to_read(settings.journal_url))
            broker = settings.broker
            endpoint = Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s, fast_lane=broker.fast_lane)
            link = Link(endpoint, name="order-worker dry run")
            stack.push_async_callback(link.close)
            stack.push_async_callback(_remove, link, queue)
            prepared = _prepare(link, exchange=settings.exchange, queue=queue)
            if await unless_stopped(stop, prepared):
                await _work(settings, bounds, books, stop=stop, link=link, journal=journal, show=show)
    return books


async def _prepare(link: Link, *, exchange: str, queue: str) -> None:
    async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(ConnectionLost,)):
        with attempt:
            await open_copies(await link.get(), exchange=exchange, queue=queue)
    log.info("dryrun.started", queue=queue, exchange=exchange)


async def _remove(link: Link, queue: str) -> None:
    if link.connected:
        await close_copies(await link.get(), queue)


async def _work(
    settings: Settings,
    bounds: Bounds,
    books: Books,
    *,
    stop: asyncio.Event,
    link: Link,
    journal: ReadOnlyJournal,
    show: Show | None,
) -> None:
    def heard() -> None:
        if bounds.count is not None and books.decided >= bounds.count:
            stop.set()

    consumer = Consumer(link, queue=queue_of(settings.queue), prefetch=settings.prefetch)
    settler = RehearsedSettler(books, partial(_acknowledge, consumer), heard=heard)
    horizon = Horizon(days=settings.journal_retention_days)
    horizon.before_us = await journal.horizon_us()
    ends = Ends(
        intake=LimitedIntake(consumer, books, bounds.count),
        settler=settler,
        caller=Caller(
            PretendedPlatform(books, show), NoTokens(), rules_of(settings.rules, settings.event.terminal_statuses)
        ),
        journal=journal,
        horizon=horizon,
    )
    # The worker's own rules; only the storm guard is left out, because a dry run is to show all there is.
    pipeline = pipeline_of(settings, ends, name="dry run", prefetch=settings.prefetch, storm_ratio=NEVER)
    timer = asyncio.get_running_loop().call_later(bounds.seconds, stop.set) if bounds.seconds is not None else None
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pipeline.run(), name="pipeline")
            refused = group.create_task(consumer.wait_consuming(), name="wait for the broker")
            stopped = group.create_task(stop.wait(), name="wait for the end")
            await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
            pipeline.stop()
            refused.cancel()
            stopped.cancel()
    finally:
        if timer is not None:
            timer.cancel()


async def _acknowledge(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    tags: dict[int, list[list[int]]] = {}
    for delivery in deliveries:
        if consumer.holds(delivery):
            tags.setdefault(delivery.generation, []).append([delivery.tag])
    for generation, groups in tags.items():
        await consumer.acknowledge(generation, groups)
