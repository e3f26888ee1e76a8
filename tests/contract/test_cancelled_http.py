"""The adapters that speak HTTP, cancelled at each of their awaits, against real servers on loopback.

The cancellation comes out, no task and no socket is left, and the next request works.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.cutting import Cause, Cut, at_every_await
from tests.support.httpserver import json_reply, serving
from worker.adapters.admin import AdminServer
from worker.adapters.adminclient import ask
from worker.adapters.freeports import free_port
from worker.adapters.graphql import GraphqlPlatform
from worker.adapters.management import ManagementApi
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.adapters.prometheus import PrometheusText
from worker.core.errors import TokenUnavailable
from worker.core.readiness import Readiness
from worker.core.readings import Reading
from worker.core.report import Reply
from worker.core.settings import AdminSettings
from worker.core.vitals import Health

pytestmark = pytest.mark.usefixtures("no_leaks")

APPLIED: dict[str, Any] = {"data": {"core": {"updateOrders": []}}}
GRANTED = {"token_type": "Bearer", "expires_in": 3600, "access_token": "one"}


class Quiet:
    """Implements ``ports.Operations``: nothing happens."""

    def health(self) -> Health:
        return Health(alive=True)

    def readiness(self) -> Readiness:
        return Readiness(ready=True, role="active")

    async def state(self) -> Mapping[str, object]:
        return {}

    async def pause(self, detail: str) -> None:
        del detail

    async def resume(self) -> bool:
        return False


@pytest.mark.parametrize("warm", [False, True], ids=["connecting", "kept-alive"])
async def test_a_call_to_the_platform(*, warm: bool) -> None:
    """The session goes on, with a new connection or with the one it had."""
    async with serving(json_reply(APPLIED)) as server:

        async def trial(cut: Cut) -> None:
            async with GraphqlPlatform(server.url, timeout_s=5) as platform:
                if warm:
                    await platform.update_orders([], token="t")
                await cut.run(platform.update_orders([{"id": 1}], token="t"))

                assert await platform.update_orders([], token="t") == Reply(status=200, payload=APPLIED)

        await at_every_await(Cause.ASKED, trial)


async def test_the_life_of_the_platform_adapter() -> None:
    """Opened, used, closed in one go; another one can be opened after it."""
    async with serving(json_reply(APPLIED)) as server:

        async def life() -> None:
            async with GraphqlPlatform(server.url, timeout_s=5) as platform:
                await platform.update_orders([], token="t")

        async def trial(cut: Cut) -> None:
            await cut.run(life())
            await life()

        await at_every_await(Cause.ASKED, trial)


async def test_a_wait_for_a_token() -> None:
    """The flight goes on for the others, and its token is there."""
    async with serving(json_reply(GRANTED)) as server:

        async def trial(cut: Cut) -> None:
            async with OAuthTokenSource(ClientCredentials(url=server.url, client_id="i", client_secret="s")) as source:
                await cut.run(source.token())

                assert await source.token() == "one"

        await at_every_await(Cause.ASKED, trial)


async def test_the_flight_for_a_token() -> None:
    """Ended from outside, its waiters get an error that lets them try again, and the next try is another flight."""
    async with serving(json_reply(GRANTED)) as server:

        async def trial(cut: Cut) -> None:
            async with OAuthTokenSource(ClientCredentials(url=server.url, client_id="i", client_secret="s")) as source:
                with cut.tasks("oauth-token"):
                    try:
                        assert await source.token() == "one"
                    except TokenUnavailable:
                        assert cut.reached.is_set()

                assert await source.token() == "one"

        await at_every_await(Cause.ASKED, trial, least=3)


async def test_closing_a_token_source_while_a_flight_is_under_way() -> None:
    """It can be closed again."""
    async with serving(json_reply(GRANTED)) as server:

        async def life() -> None:
            source = OAuthTokenSource(ClientCredentials(url=server.url, client_id="i", client_secret="s"))
            source._launch()
            try:
                await source.close()
            finally:
                await source.close()

        async def trial(cut: Cut) -> None:
            await cut.run(life())

        await at_every_await(Cause.ASKED, trial)


async def test_a_question_to_the_management_api() -> None:
    """The session goes on."""
    async with serving(json_reply({"name": "q"})) as server:

        async def trial(cut: Cut) -> None:
            async with ManagementApi(server.url) as api:
                await cut.run(api.get("queues"))

                assert (await api.get("queues")).payload == {"name": "q"}

        await at_every_await(Cause.ASKED, trial)


async def nothing() -> list[Reading]:
    """No figures."""
    return []


@pytest.fixture
def admin() -> AdminSettings:
    """On a port that nobody has."""
    return AdminSettings(admin_host="127.0.0.1", admin_port=free_port(), admin_token="")


async def test_the_life_of_the_admin_interface(admin: AdminSettings) -> None:
    """Its port is free again."""

    async def life() -> None:
        async with AdminServer(admin, Quiet(), PrometheusText(nothing)):
            await asyncio.sleep(0)

    async def trial(cut: Cut) -> None:
        await cut.run(life())
        await life()

    await at_every_await(Cause.ASKED, trial, least=2)


async def test_a_question_to_the_admin_interface(admin: AdminSettings) -> None:
    """Nothing stays open on either side."""
    async with AdminServer(admin, Quiet(), PrometheusText(nothing)):

        async def trial(cut: Cut) -> None:
            await cut.run(ask(admin, "pause"))

            assert (await ask(admin, "resume"))[0] == 409

        await at_every_await(Cause.ASKED, trial)
