"""Whether there is tracing at all: ``TRACING`` decides, and without it OpenTelemetry is not even imported."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from worker.core.errors import UsageError
from worker.core.settings import TracingMode

if TYPE_CHECKING:
    from worker.adapters.tracing.wrapping import Tracing

log = structlog.get_logger(__name__)


@asynccontextmanager
async def tracing_by(mode: TracingMode, *, queue: str, service: str, version: str) -> AsyncIterator["Tracing | None"]:
    """The tracer, None where it is off; the last spans leave at the end.

    Raises UsageError where OpenTelemetry is not installed, or its variables cannot be used.
    """
    if mode is TracingMode.OFF:
        yield None
        return
    try:
        from worker.adapters.tracing.wrapping import open_tracing
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("opentelemetry"):
            raise
        raise UsageError(
            "ORDER_WORKER_TRACING: OpenTelemetry is not installed; install the extra `otel` of order-update-worker, or "
            "set TRACING=off"
        ) from missing
    tracing = open_tracing(queue=queue, service=service, version=version)
    log.info("tracing.started")
    try:
        yield tracing
    finally:
        await tracing.close()
