"""Events, good and bad, with the words of their refusal: decoding and the published schema are held against them."""

from typing import Any, Final

from tests.builders import EVENT
from worker.core.decode import EventSchema
from worker.core.model import Dead, Delivery, Reason, Update

SCHEMA: Final = EventSchema(
    {"shipping_tracking": "string", "parcels": "integer", "weight": "number", "gift": "boolean"}, ["@note", "line"], 300
)
CLOUD: Final = "application/cloudevents+json"

GOOD: Final[dict[str, dict[str, Any]]] = {
    "one field": {"id": 1, "status": 4},
    "all known fields": {
        "id": 46140199,
        "status": 4,
        "shipping_carrier": "Royal Mail",
        "shipping_method": "Tracked 24",
    },
    "null": {"id": 1, "status": None, "shipping_carrier": None},
    "largest id": {"id": 2**63 - 1, "status": 4},
    "negative status": {"id": 1, "status": -1},
    "extra fields": {"id": 1, "shipping_tracking": "", "parcels": 2, "weight": 1.5, "gift": False},
    "whole number": {"id": 1, "weight": 3},
    "extra null": {"id": 1, "weight": None, "gift": None},
    "notes": {"id": 1, "status": 4, "event_id": 7, "source": ["a"], "@note": {"deep": [1]}, "line": None},
    "offset": {"id": 1, "status": 4, "occurred_at": "2026-11-21T11:00:00+01:00"},
    "small letters": {"id": 1, "status": 4, "occurred_at": "2026-11-21t10:00:00.5z"},
    "sequence": {"id": 1, "status": 4, "sequence": 17},
}
BAD: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no id": ({"status": 4}, "id: missing"),
    "id zero": ({"id": 0, "status": 4}, "id: expected an integer from 1"),
    "id negative": ({"id": -1, "status": 4}, "id: expected an integer from 1"),
    "id beyond 64 bits": (
        {"id": 2**63, "status": 4},
        "id: expected an integer from 1 to 9223372036854775807 (64 bits)",
    ),
    "id text": ({"id": "46140199", "status": 4}, "id: expected an integer, got a string"),
    "id boolean": ({"id": True, "status": 4}, "id: expected an integer, got a boolean"),
    "id null": ({"id": None, "status": 4}, "id: expected an integer, got null"),
    "nothing to change": ({"id": 1, "sequence": 1}, "body: nothing to change; give at least one of status, shipping_"),
    "status text": ({"id": 1, "status": "4"}, "status: expected an integer, got a string"),
    "status boolean": ({"id": 1, "status": True}, "status: expected an integer, got a boolean"),
    "status fraction": ({"id": 1, "status": 4.5}, "status: expected an integer, got a decimal number"),
    "status large": ({"id": 1, "status": 2**63}, "status: out of range"),
    "carrier empty": ({"id": 1, "shipping_carrier": ""}, "shipping_carrier: empty"),
    "carrier number": ({"id": 1, "shipping_carrier": 5}, "shipping_carrier: expected a string, got an integer"),
    "extra integer": ({"id": 1, "parcels": 1.5}, "parcels: expected an integer, got a decimal number"),
    "extra number": ({"id": 1, "weight": "1"}, "weight: expected a number, got a string"),
    "extra number boolean": ({"id": 1, "weight": True}, "weight: expected a number, got a boolean"),
    "extra number large": ({"id": 1, "weight": 10**30}, "weight: out of range"),
    "extra boolean": ({"id": 1, "gift": 1}, "gift: expected true or false, got an integer"),
    "extra string": ({"id": 1, "shipping_tracking": {}}, "shipping_tracking: expected a string, got an object"),
    "unknown field": ({"id": 1, "status": 4, "colour": "red"}, "colour: unknown field (EXTRA_FIELDS"),
    "time number": ({"id": 1, "status": 4, "occurred_at": 1795255200}, "occurred_at: expected RFC 3339"),
    "time null": ({"id": 1, "status": 4, "occurred_at": None}, "occurred_at: expected RFC 3339"),
    "time without offset": (
        {"id": 1, "status": 4, "occurred_at": "2026-11-21T10:00:00"},
        "occurred_at: not a valid time",
    ),
    "time with a space": (
        {"id": 1, "status": 4, "occurred_at": "2026-11-21 10:00:00Z"},
        "occurred_at: not a valid time",
    ),
    "date only": ({"id": 1, "status": 4, "occurred_at": "2026-11-21"}, "occurred_at: not a valid time"),
    "sequence text": ({"id": 1, "status": 4, "sequence": "1"}, "sequence: expected an integer, got a string"),
    "sequence null": ({"id": 1, "status": 4, "sequence": None}, "sequence: expected an integer, got null"),
    "sequence large": ({"id": 1, "status": 4, "sequence": 2**63}, "sequence: out of range"),
}
ENVELOPE: Final[dict[str, Any]] = {
    "specversion": "1.0", "id": "e-1", "source": "/line/1", "type": "order.update", "data": {"id": 1, "status": 4},
}  # fmt: skip
GOOD_CLOUD: Final[dict[str, dict[str, Any]]] = {
    "plain": ENVELOPE,
    "extension": ENVELOPE | {"traceparent": "00-1", "subject": "order"},
    "unset attributes as null": ENVELOPE | {"time": None, "datacontenttype": None},
    "json data": ENVELOPE | {"datacontenttype": "Application/JSON; charset=utf-8", "time": "2026-11-21T10:00:00Z"},
    "vendor json": ENVELOPE | {"datacontenttype": "application/vnd.order+json"},
}
BAD_CLOUD: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "version": (ENVELOPE | {"specversion": "0.3"}, 'specversion: expected "1.0"'),
    "version number": (ENVELOPE | {"specversion": 1.0}, 'specversion: expected "1.0"'),
    "id empty": (ENVELOPE | {"id": ""}, "id: CloudEvents require a non-empty string"),
    "source": (ENVELOPE | {"source": 1}, "source: CloudEvents require a non-empty string, got an integer"),
    "no type": ({k: v for k, v in ENVELOPE.items() if k != "type"}, "type: CloudEvents require"),
    "no data": ({k: v for k, v in ENVELOPE.items() if k != "data"} | {"data_base64": "e30="}, "data: missing; put the"),
    "data text": (ENVELOPE | {"data": "{}"}, "data: expected an object, got a string"),
    "data content": (ENVELOPE | {"data": {"id": 1, "status": "4"}}, "data.status: expected an integer, got a string"),
    "data without change": (ENVELOPE | {"data": {"id": 1}}, "data: nothing to change"),
    "time": (ENVELOPE | {"time": "yesterday"}, "time: not a valid time"),
    "not json": (ENVELOPE | {"datacontenttype": "text/xml"}, "datacontenttype: expected a JSON media type"),
    "plain event": (dict(EVENT), "specversion: expected"),
}


def accepted(delivery: Delivery) -> Update:
    """Decode and insist on an update."""
    result = SCHEMA.decode(delivery)
    assert isinstance(result, Update), result
    return result


def refused(delivery: Delivery) -> str:
    """Decode, insist on a refusal, and give its text."""
    result = SCHEMA.decode(delivery)
    assert isinstance(result, Dead)
    assert result.reason is Reason.INVALID_EVENT
    return result.detail
