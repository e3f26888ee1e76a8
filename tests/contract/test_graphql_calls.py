"""Many calls through one GraphQL adapter: parallel, cancelled, kept alive, opened and closed, and what a call costs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gql.graphql_request
import graphql
import pytest
from aiohttp import web

from tests.support.httpserver import HttpServer, gated, json_reply, serving, silent
from worker.adapters import graphqltransport
from worker.adapters.graphql import GraphqlPlatform
from worker.core.report import NoAnswer, Reply

APPLIED: dict[str, Any] = {"data": {"core": {"updateOrders": []}}}


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with serving(json_reply(APPLIED)) as running:
        yield running


async def idle(seconds: float) -> None:
    """Let a connection be idle for that long: how long it lives is what the test is about."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        return


async def echo(request: web.Request) -> web.StreamResponse:
    """Answer with the token and the order that came, as status and header too, so that a mix-up of calls shows."""
    token = request.headers["Authorization"].removeprefix("Bearer ")
    body = await request.json()
    status = 200 + int(token) % 4
    return web.json_response({"data": body["variables"], "token": token}, status=status, headers={"Retry-After": token})


async def test_parallel_calls_get_their_own_answers() -> None:
    """100 calls at once on one session: status, header and body of each belong together."""
    async with serving(echo) as server, GraphqlPlatform(server.url, timeout_s=10) as platform:
        calls = [platform.update_orders([{"id": n}], token=str(n)) for n in range(100)]
        reports = await asyncio.gather(*calls)

    expected = [
        Reply(
            status=200 + n % 4,
            payload={"data": {"orders": [{"id": n}]}, "token": str(n)},
            retry_after=str(n),
        )
        for n in range(100)
    ]
    assert reports == expected


async def test_calls_really_run_in_parallel(server: HttpServer) -> None:
    """None of 100 calls waits for another: all arrive before the first is answered."""
    gate = asyncio.Event()
    server.default = gated(gate, json_reply(APPLIED))
    async with GraphqlPlatform(server.url, timeout_s=10, max_connections=100) as platform:
        calls = [asyncio.create_task(platform.update_orders([], token="t")) for _ in range(100)]
        await server.arrived(100)
        gate.set()

        assert set(map(str, await asyncio.gather(*calls))) == {str(Reply(status=200, payload=APPLIED))}


async def test_connections_are_kept_between_calls(server: HttpServer) -> None:
    """Calls in quick succession share one connection."""
    async with GraphqlPlatform(server.url) as platform:
        for _ in range(10):
            await platform.update_orders([], token="t")

    assert len({seen.peer for seen in server.seen}) == 1


async def test_idle_connections_are_dropped_before_the_server_does() -> None:
    """60 calls to a server that closes after 0.3 s, each just about then: none is lost to the keep-alive race."""
    async with serving(json_reply(APPLIED), keepalive_s=0.3) as server:

        async def lane(number: int) -> list[object]:
            reports: list[object] = []
            async with GraphqlPlatform(server.url, timeout_s=5, keepalive_s=0.15) as platform:
                for step in range(6):
                    reports.append(await platform.update_orders([], token="t"))
                    await idle(0.29 + 0.002 * number + 0.001 * step)
            return reports

        reports = [report for lane_of in await asyncio.gather(*map(lane, range(10))) for report in lane_of]

    assert reports == [Reply(status=200, payload=APPLIED)] * 60


async def test_cancelled_call_leaves_the_session_usable(server: HttpServer) -> None:
    """Cancelling goes through at once, drops that connection, and the next call works."""
    server.script(silent)
    async with GraphqlPlatform(server.url, timeout_s=10) as platform:
        call = asyncio.create_task(platform.update_orders([], token="t"))
        await server.arrived()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert await platform.update_orders([], token="t") == Reply(status=200, payload=APPLIED)
    assert len({seen.peer for seen in server.seen}) == 2


async def test_cancelled_call_does_not_disturb_the_others(server: HttpServer) -> None:
    """The others on the same session get their answers."""
    gate = asyncio.Event()
    server.default = gated(gate, json_reply(APPLIED))
    async with GraphqlPlatform(server.url, timeout_s=10) as platform:
        calls = [asyncio.create_task(platform.update_orders([], token="t")) for _ in range(5)]
        await server.arrived(5)
        calls.pop().cancel()
        gate.set()

        assert await asyncio.gather(*calls) == [Reply(status=200, payload=APPLIED)] * 4


async def test_outer_deadline_is_not_mistaken_for_ours(server: HttpServer) -> None:
    """A caller's own timeout raises in the caller; it is not turned into a report."""
    server.script(silent)
    async with GraphqlPlatform(server.url, timeout_s=30) as platform:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await platform.update_orders([], token="t")


async def test_open_and_close_may_be_called_twice(server: HttpServer) -> None:
    """Close before open, open twice, close twice, and open again are harmless."""
    platform = GraphqlPlatform(server.url)
    await platform.close()
    for _ in range(2):
        await platform.open()
        await platform.open()
        assert await platform.update_orders([], token="t") == Reply(status=200, payload=APPLIED)
        await platform.close()
        await platform.close()


async def test_call_outside_open_and_close_raises(server: HttpServer) -> None:
    """That is a bug of ours and must not look like an outage."""
    platform = GraphqlPlatform(server.url)

    with pytest.raises(RuntimeError):
        await platform.update_orders([], token="t")


async def test_close_ends_calls_in_flight(server: HttpServer) -> None:
    """A call that is still out when everything is closed reports that its outcome is unknown."""
    server.script(silent)
    platform = GraphqlPlatform(server.url, timeout_s=10)
    await platform.open()
    call = asyncio.create_task(platform.update_orders([], token="t"))
    await server.arrived()
    await platform.close()

    assert isinstance(await call, NoAnswer)


async def test_document_is_parsed_and_printed_once(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At construction, and never again: gql's own request prints it for every call."""
    work: list[str] = []

    def parse(text: str, **options: bool) -> graphql.DocumentNode:
        work.append("parse")
        return graphql.parse(text, **options)

    def print_ast(document: graphql.DocumentNode) -> str:
        work.append("print")
        return graphql.print_ast(document)

    for module in (graphqltransport, gql.graphql_request):
        monkeypatch.setattr(module, "parse", parse)
        monkeypatch.setattr(module, "print_ast", print_ast)
    async with GraphqlPlatform(server.url) as platform:
        for _ in range(3):
            await platform.update_orders([{"id": 1}], token="t")

    assert work == ["parse", "print"]
