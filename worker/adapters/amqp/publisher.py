"""Publishing that knows whether it worked: confirms, mandatory, a deadline, and every failure with its reason.

Facts it is built around (aiormq 7.2, RabbitMQ 3.10 to 4.x): an unroutable message is confirmed as if it were stored
unless it is mandatory and returns raise; returns are matched by message id, so two publishes in flight must never share
one; under a memory alarm nothing answers for as long as the alarm lasts; publishing to a missing exchange closes the
channel, and with it every publish in flight, some of which were stored; properties larger than a frame close the whole
connection. A publish without a confirm may still have happened: whoever repeats it makes a duplicate, never a loss.
"""

import asyncio
import struct
from datetime import datetime
from uuid import uuid4

import structlog
from aiormq.abc import AbstractChannel
from aiormq.exceptions import DeliveryError, PublishError
from msgspec.structs import replace
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.adapters.amqp.connection import Link, close_channel
from worker.adapters.amqp.deadline import within
from worker.core.errors import BrokerRefused, ConnectionLost, CopyFailed, CopyReturned, CopyUnencodable
from worker.core.model import Properties

log = structlog.get_logger(__name__)

DEADLINE_S = 5.0
WINDOW = 200
"""Publishes in flight at once: more gain nothing (measured), and each may hold a body in memory."""

FRAME_OVERHEAD = 64
"""What a header frame needs besides the properties, and a little room."""


class Publisher:
    """A confirming channel on a link of its own; opened at the first publish, and again after every loss.

    ``deadline_s`` bounds one publish, from opening the channel to the confirm.
    """

    def __init__(self, link: Link, *, deadline_s: float = DEADLINE_S, window: int = WINDOW) -> None:
        self._link = link
        self._deadline_s = deadline_s
        self._window = asyncio.Semaphore(window)
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def place(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> str:
        """Publish a copy of a message under a fresh message id (the original's has a header of its own).

        Returns that id, when the broker has the copy. Raises as ``publish``.
        """
        message_id = str(uuid4())
        await self.publish(exchange, routing_key, body, replace(properties, message_id=message_id))
        return message_id

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> None:
        """Publish and wait for the confirm. A message id that is given must not be in flight twice; else it gets one.

        Raises CopyFailed: returned (CopyReturned), refused by the broker, not confirmed in time, or the channel was
        lost; in the last two cases it may have been stored. Raises CopyUnencodable: nothing was sent, it cannot be
        written as AMQP.
        """
        wire = _wire(properties)
        size = _encoded_size(wire, exchange=exchange, routing_key=routing_key, body=body)
        target = f"publishing to {exchange or routing_key!r}"
        try:
            # The wait for a place is bounded by the deadlines of those who hold one.
            async with self._window, within(self._deadline_s, target):
                channel = await self._ready_channel()
                _check_frame(size, channel)
                await _confirmed(channel, exchange=exchange, routing_key=routing_key, body=body, wire=wire)
        except (ConnectionLost, BrokerRefused) as error:
            raise CopyFailed(str(error)) from error

    async def close(self) -> None:
        """Close the channel; the link stays, unless it comes to no good end. Twice, or before the first publish, is
        harmless."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await close_channel(channel, self._link, "closing the publishing channel", timeout_s=self._deadline_s)

    async def _ready_channel(self) -> AbstractChannel:
        async with self._opening:
            channel = self._channel
            if channel is not None and not channel.is_closed and self._link.connected:
                return channel
            connection = await self._link.get()
            if connection.transport is None:
                raise ConnectionLost("the connection was closed")
            raw = connection.transport.connection
            self._channel = channel = await raw.channel(publisher_confirms=True, on_return_raises=True)
            return channel


async def _confirmed(
    channel: AbstractChannel, *, exchange: str, routing_key: str, body: bytes, wire: Basic.Properties
) -> None:
    try:
        answer = await channel.basic_publish(
            body, exchange=exchange, routing_key=routing_key, properties=wire, mandatory=True
        )
    except PublishError as error:
        raise CopyReturned(f"returned: no queue is bound to {exchange!r} for key {routing_key!r}") from error
    except DeliveryError as error:
        raise CopyFailed(
            f"refused by the broker (nack): {exchange or routing_key!r} is full or has no quorum"
        ) from error
    if not isinstance(answer, Basic.Ack):
        raise CopyFailed(f"not confirmed: the broker answered {type(answer).__name__}")


def _wire(given: Properties) -> Basic.Properties:
    try:
        return Basic.Properties(
            content_type=given.content_type,
            content_encoding=given.content_encoding,
            headers={**given.headers},
            delivery_mode=given.delivery_mode,
            priority=given.priority,
            correlation_id=given.correlation_id,
            reply_to=given.reply_to,
            expiration=given.expiration,
            message_id=given.message_id or str(uuid4()),
            timestamp=_moment(given.timestamp),
            message_type=given.message_type,
            user_id=given.user_id,
            app_id=given.app_id,
        )
    except (TypeError, ValueError) as error:
        raise CopyUnencodable(f"a property cannot be sent: {type(error).__name__}") from error


def _moment(given: datetime | int | None) -> datetime | None:
    if isinstance(given, int):
        raise TypeError("a number that is no time")
    return given


def _encoded_size(wire: Basic.Properties, *, exchange: str, routing_key: str, body: bytes) -> int:
    """Bytes of the header frame. Encoded once ahead, because aiormq would fail in the middle, with whatever error.

    The texts of the encoder's errors may hold header values, so only their class is told.
    """
    try:
        Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True).marshal()
        return len(ContentHeader(properties=wire, body_size=len(body)).marshal())
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError, struct.error) as error:
        raise CopyUnencodable(f"the properties cannot be encoded: {type(error).__name__}") from error


def _check_frame(size: int, channel: AbstractChannel) -> None:
    most = channel.connection.connection_tune.frame_max - FRAME_OVERHEAD
    if size > most > 0:
        raise CopyUnencodable(f"the properties take {size} bytes, a frame holds {most}")
