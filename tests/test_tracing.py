"""Whether there is tracing, by its setting; and that its end is bounded."""

import threading
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from worker.adapters.tracing import wrapping
from worker.adapters.tracing.wrapping import Tracing, open_tracing
from worker.core.errors import UsageError
from worker.core.settings import TracingMode
from worker.tracing import tracing_by


class Stuck(SpanExporter):
    """Its end takes until the test lets it go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        """Takes nothing."""
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Hangs."""
        self.let_go.wait(20.0)


async def test_off_there_is_no_tracer() -> None:
    """Whatever the environment says."""
    async with tracing_by(TracingMode.OFF, queue="q", service="s", version="1") as tracing:
        assert tracing is None


async def test_a_variable_that_cannot_be_used_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the start, not in the middle of the night."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512")

    with pytest.raises(UsageError, match="OTEL_"):
        open_tracing(queue="q", service="s", version="1")


async def test_an_exporter_that_hangs_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not leave in time is lost."""
    monkeypatch.setattr(wrapping, "FLUSH_S", 0.05)
    stuck, provider = Stuck(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(stuck))
    began = time.monotonic()
    await Tracing(provider, queue="q").close()
    took_s = time.monotonic() - began
    stuck.let_go.set()

    assert took_s < 5.0
