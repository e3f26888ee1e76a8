"""Settings become adapters, adapters and core become a pipeline: everything wired up, nothing connected yet."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.partitions import Partitions
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import Topology, planned
from worker.adapters.graphql import GraphqlPlatform
from worker.adapters.journal.opening import AnyJournal, journal_at
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.caller import Caller
from worker.config import Settings
from worker.core.breaker import Breaker
from worker.core.budget import prefetch_in_use
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.horizon import Horizon
from worker.core.journal import LATE_S
from worker.core.outcome import Outcomes
from worker.core.partition import assigned
from worker.core.rulesfile import rules_of
from worker.core.storm import StormGuard
from worker.core.vitals import Health
from worker.core.watch import Watch
from worker.journalports import WorkerJournal
from worker.looplag import LoopLag
from worker.observing import queue_depths
from worker.operations import Parts, WorkerOperations
from worker.pipeline import Limits, Pipeline
from worker.ports import Intake, Settler, Tracer
from worker.tracing import tracing_by
from worker.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.adapters.tracing.wrapping import Tracing  # importing it imports OpenTelemetry

DISTRIBUTION = "order-update-worker"


@dataclass(slots=True, frozen=True, kw_only=True)
class Worker:
    """What has a life of its own. ``journal_found``: the journal was there and its tables are right."""

    consuming: Link
    publishing: Link
    consumer: Partitions
    pipeline: Pipeline
    operations: WorkerOperations
    watchdog: Watchdog
    journal: AnyJournal
    horizon: Horizon
    journal_found: asyncio.Event


@dataclass(slots=True, frozen=True, kw_only=True)
class Ends:
    """What a pipeline has around it: where deliveries come from and go to, what is called, and what remembers."""

    intake: Intake
    settler: Settler
    caller: Caller
    journal: WorkerJournal
    horizon: Horizon
    tracer: Tracer | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class _Broker:
    endpoint: Endpoint
    plan: Topology
    consuming: Link
    publishing: Link
    consumer: Partitions
    publisher: Publisher
    settler: BrokerSettler


async def assemble(settings: Settings, stack: AsyncExitStack) -> Worker:
    """A worker. The stack closes it in reverse order."""
    name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
    tracing = await stack.enter_async_context(
        tracing_by(settings.tracing, queue=settings.queue, service=DISTRIBUTION, version=version(DISTRIBUTION))
    )
    broker = _broker(settings, name, stack)
    tokens = await stack.enter_async_context(_tokens(settings))
    caller = await _caller(settings, tokens, tracing, stack)
    journal = journal_at(settings.journal_url, worker=name, claim_s=settings.call_timeout_s + LATE_S)
    stack.push_async_callback(journal.close)
    ends = Ends(
        intake=broker.consumer if tracing is None else tracing.intake(broker.consumer),
        settler=broker.settler if tracing is None else tracing.settler(broker.settler),
        caller=caller,
        journal=journal,
        horizon=Horizon(days=settings.journal_retention_days),
        tracer=tracing,
    )
    pipeline = pipeline_of(settings, ends, name=name, prefetch=_prefetch(settings), storm_ratio=settings.storm_ratio)
    watchdog = _watchdog(pipeline, broker)
    journal_found = asyncio.Event()
    operations = await _operations(
        settings,
        pipeline,
        broker,
        watchdog=watchdog,
        token_age_s=lambda: tokens.age_s,
        journal_found=journal_found.is_set,
        stack=stack,
    )
    return Worker(
        consuming=broker.consuming,
        publishing=broker.publishing,
        consumer=broker.consumer,
        pipeline=pipeline,
        operations=operations,
        watchdog=watchdog,
        journal=journal,
        horizon=ends.horizon,
        journal_found=journal_found,
    )


def pipeline_of(settings: Settings, ends: Ends, *, name: str, prefetch: int, storm_ratio: float) -> Pipeline:
    """A pipeline with the rules and limits of the settings. ``name`` is one that no other worker has."""
    broker, batch = settings.broker, settings.batch
    coalescer = Coalescer(
        max_batch=batch.max_batch,
        max_bytes=batch.max_batch_bytes,
        linger_s=batch.linger_s,
        milestones=settings.event.milestone_statuses,
        name=os.urandom(4).hex(),
        partitions=broker.partitions,
    )
    return Pipeline(
        schema=EventSchema(settings.extra_fields, settings.ignore_fields, settings.max_clock_skew_s),
        coalescer=coalescer,
        outcomes=Outcomes(coalescer, max_attempts=batch.max_attempts, delays_s=broker.retry_delays_s),
        breaker=Breaker(hold_limit_s=batch.hold_limit_s),
        storm=StormGuard(ratio=storm_ratio, window=settings.storm.storm_window),
        caller=ends.caller,
        journal=ends.journal,
        settler=ends.settler,
        intake=ends.intake,
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
        horizon=ends.horizon,
        allowed=settings.event.allowed,
        tracer=ends.tracer,
    )


def _prefetch(settings: Settings) -> int:
    batch = settings.batch
    return prefetch_in_use(settings.prefetch, max_batch=batch.max_batch, per_hour=batch.calls_per_hour)


def _broker(settings: Settings, name: str, stack: AsyncExitStack) -> _Broker:
    broker, plan = settings.broker, planned(settings.broker)
    endpoint = Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s, fast_lane=broker.fast_lane)
    consuming, publishing = (Link(endpoint, name=f"order-worker {role}") for role in ("consume", "publish"))
    for link in (consuming, publishing):
        stack.push_async_callback(link.close)
    partitions = assigned(
        broker.queue, broker.partitions, worker=name, index=broker.worker_index, workers=broker.workers
    )
    consumer = Partitions(consuming, partitions, prefetch=_prefetch(settings))
    publisher = Publisher(publishing)
    stack.push_async_callback(publisher.close)
    settler = BrokerSettler(
        consumer,
        publisher,
        dead_queue=plan.dead_queue,
        retry_exchanges=plan.retry_exchanges,
        worker=version(DISTRIBUTION),
    )
    return _Broker(
        endpoint=endpoint,
        plan=plan,
        consuming=consuming,
        publishing=publishing,
        consumer=consumer,
        publisher=publisher,
        settler=settler,
    )


def _tokens(settings: Settings) -> OAuthTokenSource:
    platform = settings.require_platform()
    credentials = ClientCredentials(
        url=platform.oauth_url,
        client_id=platform.client_id,
        client_secret=platform.client_secret,
        scope=platform.oauth_scope,
    )
    return OAuthTokenSource(credentials, timeout_s=platform.call_timeout_s)


async def _caller(
    settings: Settings, tokens: OAuthTokenSource, tracing: "Tracing | None", stack: AsyncExitStack
) -> Caller:
    graphql = GraphqlPlatform(
        settings.graphql_url,
        timeout_s=settings.call_timeout_s,
        extra_fields=settings.extra_fields,
        max_connections=settings.max_in_flight + 1,  # one more for probes
        more_headers=None if tracing is None else tracing.headers,
    )
    await stack.enter_async_context(graphql)
    platform = graphql if tracing is None else tracing.platform(graphql, settings.graphql_url)
    return Caller(platform, tokens, rules_of(settings.rules, settings.event.terminal_statuses))


def _watchdog(pipeline: Pipeline, broker: _Broker) -> Watchdog:
    async def rebuild() -> None:
        await broker.publisher.close()
        await broker.publishing.close()
        await broker.consumer.rebuild()

    return Watchdog(
        Watch(),
        activity=lambda: pipeline.activity,
        intake=lambda: broker.consumer.status,
        rebuild=rebuild,
        clock=time.monotonic,
    )


async def _operations(
    settings: Settings,
    pipeline: Pipeline,
    broker: _Broker,
    *,
    watchdog: Watchdog,
    token_age_s: Callable[[], float | None],
    journal_found: Callable[[], bool],
    stack: AsyncExitStack,
) -> WorkerOperations:
    lag = await stack.enter_async_context(LoopLag())
    depths = await queue_depths(
        settings, broker.plan, broker.endpoint, stack, wanted=lambda: broker.consuming.connected
    )  # fmt: skip
    return WorkerOperations(
        pipeline,
        Parts(
            intake=lambda: broker.consumer.status,
            token_age_s=token_age_s,
            stalled=lambda: watchdog.finding,
            health=lambda: Health(
                alive=watchdog.alive,
                loop_lag_s=lag.most_s,
                connections={"consume": broker.consuming.connected, "publish": broker.publishing.connected},
            ),
            journal_found=journal_found,
            depths=depths,
            version=version(DISTRIBUTION),
            started_s=time.time(),
        ),
    )
