"""gql's aiohttp transport with its blind spots removed: one ``Answer`` per call, whatever came back.

The stock transport answers with data, errors or an exception; what the verdict needs is everything that came back:

* It drops the HTTP status when the body is GraphQL JSON, keeps the headers on the transport (parallel calls overwrite
  each other's), puts whole bodies into exceptions and logs payloads at debug level. None of that is left here.
* It prints the document anew for every call, a large part of what a call costs. ``Mutation`` parses and prints it once,
  and a request carries the bytes of its body: they are made in one go, before the deadline of the call begins to run.
* ``Progress`` tells whether a connection was ever handed to the request. Until then nothing was written, so a failure
  before that certainly sent nothing. aiohttp never repeats a POST by itself.
"""

import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import msgspec
from gql import GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportClosed
from graphql import DocumentNode, ExecutionResult, parse, print_ast

from worker.core.model import Scalar

REPLY_FIELDS: Final = ("id", "shipping_carrier", "shipping_method", "status", "status_name")

_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")
# Off, because the deadline of the platform covers everything, and two clocks would give two kinds of timeout.
_NO_AIOHTTP_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


@dataclass(slots=True)
class Progress:
    """How far one request got. ``connected``: a connection was handed to it, so bytes may have left."""

    connected: bool = False


class Mutation:
    """The document, parsed and printed once. ``extra_fields`` are selected behind the documented ones."""

    def __init__(self, extra_fields: Iterable[str] = ()) -> None:
        names = tuple(dict.fromkeys((*REPLY_FIELDS, *extra_fields)))
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"not a GraphQL field name: {name!r}")
        text = f"mutation($orders: [OrderInput]) {{ core {{ updateOrders(orders: $orders) {{ {' '.join(names)} }} }} }}"
        self.document: DocumentNode = parse(text, no_location=True)
        self._head = b'{"query":' + msgspec.json.encode(print_ast(self.document)) + b',"variables":{"orders":'

    def body(self, orders: Sequence[Mapping[str, Scalar]]) -> bytes:
        """What is sent. An empty list stays in the variables: it is the control call.

        Raises TypeError or ValueError for values that JSON cannot carry.
        """
        body = b"".join((self._head, msgspec.json.encode(orders), b"}}"))
        if b"null" in body:
            _refuse_non_finite(orders)
        return body


def _refuse_non_finite(orders: Sequence[Mapping[str, Scalar]]) -> None:
    # msgspec writes NaN and infinity as null, and null is a value that the platform would store.
    for order in orders:
        for name, value in order.items():
            if type(value) is float and not isfinite(value):
                raise ValueError(f"field {name!r} is not a finite number")


class UpdateOrdersRequest(GraphQLRequest):
    """A request that carries its body. ``variable_values`` stay out of it: nobody serialises them a second time."""

    def __init__(self, mutation: Mutation, orders: Sequence[Mapping[str, Scalar]]) -> None:
        super().__init__(mutation.document)
        self.body = mutation.body(orders)

    def __str__(self) -> str:
        return "UpdateOrdersRequest"  # gql's own prints the payload


class Answer(ExecutionResult):
    """What our transport hands through gql's session. ``data`` is never None: the session asserts on that."""

    def __init__(self, status: int, retry_after: str | None, body: bytes | None) -> None:
        super().__init__(data={})
        self.status = status
        self.retry_after = retry_after
        self.body = body  # None: too large, or cut off


class StatusTransport(AIOHTTPTransport):
    """gql's aiohttp transport, returning status, Retry-After and body of each call; raises aiohttp's own errors."""

    def __init__(
        self,
        url: str,
        *,
        keepalive_s: float,
        max_connections: int,
        max_body_bytes: int,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(url, ssl=ssl_context or True, ssl_close_timeout=1.0)
        self._keepalive_s = keepalive_s
        self._max_connections = max_connections
        self._max_body_bytes = max_body_bytes

    async def connect(self) -> None:
        """Open the session. Here and not in the constructor, because a connector belongs to the running loop."""
        self.client_session_args = {
            "connector": aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keepalive_s),
            "cookie_jar": aiohttp.DummyCookieJar(),
            "timeout": _NO_AIOHTTP_TIMEOUT,
            "trace_configs": [_connection_trace()],
            "headers": {"Accept": "application/json", "User-Agent": "order-update-worker"},
        }
        await super().connect()

    async def execute(
        self,
        request: GraphQLRequest,
        *,
        extra_args: dict[str, Any] | None = None,
        upload_files: bool = False,
    ) -> ExecutionResult:
        """POST the request once; redirects are answers (a redirected POST would become a GET without body).

        ``extra_args`` go to aiohttp as they are; the headers among them say what the body is.
        """
        if self.session is None:
            raise TransportClosed("Transport is not connected")
        if upload_files or not isinstance(request, UpdateOrdersRequest):
            raise TypeError("only single requests that carry their body are sent")
        # Not through gql's _prepare_request: it logs the payload at debug level.
        async with self.session.post(
            self.url, ssl=self.ssl, allow_redirects=False, data=request.body, **(extra_args or {})
        ) as response:
            return await self._prepare_result(response)

    async def _prepare_result(self, response: aiohttp.ClientResponse) -> Answer:
        retry_after = response.headers.get("Retry-After")
        try:
            body = await self._read(response)
        except (aiohttp.ClientError, OSError):
            if 200 <= response.status < 300:
                raise
            body = None  # the status alone says what to do, and a 429 cut short is still a 429
        return Answer(response.status, retry_after, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body_bytes:
                response.close()  # the rest is not wanted, so the connection cannot be used again
                return None
        return b"".join(chunks)


def _connection_trace() -> aiohttp.TraceConfig:
    """Mark a request once it has a connection. aiohttp signals that before it writes (see its connector.py)."""

    async def connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        if isinstance(context.trace_request_ctx, Progress):
            context.trace_request_ctx.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace
