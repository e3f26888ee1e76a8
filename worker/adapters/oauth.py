"""OAuth access tokens by client credentials (RFC 6749 section 4.4), cached and refreshed one flight at a time.

A *flight* is one request to the token endpoint. Whoever needs a token while one is under way joins it; cancelling a
caller never cancels the flight of the others. A token is refreshed in the background shortly before it expires, so
that no call has to wait; while that fails the old one is used as long as it lives. Times are monotonic and run from
before the request, so a token is never believed to live longer than the platform thinks.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog

from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.excerpt import excerpt
from worker.ports import Clock

log = structlog.get_logger(__name__)

ASSUMED_LIFETIME_S: Final = 3600.0
"""Used where the answer names no lifetime (RFC 6749 section 5.1 allows that): what the platform's documentation
shows."""
LONGEST_LIFETIME_S: Final = 86_400.0
"""No token is kept longer, whatever the answer says; milliseconds taken for seconds do little harm then."""
EARLY_SHARE: Final = 0.1
EARLY_AT_MOST_S: Final = 60.0
"""A token is refreshed when a tenth of its lifetime remains, or 60 s, whichever is smaller."""
RETRIES_WHILE_VALID: Final = 4
"""How often a failing early refresh is tried again before the token expires."""
MAX_BODY_BYTES: Final = 64 * 1024

_REFUSING_STATUSES = frozenset({400, 401, 403})
# RFC 6749 sections 4.1.2.1 and 5.2: these say "later", every other code says "not like this".
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_ADVICE = {
    "invalid_client": "check ORDER_WORKER_CLIENT_ID and ORDER_WORKER_CLIENT_SECRET",
    "invalid_scope": "check ORDER_WORKER_OAUTH_SCOPE",
    "unauthorized_client": "ask the platform's support to allow client credentials for this OAuth user",
    "unsupported_grant_type": "check ORDER_WORKER_OAUTH_URL: this endpoint knows no client credentials",
}
_GENERAL_ADVICE = "check ORDER_WORKER_CLIENT_ID, ORDER_WORKER_CLIENT_SECRET and ORDER_WORKER_OAUTH_SCOPE"


@dataclass(slots=True, frozen=True, kw_only=True)
class ClientCredentials:
    """Who we are at the token endpoint. An empty ``scope`` is left out of the request: the platform allows a blank
    one."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""

    def form(self) -> bytes:
        """The form-encoded body of the token request."""
        pairs = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "grant_type": "client_credentials",
            **({"scope": self.scope} if self.scope else {}),
        }
        return urlencode(pairs).encode()


@dataclass(slots=True, frozen=True, kw_only=True)
class _Granted:
    """A token, and when to do what about it (monotonic seconds)."""

    value: str = field(repr=False)
    scope: str | None
    asked_at: float
    refresh_at: float
    expires_at: float


@dataclass(slots=True, frozen=True, kw_only=True)
class _Failure:
    """Why there is no token. A value, because each waiter raises an exception of its own."""

    text: str
    refused: bool = False
    retry_after: str | None = None

    def error(self) -> TokenRefused | TokenUnavailable:
        if self.refused:
            return TokenRefused(self.text)
        return TokenUnavailable(self.text, retry_after=self.retry_after)


class OAuthTokenSource:
    """``ports.TokenSource`` over HTTP. ``timeout_s`` bounds one flight; ``clock`` is monotonic, in seconds.

    ``observe`` is told the headers of every answer as it comes; it must not raise.
    """

    def __init__(
        self,
        credentials: ClientCredentials,
        *,
        timeout_s: float = 15.0,
        clock: Clock = time.monotonic,
        ssl_context: ssl.SSLContext | None = None,
        observe: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        self._credentials = credentials
        self._observe = observe
        self._timeout_s = timeout_s
        self._clock = clock
        self._ssl: ssl.SSLContext | bool = ssl_context or True
        self._cached: _Granted | None = None
        self._flight: asyncio.Task[_Granted | _Failure] | None = None
        self._try_early_at = 0.0
        self._closed = False

    @property
    def age_s(self) -> float | None:
        """Seconds since the cached token was asked for; None without one."""
        return None if self._cached is None else self._clock() - self._cached.asked_at

    @property
    def granted_scope(self) -> str | None:
        """The scope of the cached token as far as the answer named one."""
        return None if self._cached is None else self._cached.scope

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End a flight that is under way; its callers get TokenUnavailable. Closing twice is harmless."""
        self._closed = True
        self._cached = None
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    async def token(self) -> str:
        """See ``ports.TokenSource``. Waits only when there is no valid token; raises TokenRefused or
        TokenUnavailable."""
        now = self._clock()
        cached = self._cached
        if cached is None or now >= cached.expires_at:
            return await self._fetched()
        if now >= cached.refresh_at and now >= self._try_early_at:
            self._launch()
        return cached.value

    def invalidate(self, token: str) -> None:
        """Forget ``token`` if it is still the cached one; a newer one stays."""
        if self._cached is not None and self._cached.value == token:
            self._cached = None

    async def _fetched(self) -> str:
        flight = self._launch()
        await asyncio.wait({flight})  # unlike awaiting the task, this does not pass our cancellation on to it
        outcome = _Failure(text="the token source was closed") if flight.cancelled() else flight.result()
        if isinstance(outcome, _Failure):
            raise outcome.error()
        return outcome.value

    def _launch(self) -> asyncio.Task[_Granted | _Failure]:
        if self._closed:
            raise TokenUnavailable("the token source is closed")
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch(), name="oauth-token")
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[_Granted | _Failure]) -> None:
        self._flight = None
        if flight.cancelled() or self._closed:
            return
        outcome = flight.result()
        if isinstance(outcome, _Granted):
            self._cached = outcome
            log.debug("token.fetched", lifetime_s=round(outcome.expires_at - outcome.asked_at))
        elif self._cached is not None:
            margin = self._cached.expires_at - self._cached.refresh_at
            self._try_early_at = self._clock() + margin / RETRIES_WHILE_VALID

    async def _fetch(self) -> _Granted | _Failure:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                status, retry_after, body = await self._post()
        except TimeoutError:
            return _Failure(text=f"the token endpoint gave no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Failure(text=_unreachable(error))
        return _judge(status, body, retry_after=retry_after, asked_at=asked_at, secret=self._credentials.client_secret)

    async def _post(self) -> tuple[int, str | None, bytes]:
        """One request on a connection of its own: an hour later none would be alive, so there is nothing to keep."""
        connector = aiohttp.TCPConnector(force_close=True)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(
                self._credentials.url,
                data=self._credentials.form(),
                headers=headers,
                ssl=self._ssl,
                allow_redirects=False,  # never carry the secret elsewhere
            ) as response,
        ):
            self._observe(response.headers)
            return response.status, response.headers.get("Retry-After"), await _read(response)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            response.close()
            return b""  # unreadable, like any answer that is no token
    return bytes(body)


def _unreachable(error: aiohttp.ClientError | OSError) -> str:
    # Neither str() nor repr() of the error: those of ClientResponseError hold the address and the request's headers.
    words = error.strerror if isinstance(error, OSError) else None
    cause = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, aiohttp.ClientSSLError):
        return excerpt(f"TLS to the token endpoint failed: {cause}")
    return excerpt(f"no answer from the token endpoint: {cause}")


def _judge(status: int, body: bytes, *, retry_after: str | None, asked_at: float, secret: str) -> _Granted | _Failure:
    try:
        answer = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return _Failure(text=f"the token endpoint answered HTTP {status} without JSON", retry_after=retry_after)
    if 200 <= status < 300:
        return _granted(answer, asked_at)
    said = _said(answer, secret)
    if status in _REFUSING_STATUSES and _refuses(answer.get("error"), status):
        advice = _ADVICE.get(str(answer.get("error")), _GENERAL_ADVICE)
        return _Failure(text=f"the token endpoint refuses us (HTTP {status} {said}): {advice}", refused=True)
    return _Failure(text=f"the token endpoint answered HTTP {status} {said}".rstrip(), retry_after=retry_after)


def _refuses(error: Any, status: int) -> bool:
    """Whether an ``error`` of a 400, 401 or 403 is about us. A 400 whose error is an object is how the platform's REST
    services report their rate limit, so only a code as RFC 6749 section 5.2 has it condemns the credentials there."""
    if isinstance(error, str):
        return error not in _PASSING_ERRORS
    return isinstance(error, dict) and status != 400


def _said(answer: dict[str, Any], secret: str) -> str:
    error = answer.get("error")
    nested = error.get("message") if isinstance(error, dict) else error
    words = [nested, *(answer.get(key) for key in ("error_description", "hint", "message"))]
    said = dict.fromkeys(word for word in words if isinstance(word, str) and word)
    return excerpt(", ".join(said), secrets=(secret,))


def _granted(answer: dict[str, Any], asked_at: float) -> _Granted | _Failure:
    value = answer.get("access_token")
    # RFC 6750 section 2.1 allows visible ASCII only; anything else could not be put into a header.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or not value:
        return _Failure(text="the token endpoint answered without a usable access_token")
    lifetime = _lifetime(answer.get("expires_in"))
    early = min(lifetime * EARLY_SHARE, EARLY_AT_MOST_S)
    expires_at = asked_at + lifetime
    scope = answer.get("scope")
    named = scope if isinstance(scope, str) else None
    return _Granted(value=value, scope=named, asked_at=asked_at, refresh_at=expires_at - early, expires_at=expires_at)


def _lifetime(expires_in: Any) -> float:
    """Seconds; a numeric string counts (PHP sends them), anything else is as good as missing."""
    try:
        seconds = float(expires_in) if type(expires_in) in (int, float, str) else ASSUMED_LIFETIME_S
    except (ValueError, OverflowError):
        seconds = ASSUMED_LIFETIME_S
    if not seconds > 0:  # also NaN
        seconds = ASSUMED_LIFETIME_S
    return min(seconds, LONGEST_LIFETIME_S)
