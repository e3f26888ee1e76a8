"""One connection to the broker, dialled over a list of URLs and dialled again after a loss.

The plain ``aio_pika.Connection`` is used, not the robust one: that knows one URL and a fixed interval without jitter,
its calls wait for ever while it is away, and an abandoned connect of it lives on as a zombie. Here one background task
dials; callers share it, and a caller that gives up does not disturb it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import aio_pika
import aiormq
import structlog
from aio_pika.abc import AbstractConnection, TimeoutType, UnderlayConnection
from aio_pika.tools import OneShotCallback
from aiormq.abc import AbstractChannel
from aiormq.exceptions import AuthenticationError, InvalidFrameError, ProbableAuthenticationError
from yarl import URL

from worker.adapters.amqp import lenient
from worker.adapters.amqp.deadline import root_cause, within
from worker.adapters.amqp.lane import Lane, LaneFactory, unknown
from worker.core.errors import BrokerRefused, ConnectionLost, UsageError
from worker.retrying import forever

if TYPE_CHECKING:
    from aiormq.connection import TransportFactory

log = structlog.get_logger(__name__)

CLOSE_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the broker is and how patient we are with it. All times in seconds; the URLs hold passwords, so no repr.

    ``heartbeat_s`` 10 makes a dead connection known after about 35 s (aiormq waits for three missed ones and a half).
    ``rpc_timeout_s`` bounds every single request on a channel. ``fast_lane``: deliveries are kept from the AMQP library
    where it is one that we know (``lane.py``).
    """

    urls: tuple[str, ...] = field(repr=False)
    heartbeat_s: int = 10
    connect_timeout_s: float = 10.0
    rpc_timeout_s: float = 10.0
    retry_first_s: float = 0.25
    retry_cap_s: float = 5.0
    fast_lane: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for an empty list or something that is no AMQP URL; the text does not repeat the URL."""
        if not self.urls:
            raise UsageError("AMQP_URL: at least one URL is needed")
        for number, text in enumerate(self.urls, 1):
            url = _parse(text)
            if url is None or url.scheme not in {"amqp", "amqps"} or not url.host:
                raise UsageError(f"AMQP_URL: number {number} of the list is no amqp:// or amqps:// URL")


def _parse(text: str) -> URL | None:
    try:
        return URL(text)
    except ValueError:
        return None


def shown(url: URL | str) -> str:
    """The URL as people and logs may see it: no password, no query (it may name key files)."""
    parsed = URL(url)
    return str(parsed.with_password(None).with_query(None).with_fragment(None))


def vhost_of(url: URL | str) -> str:
    """The virtual host of a broker's address, as the AMQP client reads it."""
    return URL(url).path.removeprefix("/").replace("%2F", "/") or "/"


class _Connection(aio_pika.Connection):
    """aio-pika's connection, except that a connect which is cancelled or timed out leaves no socket behind.

    The stock ``connect`` awaits once more between the finished handshake and remembering the transport; a cancellation
    there leaves a connected, heart-beating socket that nobody knows. With a ``factory`` it reads by way of a lane.
    """

    factory: LaneFactory | None = None

    async def connect(self, timeout: TimeoutType = None) -> None:  # noqa: ASYNC109 - the overridden signature
        raw = self._raw()
        closed = OneShotCallback(self._on_connection_close)
        try:
            async with asyncio.timeout(timeout):
                await raw.connect()
                await raw.ready()
        except BaseException:
            await raw.close()
            raise
        raw.closing.add_done_callback(closed)
        self.transport = UnderlayConnection(connection=raw, close_callback=closed)
        await self._on_connected()

    def _raw(self) -> aiormq.Connection:
        if self.factory is None:
            return aiormq.Connection(self.url, **self.kwargs)
        return aiormq.Connection(self.url, transport_factory=cast("TransportFactory", self.factory), **self.kwargs)


def lane_of(connection: AbstractConnection) -> Lane | None:
    """The fast lane of a connection, where it has one that carries its bytes."""
    factory = connection.factory if isinstance(connection, _Connection) else None
    lane = factory.lane if factory is not None else None
    return lane if lane is not None and lane.used and not lane.fault else None


async def dial(
    url: str, *, name: str, heartbeat_s: int, timeout_s: float, fast_lane: bool = False
) -> AbstractConnection:
    """Connect once. ``name`` is what the broker's tools show; ``fast_lane`` as in ``Endpoint``.

    Raises BrokerRefused where the broker answers and a person has to change something, ConnectionLost for all the rest:
    it may come back by itself. UsageError: a certificate file that the URL names cannot be read.
    """
    lenient.install()
    target = URL(url)
    target = target.update_query({"heartbeat": str(heartbeat_s), "name": name, **target.query})
    connection = _Connection(target)
    if fast_lane and not unknown():
        connection.factory = LaneFactory()
    try:
        async with within(timeout_s + CLOSE_DEADLINE_S, f"connecting to {shown(url)}"):
            await connection.connect(timeout=timeout_s)
    except ConnectionLost as error:
        await discard(connection)
        raise _judged(target, error) from error.__cause__
    except BaseException:
        await discard(connection)
        raise
    return connection


def _judged(url: URL, lost: ConnectionLost) -> Exception:
    """What a failed connect means, from the library's error: some of them a person has to act on."""
    error = lost.__cause__
    place, user, vhost = shown(url), url.user or "guest", vhost_of(url)
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return BrokerRefused(f"{place} refuses the login of user {user!r}: check name and password in AMQP_URL")
    # The broker's reason is lost in the library: it reports a Connection.Close where it expects Connection.OpenOk.
    if isinstance(error, InvalidFrameError) and "OpenOk" in str(error):
        return BrokerRefused(
            f"{place} refuses vhost {vhost!r} to user {user!r}: it does not exist, the user has no permission for it, "
            "or its limit of connections is reached; check the vhost in AMQP_URL"
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return UsageError(f"AMQP_URL: a certificate or key file cannot be read ({type(error).__name__})")
    return lost


async def discard(connection: AbstractConnection) -> None:
    """Close for good. aio-pika starts a stray task for every connection that is forgotten without being closed."""
    try:
        async with within(CLOSE_DEADLINE_S, "closing the connection"):
            await connection.close()
    except ConnectionLost as error:
        log.info("broker.close_failed", detail=str(error))


class Link:
    """A connection that is there when asked for. Two of them make a worker: one consumes, one publishes.

    (Under a memory alarm the broker stops reading from connections that publish: acks on the same one would hang.)
    """

    def __init__(self, endpoint: Endpoint, *, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.connects = 0
        self._turn = 0
        self._told = False
        self._connection: AbstractConnection | None = None
        self._dialling: asyncio.Task[AbstractConnection] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has not been seen to fail."""
        return self._connection is not None and is_open(self._connection)

    async def get(self) -> AbstractConnection:
        """The open connection; dials for as long as it takes. Cancelling the wait leaves the dialling to other callers.

        Raises BrokerRefused when the broker answers and refuses us, and UsageError; the next call tries again.
        """
        if self._connection is not None and is_open(self._connection):
            return self._connection
        if self._dialling is None or self._dialling.done():
            self._dialling = asyncio.create_task(self._dial(), name=f"dial {self.name}")
            # Nobody may be waiting any more when it fails; reading the error keeps asyncio from logging it as lost.
            self._dialling.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._dialling)

    async def close(self) -> None:
        """Stop dialling and close the connection. Closing twice, or before the first ``get``, is harmless."""
        dialling, self._dialling = self._dialling, None
        if dialling is not None and not dialling.done():
            dialling.cancel()
            await asyncio.wait([dialling])
        await self.drop()

    async def drop(self) -> None:
        """Close the connection, if there is one; the next ``get`` dials anew, the next URL first."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await discard(connection)

    def lane(self, connection: AbstractConnection) -> Lane | None:
        """The fast lane of this connection; None, and told once, where it has none though it was to have one."""
        lane = lane_of(connection)
        if lane is None and self.endpoint.fast_lane and not self._told:
            self._told = True
            detail = unknown() or "the connection does not read by way of ours"
            log.warning("broker.lane_ordinary", connection=self.name, detail=detail)
        return lane

    async def _dial(self) -> AbstractConnection:
        await self.drop()
        end = self.endpoint
        retrying = forever(
            first_s=end.retry_first_s, cap_s=end.retry_cap_s, retry_on=(ConnectionLost,), noticed=self._tell
        )
        async for attempt in retrying:
            with attempt:
                # In turn after a loss too: a node that fell silent, or that is cut off from the others, still takes the
                # connection, and would cost the deadline each time before another is asked.
                url = end.urls[self._turn % len(end.urls)]
                self._turn += 1
                connection = await dial(
                    url,
                    name=self.name,
                    heartbeat_s=end.heartbeat_s,
                    timeout_s=end.connect_timeout_s,
                    fast_lane=end.fast_lane,
                )
                self._connection = connection
                self.connects += 1
                log.info("broker.connected", connection=self.name, url=shown(url))
        if self._connection is None:
            raise ConnectionLost("dialling ended without a connection")
        return self._connection

    def _tell(self, error: Exception, attempt: int, wait_s: float) -> None:
        log.warning(
            "broker.unreachable",
            connection=self.name,
            error=type(root_cause(error)).__name__,
            detail=str(error),
            attempt=attempt,
            next_try_s=round(wait_s, 3),
        )


def is_open(connection: AbstractConnection) -> bool:
    """Whether the transport below is alive; ``aio_pika`` itself only knows whether ``close`` was called."""
    return connection.transport is not None and connection.transport.connection.is_opened


async def close_channel(channel: AbstractChannel, link: Link, what: str, *, timeout_s: float) -> None:
    """Close a channel of this link, and with it the connection where that comes to no good end.

    Only the connection can give its messages back then. And a close that is given up half-way may not even be sent, or
    aiormq says it a second time, for which the broker ends the connection: the next request would be the one to find
    out.
    """
    try:
        async with within(timeout_s, what):
            await channel.close()
    except ConnectionLost as error:
        log.info("broker.close_failed", connection=link.name, detail=str(error))
        await link.drop()
    except BaseException:
        await link.drop()
        raise
