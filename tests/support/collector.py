"""A collector of spans: takes OTLP over HTTP, as the real ones do, and keeps what it was sent."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

DEADLINE_S = 20.0


class Collector:
    """``status`` is what it answers with. ``raw`` is everything it got, ``headers`` those of the last request."""

    def __init__(self, *, status: int = 200) -> None:
        self.status = status
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.raw = b""
        self.headers: Mapping[str, str] = {}
        self.requests = 0
        self.url = ""
        self._arrived = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.headers, body = request.headers, await request.read()
        self.raw += body
        if self.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                self.services.add(named["service.name"])
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self._arrived.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=answer, content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        """The spans whose name begins with this."""
        return [span for span in self.spans if span.name.startswith(name)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for requests until it holds; TimeoutError if it does not in time."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()


def attributes(span: Span) -> Mapping[str, Any]:
    """What it says: texts and numbers."""
    return {
        each.key: each.value.string_value if each.value.HasField("string_value") else each.value.int_value
        for each in span.attributes
    }
