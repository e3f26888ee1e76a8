"""A running stand-in platform and a plain HTTP client for it, for the tests of this directory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from worker.simulator.options import EDIT_SCOPE, VIEW_SCOPE, Options
from worker.simulator.server import Address, Simulator

DOCUMENTED_MUTATION = """mutation($orders: [OrderInput]) {
core {
updateOrders(orders: $orders) {
id
shipping_carrier
shipping_method
status
status_name
}
}
}"""
START_S = 1000.0


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True, frozen=True)
class Answer:
    """What came back of one call."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def payload(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.text)

    @property
    def entries(self) -> Any:
        """The list under ``data.core.updateOrders``."""
        return self.payload["data"]["core"]["updateOrders"]

    @property
    def errors(self) -> list[tuple[str, Any]]:
        """Message and path of each GraphQL error."""
        return [(error["message"], error.get("path")) for error in self.payload.get("errors", [])]


@dataclass(slots=True)
class Client:
    """Calls the stand-in the way a worker does, and steers it the way a test program does."""

    simulator: Simulator
    address: Address
    session: aiohttp.ClientSession
    token: str = ""

    def form(self, **changes: str) -> dict[str, str]:
        """The four documented keys of a token request."""
        options = self.simulator.options
        good = {
            "client_id": options.client_id,
            "client_secret": options.client_secret,
            "grant_type": "client_credentials",
            "scope": f"{EDIT_SCOPE} {VIEW_SCOPE}",
        }
        return good | changes

    async def ask_token(self, **changes: str) -> Answer:
        """POST /token with some keys changed."""
        return await self._send("POST", self.address.oauth_url, data=self.form(**changes))

    async def log_in(self, scope: str = f"{EDIT_SCOPE} {VIEW_SCOPE}") -> None:
        """Use a new token from now on."""
        self.token = (await self.ask_token(scope=scope)).payload["access_token"]

    async def graphql(self, query: str, variables: Mapping[str, Any] | None = None, **more: Any) -> Answer:
        """POST any document."""
        body = {"query": query, "variables": variables, **more}
        return await self._send("POST", self.address.graphql_url, json=body, headers=self._headers())

    async def update(self, *orders: Mapping[str, Any]) -> Answer:
        """The documented mutation with these orders."""
        return await self.graphql(DOCUMENTED_MUTATION, {"orders": list(orders)})

    async def sim(self, method: str, path: str, payload: Any = None) -> Answer:
        """Talk to the control interface."""
        return await self._send(method, self.address.sim_url + path, json=payload)

    async def raw(self, method: str, url: str, **arguments: Any) -> Answer:
        """Any request at all."""
        return await self._send(method, url, **arguments)

    def set_options(self, **changes: Any) -> None:
        """Change options in-process."""
        self.simulator.options = msgspec.structs.replace(self.simulator.options, **changes)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def _send(self, method: str, url: str, **arguments: Any) -> Answer:
        async with self.session.request(method, url, **arguments) as response:
            return Answer(response.status, await response.text(), response.headers.copy())


async def until(condition: Callable[[], object]) -> None:
    """Give the stand-in turns of the loop until it got so far."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  its inner steps have no events of their own
            await asyncio.sleep(0)


@asynccontextmanager
async def running(clock: Clock | None = None, **options: Any) -> AsyncIterator[Client]:
    """A stand-in with these options, and a client that is logged in."""
    simulator = Simulator(Options(**options), clock=clock) if clock else Simulator(Options(**options))
    # One connection per call: a kept one that a fault has just reset would make the next call fail for no reason.
    connector = aiohttp.TCPConnector(force_close=True)
    async with simulator.serve() as address, aiohttp.ClientSession(connector=connector) as session:
        client = Client(simulator, address, session)
        await client.log_in()
        yield client


def orders(count: int, first: int = 46140199, **fields: Any) -> Sequence[dict[str, Any]]:
    """Inputs for ``count`` orders with the same fields."""
    return [{"id": first + index, **(fields or {"status": 4})} for index in range(count)]
