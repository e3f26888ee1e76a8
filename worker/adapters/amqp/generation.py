"""One life of the consuming channel: its number, its ledger, and the moment it is gone.

A tag means something on the channel that delivered it only, so everything that is settled carries the number of its
generation, and what belongs to one that is gone is dropped: the broker hands it over again.
"""

import asyncio
from collections.abc import Sequence
from enum import StrEnum

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from worker.adapters.amqp.deadline import within
from worker.core.acks import AckLedger
from worker.core.model import Delivery, Properties


class Phase(StrEnum):
    """What the broker's consumer of this channel is doing."""

    OPENING = "opening"
    CONSUMING = "consuming"
    CANCELLED = "cancelled"
    GONE = "gone"


class Generation:
    """A channel, what it delivered and what of that is open. Made by the consumer, one per channel."""

    def __init__(self, number: int, channel: AbstractChannel, *, opened_us: int) -> None:
        self.number = number
        self.channel = channel
        self.opened_us = opened_us
        self.ledger = AckLedger()
        self.phase = Phase.OPENING
        self.registered = True  # False where a request to consume, or to stop it, has no answer
        self.gone = asyncio.Event()
        self.consumer_tag = f"order-worker-{number}"
        # aiormq hands out a new observer at each look and keeps none of them: this one has to live as long as we do.
        self.closing: asyncio.Future[object] = channel.closing
        self._writing = asyncio.Lock()

    async def acknowledge(self, groups: Sequence[Sequence[int]], *, timeout_s: float) -> int:
        """Plan and write the acks of these tags; the number of frames. Raises ConnectionLost.

        One plan at a time: the frames have to reach the broker in the order they were planned in, because a later
        multiple frame may cover what an earlier plan named.
        """
        async with within(timeout_s, "acknowledging"), self._writing:
            frames = self.ledger.plan(groups)
            for frame in frames[:-1]:
                await self.channel.basic_ack(frame.tag, frame.multiple, wait=False)
            for frame in frames[-1:]:
                await self.channel.basic_ack(frame.tag, frame.multiple)
        return len(frames)

    def delivery(self, message: DeliveredMessage, *, arrived_us: int) -> Delivery:
        """The message as the core sees it. Its tag is noted as open first: what fails from here on stays open."""
        frame = message.delivery
        if not isinstance(frame, Basic.Deliver) or frame.delivery_tag is None:
            raise TypeError(f"not a delivery: {type(frame).__name__}")
        self.ledger.delivered(frame.delivery_tag)
        return Delivery(
            generation=self.number,
            tag=frame.delivery_tag,
            body=message.body,
            properties=properties_of(message.header.properties),
            exchange=frame.exchange or "",
            routing_key=frame.routing_key or "",
            redelivered=bool(frame.redelivered),
            arrived_us=arrived_us,
            opened_us=self.opened_us,
        )


def properties_of(given: Basic.Properties) -> Properties:
    """The properties of a message as the core sees them."""
    return Properties(
        content_type=given.content_type,
        content_encoding=given.content_encoding,
        headers=given.headers or {},
        delivery_mode=given.delivery_mode,
        priority=given.priority,
        correlation_id=given.correlation_id,
        reply_to=given.reply_to,
        expiration=given.expiration,
        message_id=given.message_id,
        timestamp=given.timestamp,
        message_type=given.message_type,
        user_id=given.user_id,
        app_id=given.app_id,
    )
