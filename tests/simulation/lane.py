"""The fast lane of the model connection: deliveries of one moment come in one list, acks of a plan as one piece."""

import asyncio
import struct
from collections.abc import Callable
from contextvars import Context
from typing import Any

from aiormq.abc import ChannelFrame
from pamqp.commands import Basic

from tests.simulation.broker import Message
from worker.adapters.amqp.framelayouts import ack_frame
from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.lane import Receiver

_ACK_BYTES = len(ack_frame(1, 1, multiple=False))
_TAG_AT = 11
_tag_and_multiple = struct.Struct(">Q?").unpack_from


class SimLane:
    """What the consumer registers its channel with; one for each channel, which is how the simulation opens them."""

    fault = ""

    def __init__(self) -> None:
        self._receive: Receiver | None = None
        self._chunk: list[Cut] = []

    def register(self, _channel: int, receive: Receiver) -> None:
        """See ``Lane.register``."""
        self._receive = receive

    def feed(self, cut: Cut, *, context: Context, open_: Callable[[], bool]) -> None:
        """A delivery came; it is handed over with all others of this moment, if the channel is still open then."""
        self._chunk.append(cut)
        if len(self._chunk) == 1:
            asyncio.get_running_loop().call_soon(self._hand_over, open_, context=context)

    def _hand_over(self, open_: Callable[[], bool]) -> None:
        chunk, self._chunk = self._chunk, []
        assert self._receive is not None
        if open_():
            self._receive(chunk)


def properties_of(message: Message, times: int) -> Basic.Properties:
    """As the broker writes them on the delivery number ``times``."""
    given = message.properties
    headers: dict[str, Any] = dict(given.headers)
    if times > 1:
        headers["x-delivery-count"] = times - 1
    return Basic.Properties(content_type=given.content_type, headers=headers, message_id=given.message_id)


def cut_of(tag: int, message: Message, times: int) -> Cut:
    """A delivery as it is cut out of the byte stream."""
    key, raw = str(message.event.order_id).encode(), properties_of(message, times).marshal()
    return tag, int(times > 1), b"order-updates", key, raw, message.event.body


def acks_in(piece: ChannelFrame) -> list[tuple[int, bool]]:
    """Tag and whether it stands for all below, of each ack."""
    places = range(0, len(piece.payload), _ACK_BYTES)
    return [_tag_and_multiple(piece.payload, place + _TAG_AT) for place in places]
