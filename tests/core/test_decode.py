"""Decoding: what is accepted, what is refused and with which words."""

import json
import time
import timeit
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.builders import EVENT, NOW_US, make_delivery, make_update
from tests.core.event_cases import BAD, BAD_CLOUD, CLOUD, ENVELOPE, GOOD, GOOD_CLOUD, SCHEMA, accepted, refused
from worker.core.decode import EventSchema
from worker.core.errors import UsageError
from worker.core.fields import MAX_BODY_BYTES
from worker.core.headers import dead_copy
from worker.core.model import Dead, Settlement, Update
from worker.core.refusal import explain
from worker.core.times import format_time


@pytest.mark.parametrize("event", GOOD.values(), ids=GOOD)
def test_good_events_become_updates_with_exactly_their_fields(event: dict[str, Any]) -> None:
    """What may be changed is in the update as it was sent, null included; everything else is not."""
    update = accepted(make_delivery(event))

    assert update.order_id == event["id"]
    assert update.fields == {name: value for name, value in event.items() if name in SCHEMA.changes}
    assert (update.attempt, update.size) == (1, len(update.delivery.body))


def test_numbers_are_sent_on_as_they_were_written() -> None:
    """A whole number stays an integer, a fraction a float."""
    fields = accepted(make_delivery(b'{"id":1,"weight":3,"parcels":2}')).fields

    assert [type(value) for value in fields.values()] == [int, int]


@pytest.mark.parametrize(("event", "detail"), BAD.values(), ids=BAD)
def test_bad_events_are_refused_pointing_at_the_field(event: dict[str, Any], detail: str) -> None:
    """The text starts with the field and says what is wrong with it."""
    assert refused(make_delivery(event)).startswith(detail)


@pytest.mark.parametrize("event", GOOD_CLOUD.values(), ids=GOOD_CLOUD)
def test_cloud_events_are_unpacked(event: dict[str, Any]) -> None:
    """Structured mode, by its content type, parameters and letter case allowed."""
    update = accepted(make_delivery(event, content_type="Application/CloudEvents+JSON; charset=utf-8"))

    assert (update.order_id, update.fields, update.event_id) == (1, {"status": 4}, "e-1")


@pytest.mark.parametrize(("event", "detail"), BAD_CLOUD.values(), ids=BAD_CLOUD)
def test_bad_cloud_events_are_refused_pointing_at_the_attribute(event: dict[str, Any], detail: str) -> None:
    """Envelope and data are told apart by their path."""
    assert refused(make_delivery(event, content_type=CLOUD)).startswith(detail)


def test_what_cloud_events_carry_is_used_unless_data_has_it() -> None:
    """time stands for occurred_at and id for event_id; the producer's own fields inside are the more exact ones."""
    outer = ENVELOPE | {"time": "2026-11-21T09:00:00Z"}
    inner = outer | {"data": {"id": 1, "status": 4, "occurred_at": "2026-11-21T08:00:00Z", "event_id": "inner"}}

    assert accepted(make_delivery(outer, content_type=CLOUD)).version.time_us == NOW_US - 3_600_000_000
    update = accepted(make_delivery(inner, content_type=CLOUD))
    assert (update.version.time_us, update.event_id) == (NOW_US - 7_200_000_000, "inner")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "body: empty"),
        (b"null", "body: expected a JSON object, got null"),
        (b"[1]", "body: expected a JSON object, got an array"),
        (b"{'id': 1}", "body: not JSON: "),
        (b'{"id":1,"status":4}x', "body: not JSON: trailing characters"),
        (b'\xef\xbb\xbf{"id":1,"status":4}', "body: not JSON: "),
        (b'{"id":1,"shipping_carrier":"\xff"}', "body: not valid UTF-8"),
        (b'{"id":1,"\xff":2}', "body: not valid UTF-8"),
        (b'{"id":1,"shipping_carrier":"\\ud800"}', "body: not JSON: "),
        (b'{"id":1,"status":NaN}', "status: expected an integer, got NaN or Infinity"),
        (b'{"id":1,"weight":-Infinity}', "weight: expected a number, got NaN or Infinity"),
        (b'{"id":1,"status":4,"source":[NaN]}', "body: a field is given twice, or a number is NaN"),
        (b'{"id":1,"weight":1e400}', "body: a number is out of range"),
        (b'{"id":1,"weight":' + b"9" * 5000 + b"}", "body: a number is out of range"),
        (b'{"id":1.0,"status":4}', "id: expected an integer, got a decimal number (write it without"),
        (b'{"id":1,"status":4.0}', "status: expected an integer, got a decimal number (write it without"),
        (b'{"id":1,"status":"x","status":4}', "body: a field is given twice"),
        (b'{"id":1,"status":4,"source":' + b"[" * 65 + b"]" * 65 + b"}", "body: nested too deeply"),
        (b"[" * 60_000, "body: nested too deeply"),
        (b'{"a":' * 12_000, "body: nested too deeply"),
        (b" " * (MAX_BODY_BYTES + 1), "body: 65537 bytes, at most 65536 are allowed"),
    ],
)
def test_unreadable_bodies_are_refused_saying_why(body: bytes, detail: str) -> None:
    """Whatever is not one JSON object of a sensible size and depth."""
    assert refused(make_delivery(body)).startswith(detail)


def test_largest_and_deepest_bodies_are_accepted() -> None:
    """The bounds themselves are inside, and brackets inside strings are no nesting."""
    event = b'{"id":1,"status":4,"source":%s}'
    deep = event % (b"[" * 63 + b"]" * 63)
    brackets = event % (b'"' + b"[{\\\\\\" + b'"' + b"[" * 100 + b'"')

    assert accepted(make_delivery(b'{"id":1,"status":4}'.ljust(MAX_BODY_BYTES))).size == MAX_BODY_BYTES
    assert accepted(make_delivery(deep)).order_id == 1
    assert accepted(make_delivery(brackets)).order_id == 1


def test_last_of_repeated_keys_counts() -> None:
    """As nearly every JSON reader does it."""
    assert accepted(make_delivery(b'{"id":1,"status":4,"status":8}')).fields == {"status": 8}


def test_compressed_bodies_are_refused_with_a_hint() -> None:
    """content_encoding is not undone, and the text says so."""
    assert "content_encoding" in refused(make_delivery(b"\x1f\x8b\x08", content_encoding="gzip"))


def test_explaining_a_deep_body_does_not_run_out_of_stack() -> None:
    """Decoding never asks that, but the text must not depend on it."""
    text = explain(b"[" * 60_000, changes=SCHEMA.changes, ignored=SCHEMA.ignored, cloud=False)

    assert text.startswith("body: nested too deeply")


def test_refusals_name_several_problems_and_stay_short() -> None:
    """At most five are told, with cleaned and shortened names, and the rest is counted."""
    event = {f"field\n{number}" + "x" * 200: number for number in range(50)}
    detail = refused(make_delivery(event))

    assert detail.endswith("and 47 more")
    assert "\n" not in detail
    assert len(detail) < 1000


@given(st.dictionaries(st.text(), st.text(min_size=12).map("secret".__add__), min_size=1))
def test_refusals_never_hold_values_of_the_payload(event: dict[str, str]) -> None:
    """Values may be personal or secret; names and types are enough to find the mistake."""
    detail = refused(make_delivery({"id": "secret-id", **event}))

    assert not any(value in detail for value in ["secret-id", *event.values()] if value not in "".join(event))


def test_large_headers_are_not_the_events_fault() -> None:
    """A 100 kB header changes nothing."""
    assert accepted(make_delivery(headers={"trace": "x" * 100_000})).fields == {"status": 4}


def test_message_id_is_part_of_the_version_and_may_be_missing() -> None:
    """The producer's own id, not that of a copy; empty where there was none."""
    ids = [
        accepted(make_delivery(message_id=own, headers=headers)).version.message_id
        for own, headers in [("a", {}), ("b", {"ow-message-id": "a"}), ("b", {"ow-message-id": ""}), (None, {})]
    ]

    assert ids == ["a", "a", "", ""]


def test_built_updates_decode_to_themselves() -> None:
    """The builders of the tests and the decoder agree."""
    built = make_update(7, status=8, carrier="DPD", at=1000.000001, sequence=3)
    decoded = accepted(built.delivery)

    names = [field.name for field in structs.fields(Update)]
    assert {name: getattr(decoded, name) for name in names} == {name: getattr(built, name) for name in names}


@pytest.mark.parametrize(
    ("extra", "ignore", "words"),
    [
        ({"tracking": "text"}, [], ["EXTRA_FIELDS", "tracking", "string, integer, number, boolean"]),
        ({"tracking": "name"}, [], ["EXTRA_FIELDS", "string, integer"]),
        ({"my-field": "string", "id": "integer"}, [], ["my-field", "GraphQL", "'id'"]),
        ({"status": "integer"}, [], ["status", "anyway"]),
        ({}, ["status", 'a"b', ""], ["IGNORE_FIELDS", "status", "quotes"]),
        ({"tracking": "string"}, ["tracking"], ["IGNORE_FIELDS", "tracking"]),
    ],
)
def test_settings_that_cannot_work_are_refused(extra: dict[str, str], ignore: list[str], words: list[str]) -> None:
    """With every problem of a setting at once, and its name."""
    with pytest.raises(UsageError) as caught:
        EventSchema(extra, ignore, 300)

    assert all(word in str(caught.value) for word in words)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1.0", format_time(NOW_US)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES: Final = ["id", "status", "shipping_carrier", "occurred_at", "sequence", "event_id", "weight", "data", "time"]
NAMES_CLOUD: Final = ["specversion", "source", "type", "datacontenttype"]
BODIES: Final = (
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(NAMES + NAMES_CLOUD) | st.text(), JSON).map(lambda v: json.dumps(v).encode())
    | st.tuples(st.dictionaries(st.sampled_from(NAMES), JSON), JSON).map(
        lambda pair: json.dumps({**ENVELOPE, "data": {**EVENT, **pair[0]}, "x": pair[1]}).encode()
    )
)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OURS: Final = ["attempt", "first-seen", "occurred-at", "sequence", "message-id", "exchange", "original", "dropped"]
HEADERS: Final = st.dictionaries(
    st.sampled_from(["timestamp_in_ms", "CC", "x-death", *(f"ow-{name}" for name in OURS)]) | st.text(),
    VALUES,
    max_size=5,
)


@given(
    body=BODIES,
    headers=HEADERS,
    content_type=st.none() | st.text() | st.just(CLOUD),
    timestamp=st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC)),
    message_id=st.none() | st.text(st.characters()),
    redelivered=st.booleans(),
)
def test_nothing_escapes_whatever_arrives(**parts: Any) -> None:
    """Any bytes with any properties give an update or a refusal, and a refusal can always be copied."""
    delivery = make_delivery(**parts)

    match SCHEMA.decode(delivery):
        case Update() as update:
            assert update.fields.keys() <= SCHEMA.changes.keys()
            assert SCHEMA.decode(delivery) is not None
        case Dead() as dead:
            assert dead.detail
            copy = dead_copy(Settlement(delivery=delivery, disposition=dead), now_us=NOW_US, worker="test")
            assert copy.body == delivery.body


@pytest.mark.benchmark
def test_decoding_costs_a_few_microseconds_per_event() -> None:
    """Prints decode() in full, and msgspec against pydantic for the same struct (decode and validate only)."""
    import msgspec
    import pydantic

    event = {**GOOD["all known fields"], "occurred_at": "2026-11-21T10:00:00.123Z", "sequence": 17}
    delivery = make_delivery(event)
    schema = EventSchema({"shipping_tracking": "string"}, [])
    types: dict[str, Any] = {"id": int, "status": int, "shipping_carrier": str, "shipping_method": str}
    types |= {"occurred_at": datetime, "sequence": int}
    struct = msgspec.json.Decoder(msgspec.defstruct("S", list(types.items()), forbid_unknown_fields=True))
    model = pydantic.create_model("M", **types)
    runs = {
        "EventSchema.decode": lambda: schema.decode(delivery),
        "msgspec struct only": lambda: struct.decode(delivery.body),
        "pydantic model_validate_json only": lambda: model.model_validate_json(delivery.body),
    }
    for name, run in runs.items():
        best_s = min(timeit.repeat(run, timer=time.process_time, number=20_000, repeat=7))
        print(f"{name}: {best_s / 20_000 * 1e6:.2f} us")  # noqa: T201
