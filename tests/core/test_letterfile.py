"""Dead letters in files: everything comes back as it was, edits are seen, and what is wrong is said by line."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_US, make_delivery
from worker.core.deadletter import DeadLetter, letter_key, read_dead_letter
from worker.core.errors import UsageError
from worker.core.headers import dead_copy
from worker.core.letterfile import FiledLetter, letter_line, read_letter
from worker.core.model import Dead, Delivery, Properties, Reason, Settlement
from worker.core.tablejson import from_json, to_json

any_text = st.text(st.characters(), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats()
    | any_text
    | st.binary(max_size=8)
    | st.binary(max_size=8).map(bytearray)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(any_text | st.sampled_from(["table", "base64", "text", "entries"]), inner, max_size=3)
    ),
    max_leaves=6,
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
)
bodies = st.binary(max_size=30) | jsons.map(lambda value: json.dumps({"a": value}, indent=1).encode())


def letter(body: bytes = b'{"id": 7, "status": 4}', **given_: Any) -> DeadLetter:
    """A dead letter as the worker makes it, as it lies in the queue."""
    settlement = Settlement(
        delivery=make_delivery(body, **({"routing_key": "7"} | given_)),
        disposition=Dead(reason=Reason.REJECTED, detail="why"),
    )
    copy = dead_copy(settlement, now_us=NOW_US, worker="1")
    headers = {**copy.properties.headers, "x-delivery-count": 3}
    properties = Properties(headers=headers, content_type="application/json", message_id="copy-1", delivery_mode=2)
    return read_dead_letter(Delivery(generation=0, tag=1, body=copy.body, properties=properties, routing_key="7"))


def foreign(headers: dict[str, Any], body: bytes = b"{}", **properties: Any) -> DeadLetter:
    """A message that somebody else put there."""
    return read_dead_letter(
        Delivery(generation=0, tag=1, body=body, properties=Properties(headers=headers, **properties))
    )


def edited(line: bytes, **changes: Any) -> FiledLetter:
    """The line with other values; None takes one out."""
    found = json.loads(line) | changes
    return read_letter(json.dumps({name: value for name, value in found.items() if value is not None}).encode(), 1)


@given(values)
def test_every_amqp_value_comes_back_exactly(value: Any) -> None:
    """By type, too: bytes are not a byte array, and a table that looks like a mark is none."""
    back = from_json(json.loads(json.dumps(to_json(value))))

    assert repr(back) == repr(value)


@given(bodies, st.dictionaries(any_text, values, max_size=3), any_text)
def test_what_nobody_edited_comes_back_byte_for_byte(body: bytes, headers: dict[str, Any], text: str) -> None:
    """Body, properties and headers, whatever is in them."""
    given_ = foreign(
        headers, body, message_id=text or None, correlation_id=text, timestamp=datetime.now(UTC), priority=3
    )
    found = read_letter(letter_line(given_), 1)
    properties = given_.delivery.properties

    assert (found.body, found.edited, found.copy_id) == (body, False, letter_key(given_))
    assert repr(found.properties) == repr(properties)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":7,"status":4.0}', b'{ "b": 1,\n "a": "\\u00e9" }', b'{"a":1,"a":2}', b'{"a":0.1}', b'{"a":1e3}', b"{}",
    ],
)  # fmt: skip
def test_objects_are_there_to_be_edited_and_a_tool_that_only_rewrites_them_changes_nothing(body: bytes) -> None:
    """Spaces, order of names and escapes are no edit."""
    line = json.loads(letter_line(letter(body)))
    rewritten = json.dumps(line, sort_keys=True, indent=None, ensure_ascii=False).encode()

    assert line["event"] == json.loads(body)
    assert (read_letter(rewritten, 1).body, read_letter(rewritten, 1).edited) == (body, False)


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"no json", "body"),
        (b"[1]", "body"),
        (b'{"a": 9007199254740993}', "body"),
        (b'{"a": 0.12345678901234567890}', "body"),
        (b'{"a": 1e999}', "body"),
        (b'{"a": NaN}', "body"),
        (b'{"a": "\\ud800"}', "body"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b'{"a": "\xff"}', "body_base64"),
    ],
)
def test_what_a_tool_would_spoil_is_no_event(body: bytes, form: str) -> None:
    """Numbers that a double rounds, for one."""
    line = json.loads(letter_line(letter(body)))

    assert {"event", "body", "body_base64"} & line.keys() == {form}
    assert read_letter(json.dumps(line).encode(), 1).body == body


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"status": 4.0}, {"status": 4}),
        ({"status": 1}, {"status": True}),
        ({"status": 4}, {"status": "4"}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": None}, {}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ],
)
def test_an_edit_is_seen(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Also one that Python would take for the same: an event may have been refused for exactly that."""
    found = edited(letter_line(letter(json.dumps(before).encode())), event=after)

    assert found.edited
    assert json.dumps(json.loads(found.body)) == json.dumps(after)


def test_an_event_without_its_bytes_is_an_edited_one() -> None:
    """Whoever takes the bytes out means what is written there."""
    found = edited(letter_line(letter()), body_base64=None)

    assert (found.body, found.edited) == (b'{"id":7,"status":4}', True)


def test_another_key_and_exchange_are_taken() -> None:
    """They are where a replay of the file sends it."""
    found = edited(letter_line(letter()), exchange="other", routing_key="8")

    assert (found.exchange, found.routing_key) == ("other", "8")


def test_the_line_tells_people_what_happened() -> None:
    """Why, when, whose, and where from."""
    line = json.loads(letter_line(letter()))

    assert {name: line[name] for name in ("copy_id", "reason", "detail", "failed_at", "order_id", "message_id")} == {
        "copy_id": "copy-1", "reason": "rejected", "detail": "why", "failed_at": "2026-11-21T10:00:00.000000Z",
        "order_id": 7, "message_id": "m-1",
    }  # fmt: skip
    assert (line["exchange"], line["routing_key"]) == ("order-updates", "7")
    assert line["event"] == {"id": 7, "status": 4}


def test_the_brokers_letters_know_where_the_producer_sent_them() -> None:
    """From the oldest death."""
    deaths = [{"exchange": "retry", "routing-keys": ["7"]}, {"exchange": "first", "routing-keys": ["7"]}]

    assert json.loads(letter_line(foreign({"x-death": deaths})))["exchange"] == "first"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"copy_id": None}, "copy_id: missing"),
        ({"copy_id": 7}, "copy_id: must be a text"),
        ({"Event": {}}, "unknown name 'Event'"),
        ({"event": None, "body_base64": None}, "one of event, body and body_base64 must be there, not none"),
        ({"body": "x"}, "not event and body and body_base64"),
        ({"event": [1]}, "event: must be an object"),
        ({"event": None, "body_base64": "?"}, "body_base64: is no base64"),
        ({"properties": None}, "properties: missing"),
        ({"properties": []}, "properties: must be an object"),
        ({"properties": {"contenttype": "x"}}, "properties: unknown name 'contenttype'"),
        ({"properties": {"priority": True}}, "properties: priority must be an integer"),
        ({"properties": {"timestamp": "now"}}, "properties: timestamp must be a time"),
        ({"properties": {"app_id": 1}}, "properties: app_id must be a text"),
        ({"headers": []}, "headers: must be an object"),
        ({"headers": {"a": {"time": "soon"}}}, "headers: cannot be read as time"),
        ({"headers": {"a": {"decimal": "x"}}}, "headers: cannot be read as decimal"),
        ({"headers": {"a": {"base64": 1}}}, "headers: cannot be read as base64"),
        ({"headers": {"entries": [1]}}, "headers: an entry is a list of a name and a value"),
        ({"headers": {"entries": [[1, 1]]}}, "headers: the name of an entry is a text"),
        ({"headers": {"table": 1}}, "headers: cannot be read as table"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], says: str) -> None:
    """With the line, and the name at fault."""
    with pytest.raises(UsageError, match=r"^line 1: ") as caught:
        edited(letter_line(letter()), **changes)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is no JSON"), (b"[]", "must be a JSON object"), (b"\xff", "is not UTF-8"),
        (b'{"a":NaN}', "NaN is no JSON"), (b"[" * 100_000, ""),
        (b'{"headers":' * 500 + b"1" + b"}" * 500, "nested too deep"),
    ],
)  # fmt: skip
def test_lines_that_are_no_letter_are_named(text: bytes, says: str) -> None:
    """By number."""
    with pytest.raises(UsageError, match=f"^line 9: .*{says}"):
        read_letter(text, 9)


def test_the_key_of_a_letter_is_the_same_at_every_look() -> None:
    """The id in the queue, or a digest that counts of deliveries do not change."""
    seen = [foreign({"a": Decimal("1.5"), "x-delivery-count": count}) for count in (1, 2)]

    assert letter_key(letter()) == "copy-1"
    assert letter_key(seen[0]) == letter_key(seen[1])
    assert letter_key(seen[0]) not in {letter_key(foreign({"a": 2})), letter_key(foreign({}, b"[]"))}
