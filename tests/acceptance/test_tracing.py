"""Tracing of a real run: spans reach a collector, contexts go from producer to platform and to dead letters, and
without it OpenTelemetry is not even imported."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from tests.support.collector import Collector, attributes
from tests.support.workerprocess import WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker
from worker.core.times import format_time

pytestmark = pytest.mark.broker

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CARRIER = "Planted Carrier Ltd"
AUTHORIZATION = "planted-collector-key"


@asynccontextmanager
async def listening(platform: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A door in front of the platform: its address, and the ``traceparent`` of each request that went through."""
    heard: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        heard.append(request.headers.get("traceparent", ""))
        kept = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        async with session.post(platform, data=await request.read(), headers=kept) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    app = web.Application()
    app.router.add_post("/", forward)
    runner = web.AppRunner(app, access_log=None)
    async with ClientSession() as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}/", heard
        finally:
            await runner.cleanup()


async def test_a_run_is_seen_from_producer_to_platform(
    broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard variables are all it takes; the last spans leave before the worker does; no value among them."""
    async with (
        Collector() as collector,
        World(broker, tmp_path) as world,
        listening(world.settings["GRAPHQL_URL"]) as (door, heard),
    ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={AUTHORIZATION}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "orders-to-platform")
        worker = await world.start(TRACING="otlp", LOG_LEVEL="debug", GRAPHQL_URL=door)
        event = f'{{"id": 1, "status": 4, "shipping_carrier": "{CARRIER}", "occurred_at": "{format_time(10**15)}"}}'
        await world.publish_raw(event.encode(), "1", headers={"traceparent": PARENT})
        await world.publish_raw(b"no event", "2", headers={"traceparent": PARENT})
        await world.publish([stamped(3, 5)])
        dead = await world.until_dead(1)
        await world.until_applied({1: 4, 3: 5})
        assert await worker.terminate() == 0

    receives = [span for span in collector.named("receive") if span.trace_id.hex() == TRACE]
    batches = [
        span for span in collector.named("process") if attributes(span)["order_worker.batch.reason"] != "control"
    ]
    calls = [span for span in collector.named("mutation") if attributes(span)["order_worker.call.orders"]]
    sent = {f"00-{span.trace_id.hex()}-{span.span_id.hex()}" for span in calls}

    assert collector.services == {"orders-to-platform"}
    assert {span.parent_span_id.hex() for span in receives} == {"b7ad6b7169203331"}
    assert len(receives) == 2
    assert {span.span_id for span in receives} & {link.span_id for span in batches for link in span.links}
    assert sum(attributes(span)["messaging.batch.message_count"] for span in batches) == 2
    assert {span.parent_span_id for span in calls} <= {span.span_id for span in batches}
    assert sent <= {each.rpartition("-")[0] for each in heard}
    assert dead[0].headers["traceparent"] in {f"00-{TRACE}-{span.span_id.hex()}-01" for span in receives}
    assert collector.headers["authorization"] == AUTHORIZATION
    for planted in (CARRIER, world.settings["CLIENT_SECRET"]):
        assert planted.encode() not in collector.raw
    assert AUTHORIZATION not in worker.output
    assert CARRIER not in worker.output


async def test_a_collector_that_fails_costs_neither_events_nor_a_long_shutdown(
    broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 503 for ever: the exporter's retries are cut off, and the exit code is 0."""
    async with Collector(status=503) as collector, World(broker, tmp_path) as world:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        worker = await world.start(TRACING="otlp")
        await world.publish([stamped(order_id, 4) for order_id in range(1, 51)])
        await world.until_applied(dict.fromkeys(range(1, 51), 4))
        await collector.until(lambda: collector.requests)
        began = time.monotonic()

        assert await worker.terminate() == 0
        assert time.monotonic() - began < 10.0
        assert worker.counts["applied"] == 50


async def test_off_means_not_even_imported(
    broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says to other programs. Python itself tells what a whole run imported."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    async with Collector() as collector, World(broker, tmp_path) as world:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        worker = await world.start()
        await world.publish([stamped(1, 4)])
        await world.publish_raw(b"no event", "2", headers={"traceparent": PARENT})
        dead = await world.until_dead(1)
        await world.until_applied({1: 4})
        assert await worker.terminate() == 0

        assert "worker.pipeline" in worker.output
        assert "opentelemetry" not in worker.output
        assert collector.requests == 0
        assert dead[0].headers["traceparent"] == PARENT


async def test_a_missing_extra_ends_with_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text(
        "raise ModuleNotFoundError('no such module', name='opentelemetry')"
    )
    settings = {"TRACING": "otlp", "CLIENT_ID": "c", "CLIENT_SECRET": "secret-of-a-client"}
    worker = await WorkerProcess.start(settings, cwd=tmp_path)

    assert await worker.ended() == 2
    assert "ORDER_WORKER_TRACING: OpenTelemetry is not installed; install the extra `otel`" in worker.output
