"""The channel of the model broker, as aiormq shows one to the real consumer.

Frames take time in both directions and keep their order; what is on its way when the connection breaks is lost, and
the two sides need not notice at the same moment.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from types import SimpleNamespace

from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.simulation.broker import Broker, Message, Session, wall_us
from tests.simulation.lane import SimLane, acks_in, cut_of, properties_of
from tests.simulation.processes import nobodys

WIRE_S = 0.001
"""How long a frame is on its way."""
Callback = Callable[[DeliveredMessage], Awaitable[None]]


class SimChannel:
    """A channel as aiormq shows it."""

    number = 1

    def __init__(self, session: Session, broker: Broker, lane: SimLane | None) -> None:
        self.session = session
        self.connection = SimpleNamespace(write_queue=SimpleNamespace(put=self._put))
        self._lane = lane
        self.is_closed = False
        self._broken = False
        self._unheard = False
        self.closing: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.on_consumer_cancel_callbacks: set[Callable[[object], object]] = set()
        self.opened_us = wall_us()
        self._context = copy_context()
        self._broker = broker
        self._callback: Callback | None = None
        self._prefetch = 0
        self._consumers: dict[str, int] = {}
        self._up: deque[Callable[[], object]] = deque()
        self._down: deque[Callable[[], object]] = deque()
        self._receiving: dict[asyncio.Task[None], None] = {}

    # -- what the consumer calls ----------------------------------------------------------------------------------

    async def basic_qos(self, *, prefetch_count: int) -> None:
        await self._ask(lambda: setattr(self, "_prefetch", prefetch_count))

    async def basic_consume(
        self, _queue: str, callback: Callback, *, consumer_tag: str, arguments: object = None
    ) -> None:
        if arguments:
            raise AssertionError(f"priorities are for partitions, and here is one queue: {arguments}")
        self._callback = callback
        await self._ask(lambda: self._begin(consumer_tag))

    async def basic_cancel(self, consumer_tag: str) -> None:
        await self._ask(lambda: self._stop(consumer_tag))

    async def basic_ack(self, tag: int, multiple: bool = False, *, wait: bool = True) -> None:
        self._check()
        self._broker.trace.note("ack written", self.session.name, f"tag {tag}", "multiple" if multiple else "")
        self._send(lambda: self._ack(tag, multiple=multiple))
        if wait:
            await asyncio.sleep(0)

    async def _put(self, piece: ChannelFrame) -> None:
        """Acks that go out together."""
        for tag, multiple in acks_in(piece):
            self._broker.trace.note("ack written", self.session.name, f"tag {tag}", "multiple" if multiple else "")
            self._send(partial(self._ack, tag, multiple=multiple))

    async def close(self) -> None:
        self._unheard = True
        if not self.is_closed:
            await self._ask(self.session.end)
            self.end("closed")

    # -- what happens to it ---------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """The worker's side learns that it is gone."""
        self.is_closed = True
        for task in self._receiving:
            task.cancel()
        if not self.closing.done():
            self.closing.set_exception(ConnectionError(why))
            self.closing.exception()  # whoever listens has a callback; nobody has to await it

    def cut(self, lag_s: float) -> None:
        """The connection breaks; the worker notices after so many seconds."""
        self._broken = True
        self.session.end()
        asyncio.get_running_loop().call_later(lag_s, self.end, "connection reset", context=self._context)

    def perish(self, noticed_s: float) -> None:
        """The worker is gone. The broker learns it at once, from the system that ends a process, or misses its
        heartbeats some time after the machine has lost its power."""
        self._broken = True
        asyncio.get_running_loop().call_later(noticed_s, self.session.end, context=nobodys())
        asyncio.get_running_loop().call_later(0.0, self.end, "process died", context=self._context)

    def cancel_consumer(self) -> None:
        """The broker cancels the consumer (its queue was moved, say)."""
        self.session.hand = None
        self._broker.leave(self.session)
        self._broker.pump()
        self._unheard = True
        for tell in list(self.on_consumer_cancel_callbacks):
            tell(None)

    # -- frames ---------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.is_closed:
            raise RuntimeError("channel is closed")

    async def _ask(self, work: Callable[[], object]) -> None:
        """A request and its answer. Without an answer it waits until the channel ends."""
        self._check()
        answered = asyncio.Event()

        def answer() -> None:
            work()
            self._later(self._down, answered.set, context=self._context)

        self._send(answer)
        self.closing.add_done_callback(lambda _: answered.set())
        await answered.wait()
        self._check()

    def _send(self, work: Callable[[], object]) -> None:
        self._later(self._up, work, context=nobodys())

    def _later(self, frames: deque[Callable[[], object]], work: Callable[[], object], *, context: Context) -> None:
        # Timers of the same moment have no order of their own, so each only takes the oldest frame.
        frames.append(work)
        asyncio.get_running_loop().call_later(WIRE_S, self._next, frames, context=context)

    def _next(self, frames: deque[Callable[[], object]]) -> None:
        work = frames.popleft()
        if not self._broken and not self.is_closed:
            work()

    def _begin(self, consumer_tag: str) -> None:
        # As at RabbitMQ, a prefetch counts for the consumers that are registered after it. Two at a time are only there
        # while one takes over from the other, so the last one gets everything.
        self._consumers[consumer_tag] = self._prefetch
        self.session.hand = self._hand
        self._broker.consumers.append(self.session)
        self._adjust()

    def _hand(self, tag: int, message: Message) -> None:
        self._later(self._down, self._delivering(tag, message), context=self._context)

    def _stop(self, consumer_tag: str) -> None:
        if self._consumers.pop(consumer_tag, None) is not None and self.session in self._broker.consumers:
            self._broker.consumers.remove(self.session)
        if not self._consumers:
            self.session.hand = None
        self._adjust()

    def _adjust(self) -> None:
        if self._consumers:
            self.session.prefetch = next(reversed(self._consumers.values()))
        self._broker.pump()

    def _is_open(self) -> bool:
        return not self._broken and not self.is_closed

    def _ack(self, tag: int, *, multiple: bool) -> None:
        if not self.session.dead and not self.session.ack(tag, multiple=multiple):
            self.cut(WIRE_S)

    def _delivering(self, tag: int, message: Message) -> Callable[[], None]:
        times = message.handed_over

        def deliver() -> None:
            assert self._callback is not None
            self._broker.trace.note("delivered", self.session.name, f"tag {tag}", f"event {message.event.number}")
            if not self._unheard:  # else the consumer has given this channel up, and lets it pass
                self._broker.oracle.seen(message.event, self.opened_us if times > 1 else wall_us())
            if self._lane is not None:
                self._lane.feed(cut_of(tag, message, times), context=self._context, open_=self._is_open)
                return
            received = self._callback(_delivered(tag, message, times, self))
            task = asyncio.ensure_future(received)
            self._receiving[task] = None
            task.add_done_callback(lambda done: self._receiving.pop(done, None))

        return deliver


def _delivered(tag: int, message: Message, times: int, channel: SimChannel) -> DeliveredMessage:
    wire = properties_of(message, times)
    frame = Basic.Deliver("", tag, times > 1, "order-updates", str(message.event.order_id))
    body = message.event.body
    return DeliveredMessage(
        delivery=frame,
        header=ContentHeader(body_size=len(body), properties=wire),
        body=body,
        channel=channel,  # type: ignore[arg-type]
    )
