"""The event as published contracts: JSON Schema (2020-12), and an AsyncAPI 3.0 document for producers.

Both are made from the EventSchema that decodes, so they cannot fall behind it. What a schema cannot say, and decoding
refuses: bodies over 64 KiB or nested too deeply, integers written as ``4.0``, days that a month does not have, times
too far in the future, a repeated key with a wrong value.
"""

from collections.abc import Mapping
from typing import Any, Final

from worker.core.decode import EventSchema
from worker.core.fields import INT64_MAX, INT64_MIN, Kind
from worker.core.times import TIME_PATTERN

CONTRACT_VERSION: Final = "1.0.0"
"""Version of the event contract, not of the program: raised when producers have to change or may use more."""

_INT64: Final = {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX}
_KINDS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.INTEGER: {**_INT64, "type": ["integer", "null"]},
    Kind.NUMBER: {**_INT64, "type": ["number", "null"]},
    Kind.BOOLEAN: {"type": ["boolean", "null"]},
    Kind.STRING: {"type": ["string", "null"]},
    Kind.NAME: {"type": ["string", "null"], "minLength": 1},
}
_TIME: Final = {"type": "string", "format": "date-time", "pattern": TIME_PATTERN}
_NAME: Final = {"type": "string", "minLength": 1}
_EXAMPLE: Final = {
    "id": 46140199,
    "status": 4,
    "shipping_carrier": "Royal Mail",
    "shipping_method": "Tracked 24",
    "occurred_at": "2026-11-21T10:00:00.123Z",
    "sequence": 17,
}
_CLOUD_EXAMPLE: Final = {
    "specversion": "1.0",
    "id": "9b3f",
    "source": "/production/line-1",
    "type": "order.update",
    "time": "2026-11-21T10:00:00.123Z",
    "datacontenttype": "application/json",
    "data": {"id": 46140199, "status": 4},
}


def json_schema(schema: EventSchema) -> dict[str, Any]:
    """The JSON Schema of the message body (content type ``application/json``)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_event(schema), "examples": [_EXAMPLE]}


def cloud_event_schema(schema: EventSchema) -> dict[str, Any]:
    """The JSON Schema of a CloudEvent 1.0 in structured mode (content type ``application/cloudevents+json``)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_cloud_event(schema),
        "examples": [_CLOUD_EXAMPLE],
    }


def asyncapi(schema: EventSchema, *, exchange: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document: one channel, what producers send there, and how (AMQP bindings 0.3.0)."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Order updates",
            "version": CONTRACT_VERSION,
            "description": "Changes of orders, published by production lines and brought to the platform in order.",
        },
        "defaultContentType": "application/json",
        "channels": {"order-updates": _channel(exchange)},
        "operations": {"publishOrderUpdate": _operation()},
        "components": {
            "messages": {
                "OrderUpdate": _message("application/json", _event(schema), title="An order update", example=_EXAMPLE),
                "OrderUpdateCloudEvent": _message(
                    "application/cloudevents+json",
                    _cloud_event(schema),
                    title="An order update as a CloudEvent",
                    example=_CLOUD_EXAMPLE,
                ),
            }
        },
    }


def _event(schema: EventSchema) -> dict[str, Any]:
    changes = {name: dict(_KINDS[kind]) for name, kind in schema.changes.items()}
    return {
        "title": "Order update",
        "description": "Which fields of which order change, and since when. Absent: left alone; null: sent on.",
        "type": "object",
        "required": ["id"],
        "anyOf": [{"required": [name]} for name in changes],
        "properties": {
            "id": {"type": "integer", "minimum": 1, "maximum": INT64_MAX, "description": "The platform's order id."},
            **changes,
            "occurred_at": {**_TIME, "description": _WHEN},
            "sequence": {**_INT64, "description": "Breaks ties of equal times: the greater one is the later one."},
            **{name: {"description": "Kept for people, never sent."} for name in sorted(schema.ignored)},
        },
        "additionalProperties": False,
    }


_WHEN: Final = (
    "When it happened: RFC 3339 with an offset. Of two updates the later one wins, in whatever order they arrive;"
    " without it the time of arrival at the broker or worker counts."
)


def _cloud_event(schema: EventSchema) -> dict[str, Any]:
    return {
        "title": "Order update (CloudEvent)",
        "description": "CloudEvents 1.0, structured mode. Unless data has them, time is occurred_at and id event_id.",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": _NAME,
            "source": _NAME,
            "type": _NAME,
            "time": {**_TIME, "type": ["string", "null"]},
            "datacontenttype": {"type": ["string", "null"], "pattern": _JSON_TYPE},
            "data": _event(schema),
        },
    }


# The same media types as refusal.is_json_type: JSON Schema patterns have no flag for letter case.
_JSON_TYPE: Final = (
    r"^\s*(?:[Aa][Pp][Pp][Ll][Ii][Cc][Aa][Tt][Ii][Oo][Nn]/[Jj][Ss][Oo][Nn]|[Tt][Ee][Xx][Tt]/[Jj][Ss][Oo][Nn]"
    r"|[^;]*\+[Jj][Ss][Oo][Nn])\s*(?:;|$)"
)


def _channel(exchange: str) -> dict[str, Any]:
    names = ("OrderUpdate", "OrderUpdateCloudEvent")
    binding = {
        "is": "routingKey",
        "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False, "vhost": "/"},
        "bindingVersion": "0.3.0",
    }
    return {
        "address": "{order_id}",
        "title": "Order updates",
        "description": f"The topic exchange {exchange}; the routing key is the order id.",
        "parameters": {"order_id": {"description": "The id of the order, in decimal digits."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"amqp": binding},
    }


def _operation() -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": "#/channels/order-updates"},
        "title": "Publish an order update",
        "description": "Publish with confirms and mandatory: only a confirmed message is safe with the broker.",
        "messages": [
            {"$ref": "#/channels/order-updates/messages/OrderUpdate"},
            {"$ref": "#/channels/order-updates/messages/OrderUpdateCloudEvent"},
        ],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "timestamp": True, "bindingVersion": "0.3.0"}},
    }


def _message(
    content_type: str, payload: Mapping[str, Any], *, title: str, example: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "title": title,
        "contentType": content_type,
        # The schema uses nothing newer than draft 7, the version that AsyncAPI 3 tools have to know.
        "payload": {"schemaFormat": "application/schema+json;version=draft-07", "schema": dict(payload)},
        "examples": [{"payload": dict(example)}],
    }
