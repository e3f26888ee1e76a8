"""The admin interface: HTTP for probes of an orchestrator and for people.

    GET  /healthz   200 {"alive": true, ...} with event loop lag and connections, or 503: only a new process will do
    GET  /readyz    200 {"ready": true, ...}, or 503 {"ready": false, "reason": ...}
    GET  /metrics   for Prometheus
    GET  /state     everything worth a look                                        (token)
    POST /pause     hand everything back, consume nothing; {"detail": "why"} may come along  (token)
    POST /resume    end a pause by hand or after a storm; 409 if there was none     (token)

With a token set, the lines marked so need ``Authorization: Bearer <token>``; beyond loopback there has to be one
(``core/conflicts.py``). Probes and metrics never do: those who ask have no secrets to send, and the answers hold none.
"""

import asyncio
import errno
import hmac
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from worker.core.errors import UsageError
from worker.core.excerpt import excerpt
from worker.core.settings import AdminSettings
from worker.ports import Exposition, Operations

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_TO_ALL = frozenset({"/healthz", "/readyz", "/metrics"})
LARGEST_REQUEST = 4096  # bytes
LONGEST_DETAIL = 200  # characters
SHUTDOWN_S = 1.0


class AdminServer:
    """Listens from ``async with`` on. Port 0 means that there is no admin interface.

    Raises UsageError where the address cannot be listened on.
    """

    def __init__(self, settings: AdminSettings, operations: Operations, exposition: Exposition) -> None:
        self._settings = settings
        self._application = application(operations, exposition, settings.admin_token)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        if self._settings.admin_port:
            await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and end open connections. Twice is harmless."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _listen(self) -> None:
        host, port = self._settings.admin_host, self._settings.admin_port
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=SHUTDOWN_S)
        # In a task of its own: asyncio forgets a listening socket when it is cancelled right behind its opening.
        starting = asyncio.create_task(self._start(self._runner), name="open the admin interface")
        try:
            await asyncio.shield(starting)
        except OSError as error:
            await self.close()
            raise UsageError(_refusal(host, port, error)) from error
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            await self.close()
            raise
        log.info("admin.listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def _start(self, runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, self._settings.admin_host, self._settings.admin_port).start()


def application(operations: Operations, exposition: Exposition, token: str) -> web.Application:
    """The interface as an application, wherever it is served. An empty token asks for none."""
    app = web.Application(middlewares=[_guard(token)], client_max_size=LARGEST_REQUEST)
    routes = _Routes(operations, exposition)
    app.add_routes(
        [
            web.get("/healthz", routes.healthz),
            web.get("/readyz", routes.readyz),
            web.get("/metrics", routes.metrics),
            web.get("/state", routes.state),
            web.post("/pause", routes.pause),
            web.post("/resume", routes.resume),
        ]
    )
    return app


class _Routes:
    def __init__(self, operations: Operations, exposition: Exposition) -> None:
        self._operations = operations
        self._exposition = exposition

    async def healthz(self, _request: web.Request) -> web.Response:
        now = self._operations.health()
        told = {"alive": now.alive, "loop_lag_s": round(now.loop_lag_s, 4), "connections": dict(now.connections)}
        return web.json_response(told, status=200 if now.alive else 503)

    async def readyz(self, _request: web.Request) -> web.Response:
        now = self._operations.readiness()
        told = {"ready": now.ready, "reason": now.reason, "detail": now.detail or None, "role": now.role}
        return web.json_response(
            {name: value for name, value in told.items() if value is not None}, status=200 if now.ready else 503
        )

    async def metrics(self, request: web.Request) -> web.Response:
        text, content_type = await self._exposition.expose(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(await self._operations.state()))

    async def pause(self, request: web.Request) -> web.Response:
        await self._operations.pause(await _detail(request))
        return web.json_response({"paused": True})

    async def resume(self, _request: web.Request) -> web.Response:
        if await self._operations.resume():
            return web.json_response({"resumed": True})
        now = self._operations.readiness()
        return web.json_response({"resumed": False, "reason": now.reason, "detail": now.detail}, status=409)


async def _detail(request: web.Request) -> str:
    """The reason that came along, if any. 400 where the body is something else."""
    raw = await request.read()
    if not raw:
        return ""
    try:
        body: Any = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    detail = body.get("detail", "") if isinstance(body, dict) else None
    if not isinstance(detail, str):
        raise web.HTTPBadRequest(text='send nothing, or {"detail": "why"}')
    return excerpt(detail, limit=LONGEST_DETAIL)


def _guard(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_TO_ALL:
            return await handler(request)
        # Only browsers send it: a web page somewhere must not pause a worker that listens on its reader's machine.
        if "Origin" in request.headers:
            raise web.HTTPForbidden(text="not for browsers")
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if token and not hmac.compare_digest(given, expected):
            raise web.HTTPUnauthorized(text="needs the bearer token", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return guard


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "another program listens there; choose another port, or 0 for no admin interface"
    else:
        why = error.strerror or type(error).__name__
    return f"ORDER_WORKER_ADMIN_HOST, ORDER_WORKER_ADMIN_PORT: cannot listen on {host}, port {port}: {why}"
