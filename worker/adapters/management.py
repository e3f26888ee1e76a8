"""Reads RabbitMQ's management API; it never writes. Whatever goes wrong is a value, so that a doctor can tell it.

The address may hold the credentials; they are sent as basic authentication and appear in no text of this module.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from worker.core.excerpt import excerpt

MAX_BODY_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True, frozen=True, kw_only=True)
class Told:
    """An answer. ``status`` is 0 where there was none; ``payload`` is None unless it is 200 with readable JSON."""

    status: int = 0
    payload: Any = None
    cause: str = ""

    @property
    def known(self) -> bool:
        """Whether there is something to judge."""
        return self.payload is not None


class ManagementApi:
    """One session. ``url`` is that of the management plugin, without ``/api``; ``timeout_s`` bounds each request."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        given = URL(url)
        self._base = str(given.with_user(None).with_query(None).with_fragment(None)).rstrip("/")
        self._login = aiohttp.encode_basic_auth(given.user or "guest", given.password or "")
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, *path: str) -> Told:
        """GET ``/api/...``; the parts of the path are escaped here (the vhost ``/`` is one part)."""
        if self._session is None:
            raise RuntimeError("get outside of the context")
        address = URL(f"{self._base}/api/{'/'.join(quote(part, safe='') for part in path)}", encoded=True)
        headers = {"Authorization": self._login, "Accept": "application/json"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.get(address, headers=headers, allow_redirects=False) as response,
            ):
                return await _read(response)
        except TimeoutError:
            return Told(cause=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            # Not str() of the error: it may hold the address.
            words = error.strerror if isinstance(error, OSError) else None
            return Told(cause=excerpt(f"{type(error).__name__}: {words}" if words else type(error).__name__))

    async def unacked(self, vhost: str, queues: Sequence[str]) -> dict[str, int]:
        """The messages of each queue that consumers have in hand; absent where the API does not say. It is some seconds
        behind the broker."""
        told = await asyncio.gather(*(self.get("queues", vhost, queue) for queue in queues))
        counts = {queue: _unacked(each.payload) for queue, each in zip(queues, told, strict=True)}
        return {queue: count for queue, count in counts.items() if count is not None}


def _unacked(payload: Any) -> int | None:
    count = payload.get("messages_unacknowledged") if isinstance(payload, dict) else None
    return count if type(count) is int else None


async def _read(response: aiohttp.ClientResponse) -> Told:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            response.close()
            return Told(status=response.status, cause="the answer is too large")
    if response.status != 200:
        return Told(status=response.status, cause=f"HTTP {response.status}")
    try:
        return Told(status=200, payload=msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Told(status=200, cause="the answer is no JSON")
