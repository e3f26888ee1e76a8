"""The other end of the admin interface: asks a running worker to pause or to resume, and looks at it."""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from worker.core.errors import AdminFailed, UsageError
from worker.core.excerpt import excerpt
from worker.core.settings import AdminSettings

TIMEOUT_S = 30.0
"""A pause closes a channel, and a broker that hangs is given up after a while."""
LOOK_TIMEOUT_S = 3.0
"""A worker tells its state within a second."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


async def ask(
    settings: AdminSettings, command: str, body: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """POST ``/command`` and return status (200 or 409) and answer.

    Raises UsageError where the settings name no admin interface, AdminFailed where nothing useful answers.
    """
    if not settings.admin_port:
        raise UsageError("ORDER_WORKER_ADMIN_PORT: is 0, so there is no admin interface to ask")
    return await ask_at(_base(settings), settings.admin_token, command, body)


async def ask_at(
    base: str, token: str, command: str, body: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """The same at any address. Raises AdminFailed where nothing useful answers."""
    url = f"{base}/{command}"
    status, text = await _sent("POST", url, token, timeout_s=TIMEOUT_S, json=dict(body or {}))
    return status, _understood(url, status, text)


async def look_at(base: str, token: str) -> dict[str, Any]:
    """``GET /state``. Raises AdminFailed."""
    url = f"{base}/state"
    status, text = await _sent("GET", url, token, timeout_s=LOOK_TIMEOUT_S)
    return _understood(url, status, text)


async def figures_at(base: str) -> str:
    """``GET /metrics`` as text. Raises AdminFailed."""
    url = f"{base}/metrics"
    status, text = await _sent("GET", url, "", timeout_s=LOOK_TIMEOUT_S)
    if status != 200:
        raise AdminFailed(f"{url}: answered {status}")
    return text


async def each_behind(base: str) -> list[str]:
    """The admin interfaces behind an address: several where its name has several addresses, such as a headless Service
    of Kubernetes, otherwise the address as it is. So is one with https, because certificates are about names."""
    url = URL(base)
    if url.scheme != "http" or url.host is None:
        return [base]
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # a deadline is an OSError, too
        return [base]
    # A machine with both kinds of addresses is still one machine.
    hosts = sorted({str(address[0]) for family, *_, address in found if family == found[0][0]})
    return [base] if len(hosts) < 2 else [str(url.with_host(host)).rstrip("/") for host in hosts]


async def _sent(method: str, url: str, token: str, *, timeout_s: float, **more: Any) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, headers=headers, allow_redirects=False, **more) as answer,
        ):
            return answer.status, await answer.text(errors="replace")
    except TimeoutError:
        raise AdminFailed(f"{url}: no answer within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        raise AdminFailed(f"{url}: {_why(error)}") from error


def _base(settings: AdminSettings) -> str:
    host = ANY_ADDRESS.get(settings.admin_host, settings.admin_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.admin_port}"


def _understood(url: str, status: int, text: str) -> dict[str, Any]:
    if status == 401:
        raise AdminFailed(f"{url}: the worker asks for its token; set ORDER_WORKER_ADMIN_TOKEN to the same as there")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status not in (200, 409) or not isinstance(answer, dict):
        raise AdminFailed(f"{url}: answered {status}, which no worker does: {excerpt(text, limit=100)!r}")
    return answer


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nothing listens there; is the worker running, with the same ORDER_WORKER_ADMIN_HOST and _PORT?"
    return str(error) or type(error).__name__
