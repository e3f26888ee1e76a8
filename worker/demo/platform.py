"""The demo's own line to the stand-in platform: steer it, look at it, and send it the documented example."""

from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp
import msgspec

from worker.adapters.graphql import GraphqlPlatform
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.core.report import Reply
from worker.demo.load import SEED_FIELDS, SEED_ORDER
from worker.demo.processes import DemoFailed
from worker.simulator.options import EDIT_SCOPE, Options

DEADLINE_S: Final = 10.0
CLIENT: Final = Options()
"""Who the stand-in lets in, unless told otherwise."""

DOCUMENTED_REPLY: Final = {
    "data": {
        "core": {
            "updateOrders": [
                {
                    "id": 46140199,
                    "shipping_carrier": "Royal Mail",
                    "shipping_method": "Tracked 24",
                    "status": 4,
                    "status_name": "In Production",
                }
            ]
        }
    }
}
"""What the platform's documentation shows."""


class Look(NamedTuple):
    """The platform at one moment. ``outage_s``: how long its outage will still last, None while there is none."""

    changes: int = 0
    calls: int = 0
    failed: int = 0
    outage_s: float | None = None


class StandIn:
    """An async context manager. Everything raises DemoFailed where the stand-in does not answer as it should."""

    def __init__(self, *, oauth_url: str, graphql_url: str, sim_url: str) -> None:
        self.oauth_url, self.graphql_url, self.sim_url = oauth_url, graphql_url, sim_url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def set_options(self, **options: Any) -> None:
        """Change some of its options."""
        await self._ask("PATCH", "options", options)

    async def fail_for(self, seconds: float) -> None:
        """Answer every GraphQL call with 503 for so long."""
        await self._ask("POST", "faults", {"kind": "status", "status": 503, "for_s": seconds})

    async def look(self) -> Look:
        """Its counters."""
        state = msgspec.json.decode(await self._ask("GET", "state"))
        ends = [fault["left_s"] for fault in state["faults"]["standing"] if fault["left_s"] is not None]
        calls, good = state["calls"], state["calls"]["by_status"].get("200", 0)
        return Look(
            changes=state["changes"],
            calls=calls["started"],
            failed=calls["answered"] - good + calls["unanswered"],
            outage_s=max(ends, default=None),
        )

    async def orders(self) -> dict[int, dict[str, Any]]:
        """Every order that was ever written, by id."""
        lines = (await self._ask("GET", "orders")).splitlines()
        return {order["id"]: order for order in map(msgspec.json.decode, lines)}

    async def documented_call(self) -> Any:
        """Send the documented example through the worker's own adapters, and return the reply."""
        credentials = ClientCredentials(
            url=self.oauth_url, client_id=CLIENT.client_id, client_secret=CLIENT.client_secret, scope=EDIT_SCOPE
        )
        async with OAuthTokenSource(credentials) as tokens, GraphqlPlatform(self.graphql_url) as platform:
            report = await platform.update_orders([{"id": SEED_ORDER, **SEED_FIELDS}], token=await tokens.token())
        if not isinstance(report, Reply):
            raise DemoFailed(f"the stand-in platform gave no reply to the documented call: {report}")
        return report.payload

    async def _ask(self, method: str, path: str, content: Any = None) -> bytes:
        if self._session is None:
            raise RuntimeError("outside the context")
        try:
            async with self._session.request(method, f"{self.sim_url}{path}", json=content) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoFailed(f"the stand-in platform does not answer: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise DemoFailed(f"the stand-in platform refuses {method} {path}: {body.decode(errors='replace')[:300]}")
        return body
