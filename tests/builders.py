"""Makers of test values: say what matters to the test, the rest is a plausible default. ``_us``: microseconds."""

import json
from collections.abc import Mapping
from typing import Any

from worker.core.journal import BatchRecord, OrderOutcome
from worker.core.model import Delivery, Fields, Properties, Scalar, Update, Version
from worker.core.times import format_time
from worker.core.values import Values

NOW_US = 1_795_255_200_000_000
"""2026-11-21T10:00:00Z: when test deliveries arrive unless told otherwise."""
OPENED_US = NOW_US - 3_600_000_000
"""When the channel of test deliveries was opened: an hour earlier."""
EVENT: Mapping[str, Any] = {"id": 46140199, "status": 4}
"""The smallest good event."""


def make_delivery(
    body: Mapping[str, Any] | bytes = EVENT,
    tag: int = 1,
    generation: int = 1,
    *,
    headers: Mapping[str, Any] | None = None,
    message_id: str | None = "m-1",
    content_type: str | None = "application/json",
    exchange: str = "order-updates",
    routing_key: str | None = None,
    redelivered: bool = False,
    arrived_us: int = NOW_US,
    opened_us: int = OPENED_US,
    **properties: Any,
) -> Delivery:
    """A delivery. A mapping becomes its JSON, and its id the routing key. ``properties``: those of Properties."""
    if not isinstance(body, bytes):
        routing_key = str(body.get("id", "")) if routing_key is None else routing_key
        body = json.dumps(body).encode()
    return Delivery(
        generation=generation,
        tag=tag,
        body=body,
        properties=Properties(
            headers={} if headers is None else headers, message_id=message_id, content_type=content_type, **properties
        ),
        exchange=exchange,
        routing_key=routing_key or "",
        redelivered=redelivered,
        arrived_us=arrived_us,
        opened_us=opened_us,
    )


def applied_record(values: Mapping[int, Values], *, wall_us: int = NOW_US) -> BatchRecord:
    """What a call leaves in the journal that applied these values of orders nobody claimed (no revision is below 0)."""
    outcomes = {order_id: OrderOutcome(revision=-1, applied=applied) for order_id, applied in values.items()}
    return BatchRecord(wall_us=wall_us, orders=outcomes)


def make_update(
    order_id: int = 46140199,
    *,
    status: int | None = None,
    carrier: str | None = None,
    method: str | None = None,
    fields: Fields | None = None,
    at: float = 0.0,
    sequence: int = -1,
    tag: int = 1,
    generation: int = 1,
    first_seen: float | None = None,
    message_id: str | None = None,
    attempt: int = 1,
    redelivered: bool = False,
    headers: Mapping[str, Any] | None = None,
) -> Update:
    """An update of these fields at ``at`` seconds after 1970, first seen then too, with the delivery that it came from.

    ``fields`` replaces status, carrier and method (for null or extra fields); with none of them the status becomes 4.
    """
    given = {"status": status, "shipping_carrier": carrier, "shipping_method": method}
    changes: dict[str, Scalar] = {name: value for name, value in given.items() if value is not None}
    if fields is not None:
        changes = dict(fields)
    changes = changes or {"status": 4}
    time_us = round(at * 1_000_000)
    seen_us = time_us if first_seen is None else round(first_seen * 1_000_000)
    name = f"m-{generation}-{tag}" if message_id is None else message_id
    event = {"id": order_id, **changes, "occurred_at": format_time(time_us)}
    if sequence != -1:
        event["sequence"] = sequence
    delivery = make_delivery(
        event, tag, generation, message_id=name, arrived_us=seen_us, redelivered=redelivered, headers=headers
    )
    return Update(
        order_id=order_id,
        fields=changes,
        version=Version(time_us, sequence, seen_us, name),
        delivery=delivery,
        attempt=attempt,
        size=len(delivery.body),
    )
