"""The platform's ``updateOrders`` mutation through gql's async client; what came back becomes a ``CallReport``.

One deadline covers everything, waiting for a connection included; gql's and aiohttp's own timeouts are off. Nothing the
network or the platform does raises. What the report says for people was masked first: no token, no value of an order.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
from gql import Client
from gql.client import AsyncClientSession

from worker.adapters.graphqltransport import Answer, Mutation, Progress, StatusTransport, UpdateOrdersRequest
from worker.core.excerpt import excerpt
from worker.core.model import Scalar
from worker.core.report import CallReport, Insecure, NoAnswer, NotSent, Reply

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""A full batch answers about 20 kB; more than 4 MiB is no answer to us and would only fill the memory."""
KEEPALIVE_S: Final = 1.0
"""Idle connections are dropped after this, before the server does it: common servers wait longer (gunicorn 2 s,
Apache and Node 5 s). One that closes while we write costs an unknown outcome."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MASKED_FROM_CHARS = 3  # shorter values of an order give nothing away, and masking them would riddle every message
_ERRORS_SHOWN = 3

Orders = Sequence[Mapping[str, Scalar]]


class GraphqlPlatform:
    """``ports.Platform`` over HTTP. An async context manager; ``open`` and ``close`` may also be called twice.

    ``timeout_s`` bounds a whole call, waiting for a connection included. ``max_connections`` must be at least the
    number of calls in flight, or some spend their time waiting. ``extra_fields`` are names of further fields to
    select in the reply. ``ssl_context`` replaces the default trust (a private CA). ``more_headers`` is asked at each
    call what goes along (the context of a trace). Proxies of the environment are not used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 15.0,
        extra_fields: Iterable[str] = (),
        max_connections: int = 100,
        keepalive_s: float = KEEPALIVE_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        ssl_context: ssl.SSLContext | None = None,
        more_headers: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._more_headers = more_headers
        self.mutation = Mutation(extra_fields)
        self.timeout_s = timeout_s
        transport = StatusTransport(
            url,
            keepalive_s=keepalive_s,
            max_connections=max_connections,
            max_body_bytes=max_body_bytes,
            ssl_context=ssl_context,
        )
        self._client = Client(transport=transport, execute_timeout=None)
        self._session: AsyncClientSession | None = None

    async def open(self) -> None:
        """Make ready to send; connects to nothing yet."""
        if self._session is None:
            # Not the reconnecting session: it repeats calls blindly, and a failed one closes the session of all others.
            session = AsyncClientSession(self._client)
            await session.connect()  # type: ignore[no-untyped-call]
            self._session = session

    async def close(self) -> None:
        """Drop all connections. A call in flight then reports NoAnswer."""
        session, self._session = self._session, None
        if session is None:
            return
        task = asyncio.current_task()
        asked_before = task.cancelling() if task is not None else 0
        await session.close()  # type: ignore[no-untyped-call]
        if task is not None and task.cancelling() > asked_before:
            # The libraries below close in spite of a cancellation, and forget it.
            raise asyncio.CancelledError

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def update_orders(self, orders: Orders, *, token: str) -> CallReport:
        """See ``ports.Platform``. Raises only for our own bugs: not open, or values that JSON cannot carry."""
        if self._session is None:
            raise RuntimeError("update_orders outside open() and close()")
        request = UpdateOrdersRequest(self.mutation, orders)
        progress = Progress()
        extra_args = {"headers": self._headers(token), "trace_request_ctx": progress}
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._session.execute(request, get_execution_result=True, extra_args=extra_args)
        except TimeoutError:
            return _unanswered(f"no answer within {self.timeout_s:g} s", progress)
        except (aiohttp.ClientError, OSError) as error:
            return _failed(error, progress)
        if not isinstance(answer, Answer):
            raise TypeError("the transport returned a foreign result")
        return _reply(answer, orders, token)

    def _headers(self, token: str) -> Mapping[str, str]:
        more = {} if self._more_headers is None else self._more_headers()
        return {**more, "Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def _unanswered(cause: str, progress: Progress) -> NoAnswer | NotSent:
    return NoAnswer(cause=cause) if progress.connected else NotSent(cause=f"{cause}: no connection")


def _failed(error: aiohttp.ClientError | OSError, progress: Progress) -> CallReport:
    # Neither str() nor repr() of the error: those of ClientResponseError hold the address and the Authorization header.
    words = error.strerror if isinstance(error, OSError) else None
    cause = excerpt(f"{type(error).__name__}: {words}" if words else type(error).__name__)
    if isinstance(error, aiohttp.ClientSSLError):
        return Insecure(cause=cause)
    return NoAnswer(cause=cause) if progress.connected else NotSent(cause=cause)


def _reply(answer: Answer, orders: Orders, token: str) -> Reply:
    if answer.body is None:
        return _unreadable(answer, "body cut off or too large")
    try:
        payload = msgspec.json.decode(answer.body.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _unreadable(answer, excerpt(answer.body.decode(errors="replace"), secrets=_secrets(orders, token)))
    words = "" if _speaks_for_itself(answer.status, payload) else " | ".join(_messages(payload))
    return Reply(
        status=answer.status,
        payload=payload,
        retry_after=answer.retry_after,
        excerpt=excerpt(words, secrets=_secrets(orders, token)) if words else "",
    )


def _unreadable(answer: Answer, words: str) -> Reply:
    return Reply(status=answer.status, readable=False, retry_after=answer.retry_after, excerpt=words)


def _secrets(orders: Orders, token: str) -> Iterator[str]:
    yield token
    for order in orders:
        for value in order.values():
            if isinstance(value, str) and len(value) >= _MASKED_FROM_CHARS:
                yield value


def _speaks_for_itself(status: int, payload: Any) -> bool:
    return 200 <= status < 300 and isinstance(payload, dict) and "data" in payload and not payload.get("errors")


def _messages(payload: Any) -> Iterator[str]:
    """What an answer says in words: GraphQL's ``errors``, the platform's REST ``error``, or only its kind."""
    if not isinstance(payload, dict):
        yield f"JSON {type(payload).__name__}, not an object"
        return
    errors = payload.get("errors") or [payload.get("error") or payload]
    for error in errors[:_ERRORS_SHOWN] if isinstance(errors, list) else [errors]:
        message = error.get("message") if isinstance(error, dict) else error
        yield str(message) if isinstance(message, str | int) else "JSON object without a message"
