"""The console put together: settings become pages, served until SIGTERM or SIGINT.

It may run beside a worker or alone, and before its broker and its journal: pages say what is away.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from worker.adapters.amqp.connection import Endpoint
from worker.adapters.amqp.topology import planned
from worker.config import Settings
from worker.console.access import Access
from worker.console.audit import AuditPages
from worker.console.desk import Auditing, Desk, Shelved
from worker.console.editing import EditPages
from worker.console.entry import EntryPages
from worker.console.letters import LetterPages
from worker.console.live import STREAMS, Streams
from worker.console.looking import Looked, LookPages
from worker.console.now import NowPages
from worker.console.orders import OrderPages
from worker.console.pages import Pages
from worker.console.people import People
from worker.console.replays import ReplayPages
from worker.console.running import Runs
from worker.console.sampling import LookingDepths, Sampler
from worker.console.shelf import Shelf
from worker.console.taking import TakingPages
from worker.console.works import Works
from worker.core.errors import UsageError
from worker.observing import queue_depths

log = structlog.get_logger(__name__)

LARGEST_REQUEST: Final = 1024 * 1024  # bytes
SHUTDOWN_S: Final = 2.0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; then end what is under way in good order.

    Raises UsageError where the settings cannot work or the address cannot be listened on.
    """
    async with AsyncExitStack() as stack:
        shelf = await stack.enter_async_context(Shelf(settings.journal_url))
        endpoint = Endpoint(urls=settings.broker.urls, heartbeat_s=settings.broker.heartbeat_s)
        depths = await queue_depths(settings, planned(settings.broker), endpoint, stack, wanted=lambda: True)
        app = await stack.enter_async_context(opened(settings, shelf, depths))
        await stack.enter_async_context(_listening(app, settings))
        await stop.wait()
        app[STREAMS].closing.set()


@asynccontextmanager
async def opened(settings: Settings, shelf: Shelved, depths: LookingDepths) -> AsyncIterator[web.Application]:
    """The console as an application, at work until the end of the block, wherever it is served."""
    auditing = Auditing(shelf)
    people = People(Path(settings.console_tokens_file)) if settings.console_tokens_file else None
    access = Access(settings.console, people, note=auditing.note)
    works = Works(ended=auditing.ended)
    desk = Desk(
        settings=settings,
        shelf=shelf,
        access=access,
        pages=Pages(access, queue=settings.dead_letter_queue),
        works=works,
        auditing=auditing,
    )
    sampler = Sampler(
        workers=settings.console_workers,
        token=settings.admin.admin_token,
        depths=depths,
        books=desk.books,
        queue=settings.queue,
        dead_queue=settings.dead_letter_queue,
    )
    sampling = asyncio.create_task(sampler.run(), name="console: look at workers")
    try:
        yield _application(desk, sampler)
    finally:
        sampling.cancel()
        await asyncio.wait([sampling])
        await works.close()


def _application(desk: Desk, sampler: Sampler) -> web.Application:
    middlewares = [desk.pages.middleware(), desk.access.middleware()]
    app = web.Application(middlewares=middlewares, client_max_size=LARGEST_REQUEST)
    app[STREAMS] = Streams()
    app.on_response_prepare.append(desk.pages.prepare)
    looked, runs = Looked(), Runs(desk)
    for pages in (
        EntryPages(desk),
        NowPages(desk, sampler),
        TakingPages(desk),
        LookPages(desk, looked),
        EditPages(desk, looked, runs),
        LetterPages(desk, looked),
        ReplayPages(desk, runs),
        OrderPages(desk),
        AuditPages(desk),
    ):
        app.add_routes(pages.routes())
    return app


@asynccontextmanager
async def _listening(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    host, port = settings.console_host, settings.console_port
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(_refusal(host, port, error)) from error
        log.info("console.listening", url=settings.console_url or f"http://{_shown(host)}:{port}")
        yield
    finally:
        await runner.cleanup()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refusal(host: str, port: int, error: OSError) -> str:
    why = "another program listens there; choose another port" if error.errno == errno.EADDRINUSE else error.strerror
    return f"ORDER_WORKER_CONSOLE_HOST, ORDER_WORKER_CONSOLE_PORT: cannot listen on {host}, port {port}: {why}"
