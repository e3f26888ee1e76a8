"""The life of a worker: put together, prepared, at work, drained. Signals become a drain."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.metadata import version

import structlog

from worker.adapters.amqp.connection import shown
from worker.adapters.amqp.declaring import declare, verify
from worker.adapters.amqp.partitions import Partitions
from worker.adapters.amqp.topology import planned
from worker.adapters.journal.opening import check
from worker.assembling import DISTRIBUTION, Worker, assemble
from worker.config import Settings
from worker.core.errors import ConnectionLost, JournalUnavailable, UsageError
from worker.core.settings import TopologyMode
from worker.operations import WorkerOperations
from worker.ports import Exposition, Operations, wall_us
from worker.pruning import keep_pruned
from worker.retrying import forever

log = structlog.get_logger(__name__)


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Raises UsageError without credentials for the platform, where ``ALLOW_ORDERS`` bids the others wait, or where the
    admin interface cannot listen, and BrokerRefused when the broker answers and refuses us.
    A broker or platform that is merely away is waited for.
    """
    settings.require_platform()
    settings.require_consumable()
    started = time.monotonic()
    _tell_start(settings)
    stop = asyncio.Event()
    with signals(stop, settings.drain_grace_s):
        # The admin interface outlives everything else: it answers why the worker is not ready, from first to last.
        async with AsyncExitStack() as last, AsyncExitStack() as stack:
            parts = await assemble(settings, stack)
            if settings.admin_port:
                await open_admin(settings, parts.operations, _exposition(parts.operations), last)
            if await unless_stopped(stop, _prepare(settings, parts)):
                await _work(parts, stop)
    log.info("worker.stopped", took_s=round(time.monotonic() - started, 3), counts=dict(parts.pipeline.counts))


def _tell_start(settings: Settings) -> None:
    broker = settings.broker
    url = ",".join(map(shown, broker.urls))
    log.info(
        "worker.starting",
        version=version(DISTRIBUTION),
        queue=broker.queue,
        prefetch=broker.prefetch,
        url=url,
        event_loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
    )
    if (allowed := settings.event.allowed) is not None:
        log.warning("worker.restricted", orders=len(allowed))


async def _prepare(settings: Settings, parts: Worker) -> None:
    """The journal, both connections, and the topology declared or checked. Waits for what is away."""
    async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(JournalUnavailable,), noticed=_journal_away):
        with attempt:
            await check(parts.journal, settings.journal_url)
            parts.horizon.before_us = await parts.journal.horizon_us()
    parts.journal_found.set()
    bring = declare if settings.topology is TopologyMode.DECLARE else verify
    async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(ConnectionLost,)):
        with attempt:
            await bring(await parts.consuming.get(), planned(settings.broker))
    await parts.publishing.get()


async def unless_stopped(stop: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Do ``work`` unless we are asked to stop first. True when it was done."""
    task = asyncio.create_task(work, name="prepare")
    stopped = asyncio.create_task(stop.wait(), name="wait for a signal")
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (task, stopped):
            if not each.done():
                each.cancel()
        await asyncio.wait((task, stopped))
    if task.cancelled():
        return False
    task.result()
    return not stop.is_set()


def _journal_away(error: Exception, attempt: int, wait_s: float) -> None:
    log.error("journal.unavailable", detail=str(error), attempt=attempt, next_try_s=round(wait_s, 3))


async def _work(parts: Worker, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(parts.pipeline.run(), name="pipeline")
        ready = group.create_task(_tell_ready(parts.consumer), name="tell ready")
        watching = group.create_task(parts.watchdog.run(), name="watchdog")
        pruning = group.create_task(
            keep_pruned(parts.journal, parts.horizon, wall_us=wall_us), name="prune the journal"
        )
        stopped = group.create_task(stop.wait(), name="wait for a signal")
        await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        parts.pipeline.stop()
        for task in (ready, watching, pruning, stopped):
            task.cancel()


async def _tell_ready(consumer: Partitions) -> None:
    await consumer.wait_consuming()
    log.info("worker.ready")


def _exposition(operations: WorkerOperations) -> Exposition:
    # Here and below: without the interface neither prometheus-client nor aiohttp's server is needed, 3 MB.
    from worker.adapters.prometheus import PrometheusText

    return PrometheusText(operations.readings)


async def open_admin(settings: Settings, operations: Operations, exposition: Exposition, stack: AsyncExitStack) -> None:
    """Start the admin interface. UsageError where it cannot listen, unless nobody chose the port: bringing events to
    the platform matters more than a default that something else on this machine holds."""
    from worker.adapters.admin import AdminServer

    try:
        await stack.enter_async_context(AdminServer(settings.admin, operations, exposition))
    except UsageError as refused:
        if "admin_port" in settings.model_fields_set:
            raise
        log.warning("admin.unavailable", detail=str(refused))


@contextmanager
def signals(stop: asyncio.Event, grace_s: float) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop``; the next one ends the process without further ado: the broker redelivers."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, partial(_on_signal, stop, number, grace_s))
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _on_signal(stop: asyncio.Event, number: signal.Signals, grace_s: float) -> None:
    if stop.is_set():
        log.warning("worker.forced_exit", signal=number.name)
        os._exit(1)
    log.info("worker.draining", signal=number.name, grace_s=grace_s)
    stop.set()
