"""The yardstick: one call per message, written with the same libraries the way their documentation shows it.

    python -m tests.benchmarks.baseline AMQP_URL QUEUE OAUTH_URL GRAPHQL_URL EVENTS

A robust connection, ``queue.consume``, gql's client on its aiohttp transport, 100 calls in flight, each message
acknowledged after its own call. It prints a line when it consumes, takes so many events, and prints how long that
took, from the first delivery to the last acknowledgement. It merges nothing, orders nothing and judges nothing: what it
leaves out makes it faster.
"""

import asyncio
import json
import sys
import time
from typing import Any

import aio_pika
import aiohttp
from aio_pika.abc import AbstractIncomingMessage
from gql import Client, GraphQLRequest, gql
from gql.client import AsyncClientSession
from gql.transport.aiohttp import AIOHTTPTransport

from worker.simulator.options import EDIT_SCOPE, Options

IN_FLIGHT = 100
MUTATION = gql(
    "mutation($orders: [OrderInput]) { core { updateOrders(orders: $orders) "
    "{ id shipping_carrier shipping_method status status_name } } }"
)
SENT = ("id", "status", "shipping_carrier", "shipping_method")


class Baseline:
    """Counts what it did and when."""

    def __init__(self, session: AsyncClientSession, events: int) -> None:
        self.done = asyncio.Event()
        self.started = 0.0
        self.ended = 0.0
        self._session = session
        self._left = events

    async def on_message(self, message: AbstractIncomingMessage) -> None:
        """One message, one call, one acknowledgement."""
        self.started = self.started or time.monotonic()
        event = json.loads(message.body)
        order = {name: event[name] for name in SENT if name in event}
        await self._session.execute(GraphQLRequest(MUTATION, variable_values={"orders": [order]}))
        await message.ack()
        self._left -= 1
        if not self._left:
            self.ended = time.monotonic()
            self.done.set()


async def token(oauth_url: str) -> str:
    """A bearer token by client credentials."""
    options = Options()
    form = {
        "grant_type": "client_credentials",
        "client_id": options.client_id,
        "client_secret": options.client_secret,
        "scope": EDIT_SCOPE,
    }
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(oauth_url, data=form) as response,
    ):
        answer: dict[str, Any] = await response.json()
    return str(answer["access_token"])


async def run(amqp_url: str, queue_name: str, oauth_url: str, graphql_url: str, events: int) -> float:
    """Take so many events; the seconds it took."""
    headers = {"Authorization": f"Bearer {await token(oauth_url)}"}
    client = Client(transport=AIOHTTPTransport(graphql_url, headers=headers))
    async with client as session, await aio_pika.connect_robust(amqp_url) as connection:
        work = Baseline(session, events)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=IN_FLIGHT)
        queue = await channel.get_queue(queue_name)
        await queue.consume(work.on_message)
        print(json.dumps({"consuming": queue_name}), flush=True)  # noqa: T201 - what the benchmark reads
        await work.done.wait()
    return work.ended - work.started


if __name__ == "__main__":
    *addresses, count = sys.argv[1:]
    took_s = asyncio.run(run(addresses[0], addresses[1], addresses[2], addresses[3], int(count)))
    print(json.dumps({"took_s": took_s}))  # noqa: T201 - what the benchmark reads
