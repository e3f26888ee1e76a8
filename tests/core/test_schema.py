"""The published schemas say what decoding does, and the AsyncAPI document holds together."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from tests.builders import EVENT, make_delivery
from tests.core.event_cases import BAD, BAD_CLOUD, CLOUD, ENVELOPE, GOOD, GOOD_CLOUD, SCHEMA
from worker.core.decode import EventSchema
from worker.core.fields import MAX_BODY_BYTES, MAX_DEPTH
from worker.core.model import Update
from worker.core.schema import asyncapi, cloud_event_schema, json_schema

EVENTS: Final = Draft202012Validator(json_schema(SCHEMA))
CLOUD_EVENTS: Final = Draft202012Validator(cloud_event_schema(SCHEMA))
PLAIN_CASES: Final = {**GOOD, **{name: event for name, (event, _) in BAD.items()}}
CLOUD_CASES: Final = {**GOOD_CLOUD, **{name: event for name, (event, _) in BAD_CLOUD.items()}}


def decodes(event: Any, content_type: str = "application/json") -> bool:
    """Whether decoding accepts this JSON value as a body."""
    return isinstance(SCHEMA.decode(make_delivery(json.dumps(event).encode(), content_type=content_type)), Update)


@pytest.mark.parametrize("event", PLAIN_CASES.values(), ids=PLAIN_CASES)
def test_schema_accepts_what_decoding_accepts(event: dict[str, Any]) -> None:
    """One table of cases, two judges, one verdict."""
    assert EVENTS.is_valid(event) == decodes(event)


@pytest.mark.parametrize("event", CLOUD_CASES.values(), ids=CLOUD_CASES)
def test_cloud_event_schema_accepts_what_decoding_accepts(event: dict[str, Any]) -> None:
    """The same for CloudEvents."""
    assert CLOUD_EVENTS.is_valid(event) == decodes(event, CLOUD)


SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.text()
    | st.sampled_from(
        ["2026-11-21T10:00:00Z", "2026-11-21T10:00:00", "2026-13-01T10:00:00Z", "1.0", "application/json"]
    )
)
KEYS: Final = [
    "id",
    "status",
    "shipping_carrier",
    "parcels",
    "weight",
    "gift",
    "occurred_at",
    "sequence",
    "line",
    "colour",
]


@given(st.dictionaries(st.sampled_from(KEYS), SCALARS))
def test_schema_and_decoding_agree_on_any_scalars(changes: dict[str, Any]) -> None:
    """Beyond the table: any scalar in any field."""
    event = {**EVENT, **changes}

    assert EVENTS.is_valid(event) == decodes(event)


@given(st.dictionaries(st.sampled_from([*ENVELOPE, "time", "datacontenttype", "subject"]), SCALARS))
def test_cloud_event_schema_and_decoding_agree_on_any_scalars(changes: dict[str, Any]) -> None:
    """The same for the envelope."""
    event = {**ENVELOPE, **changes}

    assert CLOUD_EVENTS.is_valid(event) == decodes(event, CLOUD)


@pytest.mark.parametrize(
    "event",
    [
        {"id": 1, "status": 4.0},  # JSON Schema counts it as an integer, the platform's GraphQL may not
        {"id": 1, "status": 4, "source": "x" * MAX_BODY_BYTES},  # a schema cannot limit the bytes of a body
        {"id": 1, "status": 4, "source": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)},  # nor its depth
        {"id": 1, "status": 4, "occurred_at": "2026-02-30T10:00:00Z"},  # a pattern knows no calendar
        {"id": 1, "status": 4, "occurred_at": "2099-01-01T10:00:00Z"},  # and no clock
    ],
)
def test_the_known_differences_are_refused_by_decoding_only(event: dict[str, Any]) -> None:
    """Decoding is never more lenient than the schema that producers test against; these are all ways it is stricter."""
    assert EVENTS.is_valid(event)
    assert not decodes(event)


@pytest.mark.parametrize("schema", [SCHEMA, EventSchema({}, [], 300)])
def test_schemas_are_valid_and_their_examples_pass(schema: EventSchema) -> None:
    """Also as draft 7, which the AsyncAPI document declares, and as plain JSON."""
    for made in (json_schema(schema), cloud_event_schema(schema)):
        Draft202012Validator.check_schema(made)
        Draft7Validator.check_schema({name: value for name, value in made.items() if name != "$schema"})
        assert json.loads(json.dumps(made)) == made
        assert all(Draft202012Validator(made).is_valid(example) for example in made["examples"])
    assert decodes(json_schema(schema)["examples"][0])
    assert decodes(cloud_event_schema(schema)["examples"][0], CLOUD)


def test_extra_and_ignored_fields_are_published() -> None:
    """Producers see what these settings switch on."""
    properties = json_schema(SCHEMA)["properties"]

    assert properties["parcels"]["type"] == ["integer", "null"]
    assert {"@note", "line", "event_id", "source"} <= properties.keys()
    assert "parcels" not in json_schema(EventSchema({}, [], 300))["properties"]


def test_asyncapi_describes_the_exchange_and_both_forms() -> None:
    """Topic exchange, routing key = order id, the plain event and the CloudEvent, one operation to send them."""
    document = asyncapi(SCHEMA, exchange="updates.test")
    channel = document["channels"]["order-updates"]
    messages = document["components"]["messages"]

    assert document["asyncapi"] == "3.0.0"
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "updates.test"
    assert channel["bindings"]["amqp"]["exchange"]["type"] == "topic"
    assert channel["address"] == "{order_id}"
    assert [operation["action"] for operation in document["operations"].values()] == ["send"]
    assert [message["contentType"] for message in messages.values()] == ["application/json", CLOUD]
    for message in messages.values():
        validator = Draft7Validator(message["payload"]["schema"])
        assert all(validator.is_valid(example["payload"]) for example in message["examples"])


def test_references_of_the_asyncapi_document_resolve() -> None:
    """Every $ref leads to something in the same document, which is plain JSON."""
    document = asyncapi(SCHEMA, exchange="order-updates")

    assert json.loads(json.dumps(document)) == document
    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert isinstance(target, dict)


def references(node: Any) -> Iterator[str]:
    """All $ref values below a node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)
