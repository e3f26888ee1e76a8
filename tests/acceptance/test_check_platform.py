"""``order-worker check`` and the platform: token, scope, mutation and clock, whatever the broker does."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import unique_topology
from tests.support.doctor import SECRET, check, platform
from tests.support.httpserver import json_reply, refusing_port, serving
from tests.support.tool import Tool
from worker.simulator.options import VIEW_SCOPE, Options


@pytest.fixture
def nowhere(tmp_path: Path) -> Tool:
    """The command where no broker is."""
    return Tool(tmp_path, "amqp://guest:guest@127.0.0.1:9/", unique_topology())


async def test_a_platform_that_is_down_is_a_finding(nowhere: Tool) -> None:
    """The token endpoint refuses connections, so the mutation cannot be tried."""
    async with refusing_port() as port:
        address = f"http://127.0.0.1:{port}/"
        found = await check(nowhere, OAUTH_URL=address, GRAPHQL_URL=address, CLIENT_ID="c", CLIENT_SECRET=SECRET)

    assert found.code == 1
    assert "no answer" in found.of("broken")["oauth token"]
    assert found.of("note")["graphql mutation"] == "not tried without a token"


async def test_graphql_that_is_down_is_a_finding(nowhere: Tool) -> None:
    """The token is fine."""
    async with platform() as (_, settings), refusing_port() as port:
        found = await check(nowhere, **settings | {"GRAPHQL_URL": f"http://127.0.0.1:{port}/"})

    assert "oauth token" in found.of("ok")
    assert "graphql mutation" in found.of("broken")


async def test_a_wrong_secret_is_named_and_not_printed(nowhere: Tool) -> None:
    """The advice names the settings."""
    async with platform(Options(client_secret="another")) as (_, settings):
        found = await check(nowhere, **settings)

    assert "ORDER_WORKER_CLIENT_SECRET" in found.of("broken")["oauth token"]
    assert found.code == 1


@pytest.mark.parametrize("refusal", ["http_403", "graphql"])
async def test_a_token_without_the_scope_does_not_allow_the_mutation(nowhere: Tool, refusal: Any) -> None:
    """Found out with an empty list, however the platform says it."""
    async with platform(Options(client_secret=SECRET, permission_refusal=refusal)) as (_, settings):
        found = await check(nowhere, OAUTH_SCOPE=VIEW_SCOPE, **settings)

    [mutation] = found.about("graphql mutation")
    assert mutation["level"] == "broken"
    assert "order-it.order-manager.edit" in mutation["advice"]


async def test_a_scope_that_is_not_granted_is_named(nowhere: Tool) -> None:
    """The token endpoint refuses it."""
    async with platform(Options(client_secret=SECRET, scopes=(VIEW_SCOPE,))) as (_, settings):
        found = await check(nowhere, **settings)

    assert "ORDER_WORKER_OAUTH_SCOPE" in found.of("broken")["oauth token"]


async def test_a_platform_that_refuses_empty_lists_is_a_warning(nowhere: Tool) -> None:
    """The mutation was reached, so document and token are fine."""
    async with platform(Options(client_secret=SECRET, empty_list="refuse")) as (_, settings):
        found = await check(nowhere, **settings)

    assert "refuses an empty list" in found.of("warning")["graphql mutation"]


async def test_a_field_that_the_schema_does_not_know_is_broken(nowhere: Tool) -> None:
    """As after a change of the schema."""
    async with platform() as (_, settings):
        found = await check(nowhere, EXTRA_FIELDS="no_such_field", **settings)

    [mutation] = found.about("graphql mutation")
    assert (mutation["level"], "EXTRA_FIELDS" in mutation["advice"]) == ("broken", True)


@pytest.mark.parametrize(("off_s", "level"), [(90.0, "warning"), (4000.0, "broken"), (-4000.0, "warning"), (0.0, "ok")])
async def test_a_wrong_clock_is_told(nowhere: Tool, off_s: float, level: str) -> None:
    """By the Date of the token endpoint: ``off_s`` is how far its clock is ahead of ours."""
    granted = {"token_type": "Bearer", "expires_in": 3600, "access_token": "t0ken-of-the-test", "scope": "x"}
    headers: Mapping[str, str] = {"Date": formatdate(time.time() + off_s, usegmt=True)}
    async with serving(json_reply(granted, headers=headers)) as server:
        settings = {"OAUTH_URL": server.url, "GRAPHQL_URL": server.url, "CLIENT_ID": "c", "CLIENT_SECRET": SECRET}
        found = await check(nowhere, **settings)

    [clock] = found.about("clock")
    assert clock["level"] == level
    assert "t0ken-of-the-test" not in found.output
    assert "order-it.order-manager.edit" in found.of("broken")["oauth token"]


async def test_settings_that_are_wrong_are_exit_code_2(nowhere: Tool) -> None:
    """Before anything is connected; so are missing credentials."""
    wrong = await check(nowhere, PREFETCH="0")
    missing = await check(nowhere, CLIENT_ID="c", CLIENT_SECRET="")

    assert (wrong.code, wrong.findings) == (2, [])
    assert (missing.code, missing.findings) == (2, [])
    assert "ORDER_WORKER_CLIENT_SECRET: is not set" in missing.output
