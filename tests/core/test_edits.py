"""``--set name=value``: what may be set, how values are read, and what becomes of the body."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import EVENT, make_delivery
from worker.core.decode import EventSchema
from worker.core.edits import NO_EDITS, Edits, edited, parse_edits
from worker.core.errors import UsageError
from worker.core.fields import Kind, changeable_fields
from worker.core.model import Update, Version

EXTRA = {"weight": "number", "gift": "boolean", "shipping_tracking": "string"}
FIELDS = changeable_fields(EXTRA)
CLOUD = {"specversion": "1.0", "id": "e-1", "source": "press", "type": "order.updated"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status=8", 8),
        ("status=-1", -1),
        ("status=null", None),
        ("weight=1.5", 1.5),
        ("weight=2", 2),
        ("gift=true", True),
        ("gift=null", None),
        ("shipping_carrier=Royal Mail", "Royal Mail"),
        ("shipping_carrier=8", "8"),
        ("shipping_carrier=a=b", "a=b"),
        ("shipping_method=null", None),
        ("shipping_tracking=", ""),
        ("occurred_at=2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("sequence=17", 17),
    ],
)
def test_values_are_json_for_numbers_and_themselves_for_texts(text: str, expected: object) -> None:
    """What the field takes decides; null is null everywhere."""
    found = parse_edits([text], FIELDS).changes[text.partition("=")[0]]

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("status", "not name=value"),
        ("id=7", "id cannot be set"),
        ("colour=red", "EXTRA_FIELDS"),
        ("event_id=7", "no field that can be set"),
        ("status=Dispatched", "an integer or null"),
        ("status=8.0", "an integer or null"),
        ("status=true", "an integer or null"),
        ("status=", "an integer or null"),
        ("weight=NaN", "a number or null"),
        ("weight=true", "a number or null"),
        ("gift=1", "true, false or null"),
        ("occurred_at=yesterday", "takes a time"),
        ("occurred_at=null", "takes a time"),
        ("sequence=null", "an integer"),
        ("status=" + "[" * 100_000, "an integer"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_to_do(text: str, says: str) -> None:
    """Before anything is planned."""
    with pytest.raises(UsageError, match=says):
        parse_edits([text], FIELDS)


def test_all_problems_are_told_at_once() -> None:
    """And nothing may be set twice."""
    with pytest.raises(UsageError, match=r"id cannot.*'colour'.*status is set twice"):
        parse_edits(["id=1", "colour=red", "status=8", "status=9"], FIELDS)


def test_an_edited_event_is_the_event_with_those_fields() -> None:
    """Everything else in it stays, in its order."""
    body = b'{ "id": 7, "status": 4,\n "source": "\xc3\xbc", "occurred_at": "2026-11-21T10:00:00Z" }'
    found = edited(body, Edits({"status": 8, "shipping_carrier": None}), cloud=False)

    assert found == (
        '{"id":7,"status":8,"source":"ü","occurred_at":"2026-11-21T10:00:00Z","shipping_carrier":null}'.encode()
    )


def test_in_a_cloud_event_the_data_is_edited() -> None:
    """The envelope stays as it is."""
    body = json.dumps({**CLOUD, "data": {**EVENT}}).encode()
    found = edited(body, Edits({"status": 8}), cloud=True)

    assert isinstance(found, bytes)
    assert json.loads(found) == {**CLOUD, "data": {**EVENT, "status": 8}}


@pytest.mark.parametrize(
    ("body", "cloud"), [(b"\xff", False), (b"[]", False), (b"{", False), (b"7", True), (b"{}", True), (b"[NaN]", False)]
)
def test_a_body_without_an_object_cannot_be_edited(body: bytes, cloud: bool) -> None:
    """It says so in words."""
    assert isinstance(edited(body, Edits({"status": 8}), cloud=cloud), str)


def test_lone_surrogates_stay_escaped() -> None:
    """JSON can say them, UTF-8 cannot."""
    found = edited(b'{"id":7,"source":"\\ud800"}', Edits({"status": 8}), cloud=False)

    assert found == b'{"id":7,"source":"\\ud800","status":8}'


def test_edits_change_the_version_only_where_they_say_so() -> None:
    """Time and sequence; first sight and id stay."""
    before = Version(5, -1, 6, "m")

    assert NO_EDITS.version(before) == before
    assert Edits({"status": 8}).version(before) == before
    assert Edits({"sequence": 3}).version(before) == Version(5, 3, 6, "m")
    assert Edits({"occurred_at": "1970-01-01T00:00:01Z"}).version(before) == Version(1_000_000, -1, 6, "m")


VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1) | st.none(),
    Kind.NUMBER: st.floats(-1e6, 1e6) | st.none(),
    Kind.BOOLEAN: st.booleans() | st.none(),
    Kind.STRING: st.text(st.characters(codec="utf-8")).filter(lambda text: text != "null"),
    Kind.NAME: st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text != "null"),
}


@given(st.fixed_dictionaries({}, optional={name: VALUES[kind] for name, kind in FIELDS.items()}))
def test_whatever_can_be_set_makes_an_event_with_that_value(values: dict[str, Any]) -> None:
    """From the command line through the body to the decoder."""
    texts = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    body = edited(json.dumps({"id": 7, "status": 4}).encode(), parse_edits(texts, FIELDS), cloud=False)

    assert isinstance(body, bytes)
    decoded = EventSchema(EXTRA, ()).decode(make_delivery(body))
    assert isinstance(decoded, Update)
    assert decoded.fields == {"status": 4, **values}
