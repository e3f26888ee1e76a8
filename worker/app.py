"""The composition root: settings become adapters, adapters and core become a pipeline, signals become a drain."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import structlog

from worker.adapters.admin import AdminServer
from worker.adapters.amqp.connection import Endpoint, Link, shown
from worker.adapters.amqp.declaring import declare, verify
from worker.adapters.amqp.partitions import Partitions
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import planned
from worker.adapters.graphql import GraphqlPlatform
from worker.adapters.journal.opening import AnyJournal, check, journal_at
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.adapters.prometheus import PrometheusText
from worker.caller import Caller
from worker.config import Settings
from worker.core.breaker import Breaker
from worker.core.budget import prefetch_in_use
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.errors import ConnectionLost, JournalUnavailable, UsageError
from worker.core.horizon import Horizon
from worker.core.journal import LATE_S
from worker.core.outcome import Outcomes
from worker.core.partition import assigned
from worker.core.rulesfile import ExtraRules
from worker.core.settings import TopologyMode
from worker.core.storm import StormGuard
from worker.core.verdict import Rules
from worker.core.vitals import Health
from worker.core.watch import Watch
from worker.looplag import LoopLag
from worker.observing import queue_depths
from worker.operations import Parts, WorkerOperations
from worker.pipeline import Limits, Pipeline
from worker.ports import Exposition, Operations, wall_us
from worker.pruning import keep_pruned
from worker.retrying import forever
from worker.tracing import tracing_by
from worker.watchdog import Watchdog

log = structlog.get_logger(__name__)

DISTRIBUTION = "order-update-worker"


@dataclass(slots=True, frozen=True, kw_only=True)
class _Parts:
    """What has a life of its own."""

    consuming: Link
    publishing: Link
    consumer: Partitions
    pipeline: Pipeline
    operations: WorkerOperations
    watchdog: Watchdog
    journal: AnyJournal
    horizon: Horizon
    journal_found: asyncio.Event


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
            parts = await _assemble(settings, stack)
            await open_admin(settings, parts.operations, PrometheusText(parts.operations.readings), last)
            if await unless_stopped(stop, _prepare(settings, parts)):
                await _work(parts, stop)
    log.info("worker.stopped", took_s=round(time.monotonic() - started, 3), counts=dict(parts.pipeline.counts))


def _tell_start(settings: Settings) -> None:
    broker = settings.broker
    url = ",".join(map(shown, broker.urls))
    log.info("worker.starting", version=version(DISTRIBUTION), queue=broker.queue, prefetch=broker.prefetch, url=url)
    if (allowed := settings.event.allowed) is not None:
        log.warning("worker.restricted", orders=len(allowed))


async def _assemble(settings: Settings, stack: AsyncExitStack) -> _Parts:
    """Everything wired up, nothing connected yet. The stack closes it in reverse order."""
    broker, batch, platform = settings.broker, settings.batch, settings.require_platform()
    tracing = await stack.enter_async_context(
        tracing_by(settings.tracing, queue=broker.queue, service=DISTRIBUTION, version=version(DISTRIBUTION))
    )
    endpoint = Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s)
    consuming, publishing = (Link(endpoint, name=f"order-worker {role}") for role in ("consume", "publish"))
    for link in (consuming, publishing):
        stack.push_async_callback(link.close)
    prefetch = prefetch_in_use(broker.prefetch, max_batch=batch.max_batch, per_hour=batch.calls_per_hour)
    name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
    partitions = assigned(
        broker.queue, broker.partitions, worker=name, index=broker.worker_index, workers=broker.workers
    )
    consumer = Partitions(consuming, partitions, prefetch=prefetch)
    publisher = Publisher(publishing)
    stack.push_async_callback(publisher.close)
    plan = planned(settings.broker)
    settler = BrokerSettler(
        consumer,
        publisher,
        dead_queue=plan.dead_queue,
        retry_exchanges=plan.retry_exchanges,
        worker=version(DISTRIBUTION),
    )
    credentials = ClientCredentials(
        url=platform.oauth_url,
        client_id=platform.client_id,
        client_secret=platform.client_secret,
        scope=platform.oauth_scope,
    )
    tokens = await stack.enter_async_context(OAuthTokenSource(credentials, timeout_s=platform.call_timeout_s))
    graphql = GraphqlPlatform(
        platform.graphql_url,
        timeout_s=platform.call_timeout_s,
        extra_fields=settings.extra_fields,
        max_connections=batch.max_in_flight + 1,  # one more for probes
        more_headers=None if tracing is None else tracing.headers,
    )
    await stack.enter_async_context(graphql)
    coalescer = Coalescer(
        max_batch=batch.max_batch,
        max_bytes=batch.max_batch_bytes,
        linger_s=batch.linger_s,
        milestones=settings.event.milestone_statuses,
        name=os.urandom(4).hex(),
        partitions=broker.partitions,
    )
    journal = journal_at(settings.journal_url, worker=name, claim_s=platform.call_timeout_s + LATE_S)
    stack.push_async_callback(journal.close)
    horizon = Horizon(days=settings.journal_retention_days)
    pipeline = Pipeline(
        schema=EventSchema(settings.extra_fields, settings.ignore_fields, settings.max_clock_skew_s),
        coalescer=coalescer,
        outcomes=Outcomes(coalescer, max_attempts=batch.max_attempts, delays_s=broker.retry_delays_s),
        breaker=Breaker(hold_limit_s=batch.hold_limit_s),
        storm=StormGuard(ratio=settings.storm.storm_ratio, window=settings.storm.storm_window),
        caller=Caller(
            graphql if tracing is None else tracing.platform(graphql, platform.graphql_url),
            tokens,
            rules_of(settings.rules, settings.event.terminal_statuses),
        ),
        journal=journal,
        settler=settler if tracing is None else tracing.settler(settler),
        intake=consumer if tracing is None else tracing.intake(consumer),
        limits=Limits(
            max_in_flight=batch.max_in_flight,
            max_unsettled_s=batch.max_unsettled_s,
            drain_grace_s=batch.drain_grace_s,
            prefetch=prefetch,
            partitions=broker.partitions,
            calls_per_hour=batch.calls_per_hour,
            delivery_limit=broker.delivery_limit,
        ),
        name=name,
        queue=broker.queue,
        horizon=horizon,
        allowed=settings.event.allowed,
        tracer=tracing,
    )

    async def rebuild() -> None:
        await publisher.close()
        await publishing.close()
        await consumer.rebuild()

    watchdog = Watchdog(
        Watch(),
        activity=lambda: pipeline.activity,
        intake=lambda: consumer.status,
        rebuild=rebuild,
        clock=time.monotonic,
    )
    journal_found = asyncio.Event()
    lag = await stack.enter_async_context(LoopLag())
    depths = await queue_depths(settings, plan, endpoint, stack, wanted=lambda: consuming.connected)
    operations = WorkerOperations(
        pipeline,
        Parts(
            intake=lambda: consumer.status,
            token_age_s=lambda: tokens.age_s,
            stalled=lambda: watchdog.finding,
            health=lambda: Health(
                alive=watchdog.alive,
                loop_lag_s=lag.most_s,
                connections={"consume": consuming.connected, "publish": publishing.connected},
            ),
            journal_found=journal_found.is_set,
            depths=depths,
            version=version(DISTRIBUTION),
            started_s=time.time(),
        ),
    )
    return _Parts(
        consuming=consuming,
        publishing=publishing,
        consumer=consumer,
        pipeline=pipeline,
        operations=operations,
        watchdog=watchdog,
        journal=journal,
        horizon=horizon,
        journal_found=journal_found,
    )


def rules_of(extra: ExtraRules, terminal_statuses: frozenset[int]) -> Rules:
    """The built-in rules of judgement, extended by those of ``RULES_FILE``."""
    own = Rules()
    texts = {section: tuple(str(text) for text in extra[section]["texts"]) for section in extra}
    codes = {section: frozenset(str(code) for code in extra[section]["codes"]) for section in extra}
    statuses = frozenset(int(status) for status in extra["throttle"]["statuses"])
    return Rules(
        throttle_statuses=own.throttle_statuses | statuses,
        throttle_texts=own.throttle_texts + texts["throttle"],
        throttle_codes=own.throttle_codes | codes["throttle"],
        transient_texts=own.transient_texts + texts["transient"],
        transient_codes=own.transient_codes | codes["transient"],
        auth_texts=own.auth_texts + texts["auth"],
        auth_codes=own.auth_codes | codes["auth"],
        terminal_statuses=terminal_statuses,
    )


async def _prepare(settings: Settings, parts: _Parts) -> None:
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


async def _work(parts: _Parts, stop: asyncio.Event) -> None:
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


async def open_admin(settings: Settings, operations: Operations, exposition: Exposition, stack: AsyncExitStack) -> None:
    """Start the admin interface. UsageError where it cannot listen, unless nobody chose the port: bringing events to
    the platform matters more than a default that something else on this machine holds."""
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
