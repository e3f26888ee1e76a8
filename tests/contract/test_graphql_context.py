"""What goes along with each call to the platform, asked for at the call itself: the context of a trace."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.httpserver import HttpServer, json_reply, serving
from worker.adapters.graphql import GraphqlPlatform

APPLIED: dict[str, Any] = {"data": {"core": {"updateOrders": []}}}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """Answers every call."""
    async with serving(json_reply(APPLIED)) as running:
        yield running

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_each_call_takes_its_own_context_along_and_keeps_its_token(server: HttpServer) -> None:
    """What is asked for may not replace the credentials."""
    given = iter([{"traceparent": "one"}, {"traceparent": "two", "Authorization": "Bearer wrong"}, {}])
    async with GraphqlPlatform(server.url, more_headers=lambda: next(given)) as platform:
        for _ in range(3):
            await platform.update_orders([], token="good")

    assert [seen.headers.get("traceparent") for seen in server.seen] == ["one", "two", None]
    assert [seen.headers["Authorization"] for seen in server.seen] == ["Bearer good"] * 3


async def test_without_it_a_call_has_no_context(server: HttpServer) -> None:
    """The everyday case."""
    async with GraphqlPlatform(server.url) as platform:
        await platform.update_orders([], token="good")

    assert "traceparent" not in server.seen[0].headers
