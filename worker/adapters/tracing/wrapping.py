"""Spans around what implements the ports, so that the pipeline and the adapters know nothing of them; and where the
spans go. Imported only where tracing is asked for."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from yarl import URL

from worker.adapters.tracing.context import current_headers
from worker.adapters.tracing.spans import Spans, tell_report
from worker.core.entry import Batch
from worker.core.errors import UsageError
from worker.core.model import Delivery, Scalar, Settlement
from worker.core.report import CallReport
from worker.interposing import InterposedIntake
from worker.ports import Index, Intake, Platform, Settler, Sink

FLUSH_S: Final = 3.0
"""How long the last spans may take to leave. A collector that is away must not hold a shutdown up."""
MOST_LINKS: Final = 2000
"""A batch may hold the whole prefetch; the SDK's own limit would be 128."""


class Tracing:
    """Implements ``ports.Tracer``, and makes the wrappers of the other ports. ``queue`` is the work queue's name."""

    def __init__(self, provider: TracerProvider, *, queue: str) -> None:
        self._provider = provider
        self._spans = Spans(provider, queue=queue)

    def intake(self, intake: Intake) -> Intake:
        """The same, with a span for each delivery."""
        return InterposedIntake(intake, lambda sink: _TracedSink(sink, self._spans.received))

    def settler(self, settler: Settler) -> Settler:
        """The same, with a span for each try to settle."""
        return _TracedSettler(settler, self._spans)

    def platform(self, platform: Platform, url: str) -> Platform:
        """The same, with a span for each call. ``url`` is where it goes; only host and port are told."""
        return _TracedPlatform(platform, self._spans, URL(url))

    def batch(self, batch: Batch) -> AbstractContextManager[object]:
        """See ``ports.Tracer``."""
        return self._spans.batch(batch)

    def headers(self) -> dict[str, str]:
        """What a call takes along: the context of the current span."""
        return current_headers()

    async def close(self) -> None:
        """Send what is left, for ``FLUSH_S`` at most; what does not leave in that time is lost."""
        done: Future[None] = Future()
        # A thread of its own, which the end of the process does not wait for: the exporter's retries cannot be bounded.
        threading.Thread(target=_shut_down, args=(self._provider, done), name="flush spans", daemon=True).start()
        await asyncio.wait([asyncio.wrap_future(done)], timeout=FLUSH_S)


def _shut_down(provider: TracerProvider, done: "Future[None]") -> None:
    try:
        provider.shutdown()
    finally:
        done.set_result(None)


class _TracedSink:
    def __init__(self, sink: Sink, received: Callable[[Delivery], Delivery]) -> None:
        self._sink = sink
        self._received = received

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self._sink.deliver([self._received(delivery) for delivery in deliveries])

    def lost(self, generation: int) -> None:
        self._sink.lost(generation)


class _TracedSettler:
    def __init__(self, settler: Settler, spans: Spans) -> None:
        self._settler = settler
        self._spans = spans

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        with self._spans.settling(settlements):
            await self._settler.settle(settlements, index)


class _TracedPlatform:
    def __init__(self, platform: Platform, spans: Spans, url: URL) -> None:
        self._platform = platform
        self._spans = spans
        self._url = url

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        with self._spans.calling(self._url, len(orders)) as span:
            report = await self._platform.update_orders(orders, token=token)
            tell_report(span, report)
            return report


def open_tracing(*, queue: str, service: str, version: str) -> Tracing:
    """Spans go to a collector by OTLP over HTTP, as the standard variables ``OTEL_*`` say. Raises UsageError."""
    try:
        name = str(OTELResourceDetector().detect().attributes.get("service.name", service))
        provider = TracerProvider(
            resource=Resource.create({"service.name": name, "service.version": version}),
            span_limits=SpanLimits(max_links=None if os.environ.get(OTEL_SPAN_LINK_COUNT_LIMIT) else MOST_LINKS),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise UsageError(f"a variable OTEL_* cannot be used: {error}") from error
    return Tracing(provider, queue=queue)
