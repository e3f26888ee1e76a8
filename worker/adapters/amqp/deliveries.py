"""Deliveries as the core sees them, from what either lane brings: messages of the library, or what was cut by us."""

from collections.abc import Sequence

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.laneproperties import Undecoded, reader
from worker.core.model import Delivery, Properties


def frame_of(message: DeliveredMessage) -> tuple[Basic.Deliver, int]:
    """The method of a delivery, and its tag. Raises TypeError for what is no delivery."""
    frame = message.delivery
    if not isinstance(frame, Basic.Deliver) or frame.delivery_tag is None:
        raise TypeError(f"not a delivery: {type(frame).__name__}")
    return frame, frame.delivery_tag


def of_message(message: DeliveredMessage, *, generation: int, arrived_us: int, opened_us: int) -> Delivery:
    """From the ordinary lane. Raises TypeError for what is no delivery."""
    frame, tag = frame_of(message)
    properties = known_properties(message.header.properties)
    return Delivery(
        generation=generation,
        tag=tag,
        body=message.body,
        properties=properties,
        exchange=frame.exchange or "",
        routing_key=frame.routing_key or "",
        redelivered=bool(frame.redelivered),
        arrived_us=arrived_us,
        opened_us=opened_us,
        returns=_returns(properties) if frame.redelivered else 0,
    )


def of_cuts(cuts: Sequence[Cut], *, generation: int, arrived_us: int, opened_us: int) -> list[Delivery]:
    """From the fast lane, in the order given. Runs for every message."""
    made: list[Delivery] = []
    read, last, exchange = reader(), b"", ""
    for tag, redelivered, from_exchange, key, raw, body in cuts:
        if from_exchange != last:
            last, exchange = from_exchange, _text(from_exchange)
        found, fault = read(raw), ""
        if isinstance(found, Undecoded):
            properties, fault = found
        else:
            properties = found
        delivery = Delivery(
            generation=generation,
            tag=tag,
            body=body,
            properties=properties,
            exchange=exchange,
            routing_key=key.decode("utf-8", "surrogateescape"),
            arrived_us=arrived_us,
            opened_us=opened_us,
        )
        if redelivered:
            delivery.redelivered, delivery.returns = True, _returns(properties)
        if fault:
            delivery.fault = fault
        made.append(delivery)
    return made


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _returns(properties: Properties) -> int:
    """Quorum queues count in a header. On a first delivery it would be the producer's, and mean nothing."""
    count = properties.headers.get("x-delivery-count")
    return count if type(count) is int and count > 0 else 0


def known_properties(given: Basic.Properties) -> Properties:
    """The properties that the library read, as the core sees them."""
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
