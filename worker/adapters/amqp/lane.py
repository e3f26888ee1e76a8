"""The fast lane for deliveries: a stream reader that keeps them from the AMQP library and hands them over in lists.

aiormq spends two tasks, a lock, a queue and three reads on each delivery. It takes its streams from a transport
factory, though, and that may be ours: the reader it then gets looks at the bytes first (``frames.py``). Handshake,
heartbeats, topology, requests and answers, closes and TLS stay with the library, which sees every byte but those of
deliveries on the channels registered here.

    socket -> (TLS) -> Lane.feed_data -> deliveries of registered channels -> their receivers, one list per chunk
                                      `-> everything else                  -> aiormq

What is kept back is a sign of life as well. aiormq counts frames, so it is given a heartbeat for it, at most one a
second: the broker might have sent it at that very place.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

import aiormq
import structlog
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from worker.adapters.amqp import lenient
from worker.adapters.amqp.frames import Cut, Cutter
from worker.ports import Clock

if TYPE_CHECKING:
    from aiormq.connection import SSLContextProvider

log = structlog.get_logger(__name__)

KNOWN_MAJOR: Final = "7"
BEAT_S: Final = 1.0
"""How often the library is told that what was kept back came: far below any heartbeat that can be agreed on."""
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

Receiver = Callable[[Sequence[Cut]], None]
"""Gets the deliveries of one channel, as many as came in one chunk. Quick; it may raise, which is logged."""


class Lane(asyncio.StreamReader):
    """The reading side of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, clock: Clock | None = None) -> None:
        super().__init__(loop=loop)
        self._clock = clock or loop.time
        self._cutter = Cutter()
        self._receivers: dict[int, Receiver] = {}
        self._beaten = 0.0
        self.used = False

    @property
    def fault(self) -> str:
        """Why the library gets everything again; empty while all is well."""
        return self._cutter.fault

    def register(self, channel: int, receive: Receiver) -> None:
        """Hand the deliveries of this channel over to ``receive``, until the channel is closed.

        To be called before anything consumes on it: what the library has begun to read it has to finish.
        """
        self._receivers[channel] = receive
        self._cutter.register(channel)

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Called by asyncio with what came from the broker; never raises for anything in it."""
        self.used = True
        cutter = self._cutter
        was_well = not cutter.fault
        passed = cutter.feed(bytes(data))  # no copy where it is ``bytes``, as both event loops have it
        kept = cutter.kept
        for channel, cuts in cutter.take():
            kept = True
            self._hand_over(channel, cuts)
        if passed:
            super().feed_data(passed)
        if cutter.fault and was_well:
            log.warning("broker.lane_left", detail=cutter.fault)
        elif kept and cutter.between_frames:
            self._beat()

    def _hand_over(self, channel: int, cuts: Sequence[Cut]) -> None:
        try:
            self._receivers[channel](cuts)
        except Exception:
            # The transport would close the connection for it: these deliveries stay open, the next ones come.
            log.exception("broker.delivery_failed")

    def _beat(self) -> None:
        self._cutter.kept = False
        now = self._clock()
        if now - self._beaten >= BEAT_S:
            self._beaten = now
            super().feed_data(HEARTBEAT_FRAME)


class LaneFactory:
    """What aiormq calls a transport factory: opens TCP and TLS as its own two do, with a ``Lane`` to read from."""

    def __init__(self) -> None:
        self.lane: Lane | None = None

    async def create(
        self, url: URL, *, ssl_context_provider: "SSLContextProvider | None" = None, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the host of this URL. Raises AMQPConnectionError where that fails, as the library's own do."""
        loop = asyncio.get_running_loop()
        context = None
        if url.scheme == "amqps" and ssl_context_provider is not None:
            context = await ssl_context_provider.get_context()
        lane = Lane(loop)
        protocol = asyncio.StreamReaderProtocol(lane, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.lane = lane
        return lane, asyncio.StreamWriter(transport, protocol, lane, loop)


def unknown() -> str:
    """What of the libraries is not as the lane knows it; empty where it can be used."""
    found = version("aiormq")
    if found.split(".")[0] != KNOWN_MAJOR:
        return f"aiormq {found}; known is {KNOWN_MAJOR}"
    if "transport_factory" not in inspect.signature(aiormq.Connection.__init__).parameters:
        return "aiormq's connection takes no transport factory"
    if not lenient.install():
        return "pamqp's decoders are not those we replace"
    return ""
