"""The admin interface over HTTP, in front of operations that are told what to answer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from worker.adapters.admin import AdminServer, application
from worker.adapters.adminclient import ask
from worker.adapters.freeports import free_port
from worker.app import open_admin
from worker.config import Settings
from worker.core.errors import AdminFailed, UsageError
from worker.core.readiness import Readiness
from worker.core.settings import AdminSettings
from worker.core.vitals import Health

TOKEN = "t0ken-of-the-admin"
Client = TestClient[aiohttp.web.Request, aiohttp.web.Application]


class FakeOperations:
    """Implements ``ports.Operations``."""

    def __init__(self) -> None:
        self.now = Readiness(ready=True, role="active")
        self.paused: list[str] = []
        self.well = True

    def health(self) -> Health:
        return Health(alive=self.well, loop_lag_s=0.00123, connections={"consume": True, "publish": False})

    def readiness(self) -> Readiness:
        return self.now

    async def state(self) -> Mapping[str, object]:
        return {"mode": "running", "unsettled": 3}

    async def pause(self, detail: str) -> None:
        self.paused.append(detail)

    async def resume(self) -> bool:
        paused = bool(self.paused)
        self.paused.clear()
        return paused


class FakeExposition:
    """Implements ``ports.Exposition``: says what it was asked for."""

    async def expose(self, accept: str) -> tuple[bytes, str]:
        return f"# {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture
def operations() -> FakeOperations:
    """A worker that is well."""
    return FakeOperations()


@pytest.fixture
async def client(operations: FakeOperations) -> AsyncIterator[Client]:
    """Talks to an interface without a token."""
    async with TestClient(TestServer(application(operations, FakeExposition(), ""))) as made:
        yield made


@pytest.fixture
async def guarded(operations: FakeOperations) -> AsyncIterator[Client]:
    """Talks to an interface that asks for the token."""
    async with TestClient(TestServer(application(operations, FakeExposition(), TOKEN))) as made:
        yield made


def settings(port: int, token: str = "") -> AdminSettings:
    return AdminSettings(admin_host="127.0.0.1", admin_port=port, admin_token=token)


async def test_ready_is_200_with_the_role(client: Client) -> None:
    """The role tells a standby from one that gets messages."""
    answer = await client.get("/readyz")

    assert answer.status == 200
    assert await answer.json() == {"ready": True, "role": "active"}


async def test_not_ready_is_503_with_the_reason(client: Client, operations: FakeOperations) -> None:
    """An orchestrator reads the number, a person the rest."""
    operations.now = Readiness(ready=False, reason="auth", detail="the secret is refused")
    answer = await client.get("/readyz")

    assert answer.status == 503
    assert await answer.json() == {"ready": False, "reason": "auth", "detail": "the secret is refused"}


async def test_liveness_fails_only_where_a_new_process_is_needed(client: Client, operations: FakeOperations) -> None:
    """An orchestrator restarts us for that, and for nothing that a restart could not cure."""
    operations.now = Readiness(ready=False, reason="unavailable")
    away = await client.get("/healthz")
    operations.well = False
    given_up = await client.get("/healthz")

    connections = {"consume": True, "publish": False}
    assert (away.status, given_up.status) == (200, 503)
    assert await away.json() == {"alive": True, "loop_lag_s": 0.0012, "connections": connections}
    assert (await given_up.json())["alive"] is False


async def test_metrics_come_in_the_format_that_was_asked_for(client: Client) -> None:
    """With the content type of that format, its parameters included."""
    answer = await client.get("/metrics", headers={"Accept": "text/plain"})

    assert (answer.status, await answer.text()) == (200, "# text/plain\n")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/pause", "/resume"])
async def test_looking_changes_nothing(client: Client, operations: FakeOperations, path: str) -> None:
    """A GET, as a crawler or a prefetching browser sends it, is refused."""
    assert (await client.get(path)).status == 405
    assert operations.paused == []


@pytest.mark.parametrize("authorization", ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \udcff", "ü"])
async def test_a_wrong_token_is_refused(guarded: Client, operations: FakeOperations, authorization: str) -> None:
    """For everything that tells figures or changes something; whatever bytes it consists of."""
    headers = {"Authorization": authorization}

    assert (await guarded.post("/pause", headers=headers)).status == 401
    assert (await guarded.post("/resume", headers=headers)).status == 401
    assert (await guarded.get("/state", headers=headers)).status == 401
    assert operations.paused == []


async def test_the_right_token_opens_and_probes_need_none(guarded: Client, operations: FakeOperations) -> None:
    """Orchestrators have no secrets to send."""
    headers = {"Authorization": f"Bearer {TOKEN}"}

    assert (await guarded.post("/pause", headers=headers)).status == 200
    assert await (await guarded.get("/state", headers=headers)).json() == {"mode": "running", "unsettled": 3}
    assert (await guarded.get("/healthz")).status == 200
    assert (await guarded.get("/readyz")).status == 200
    assert (await guarded.get("/metrics")).status == 200
    assert operations.paused == [""]


async def test_browsers_are_refused(client: Client, operations: FakeOperations) -> None:
    """A page somewhere must not pause the worker on its reader's machine."""
    answer = await client.post("/pause", headers={"Origin": "https://example.org"})

    assert answer.status == 403
    assert operations.paused == []


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"detail": 1}', b"why", b"\xff", b"[" * 4000], ids=lambda body: repr(body[:12])
)
async def test_a_body_that_is_no_reason_is_400(client: Client, operations: FakeOperations, body: bytes) -> None:
    """Nothing is paused by something nobody understands."""
    assert (await client.post("/pause", data=body)).status == 400
    assert operations.paused == []


async def test_a_long_reason_is_cut_and_a_huge_one_refused(client: Client, operations: FakeOperations) -> None:
    """It goes into logs and answers."""
    assert (await client.post("/pause", json={"detail": "x" * 1000})).status == 200
    assert len(operations.paused[0]) <= 200
    assert (await client.post("/pause", json={"detail": "x" * 10_000})).status == 413


async def test_commands_reach_the_worker(operations: FakeOperations, unused_port: int) -> None:
    """Both ends of the interface over a real socket; a resume of nothing says what it is instead."""
    async with AdminServer(settings(unused_port, TOKEN), operations, FakeExposition()):
        asked = settings(unused_port, TOKEN)
        assert await ask(asked, "pause", {"detail": "why"}) == (200, {"paused": True})
        assert operations.paused == ["why"]
        assert await ask(asked, "resume") == (200, {"resumed": True})
        operations.now = Readiness(ready=False, reason="auth", detail="refused")
        assert await ask(asked, "resume") == (409, {"resumed": False, "reason": "auth", "detail": "refused"})
        with pytest.raises(AdminFailed, match="ADMIN_TOKEN"):
            await ask(settings(unused_port, "other"), "pause")
        with pytest.raises(AdminFailed, match="answered 404"):
            await ask(asked, "nonsense")


async def test_nobody_there_is_said(unused_port: int) -> None:
    """With what to look at."""
    with pytest.raises(AdminFailed, match="is the worker running"):
        await ask(settings(unused_port), "pause")
    with pytest.raises(UsageError, match="ADMIN_PORT"):
        await ask(settings(0), "pause")


async def test_a_port_in_use_is_a_usage_error(operations: FakeOperations, unused_port: int) -> None:
    """And what was set up for it is closed again."""
    async with AdminServer(settings(unused_port), operations, FakeExposition()):
        with pytest.raises(UsageError, match="another program listens there"):
            async with AdminServer(settings(unused_port), operations, FakeExposition()):
                raise AssertionError("must not get here")


async def test_a_default_port_in_use_does_not_stop_the_worker(
    operations: FakeOperations, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that somebody chose and cannot be had is an error; the default one is only missed."""
    monkeypatch.setattr(Settings, "admin", property(lambda _self: settings(unused_port)))
    async with AdminServer(settings(unused_port), operations, FakeExposition()), AsyncExitStack() as stack:
        await open_admin(Settings(), operations, FakeExposition(), stack)
        with pytest.raises(UsageError, match="another program listens there"):
            await open_admin(Settings(admin_port=unused_port), operations, FakeExposition(), stack)


async def test_port_0_listens_nowhere_and_closing_twice_is_harmless(operations: FakeOperations) -> None:
    """Off means off."""
    server = AdminServer(settings(0), operations, FakeExposition())
    async with server:
        await server.close()
    await server.close()


async def test_a_client_that_is_cancelled_leaves_nothing_open(no_leaks: None, unused_port: int) -> None:
    """A server that never answers, and a person who does not wait."""
    asked = asyncio.Event()
    release = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await release.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", unused_port):
        task = asyncio.create_task(ask(settings(unused_port), "pause"), name="ask")
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()


@pytest.fixture
def unused_port() -> int:
    """A port that nobody has."""
    return free_port()
