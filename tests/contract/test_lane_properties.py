"""Properties read from the bytes of a header frame: what the library would make of them, and never an exception."""

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import asdict
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.adapters.amqp import lenient
from worker.adapters.amqp.deliveries import known_properties, of_cuts
from worker.adapters.amqp.laneproperties import UNDECODED, Undecoded, properties_of, reader
from worker.core.decode import EventSchema
from worker.core.headers import dead_copy
from worker.core.model import Dead, Properties, Reason, Settlement

NAMES = [name for name in Basic.Properties.__slots__ if name != "cluster_id"]
FLAG = Basic.Properties.flags
SCHEMA = EventSchema({}, ())

short = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
times = st.datetimes(datetime(1970, 1, 2), datetime(2105, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
headers = st.dictionaries(
    short, st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), short), max_size=4
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(NAMES, short),
    "headers": headers,
    "delivery_mode": st.sampled_from((1, 2)),
    "priority": st.integers(0, 255),
    "timestamp": times,
}
given_properties = st.fixed_dictionaries({}, optional=VALUES).map(lambda values: Basic.Properties(**values))


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """The library decodes with our decoders, as it does in the worker."""
    assert lenient.install()


def by_the_library(raw: bytes) -> Properties:
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + raw)
    return known_properties(header.properties)


@given(given_properties)
def test_what_is_sent_is_read_as_the_library_reads_it(sent: Basic.Properties) -> None:
    """Every combination of properties."""
    raw = sent.marshal()
    read = properties_of(raw)

    assert isinstance(read, Properties)
    assert asdict(read) == asdict(by_the_library(raw))


@given(st.binary(max_size=60) | st.builds(lambda rest: b"\x90\xc0" + rest, st.binary(max_size=40)))
def test_any_bytes_are_read_as_the_library_reads_them_or_told(raw: bytes) -> None:
    """Never an exception. Where the library is content, so are we, unless the bytes end within a property."""
    read = properties_of(raw)

    if isinstance(read, Undecoded):
        assert "cannot be read" in read.detail
        assert isinstance(read.properties.headers[UNDECODED], bytes)
    else:
        assert asdict(read) == asdict(by_the_library(raw))


def test_text_that_is_no_utf8_keeps_its_bytes() -> None:
    """As on the ordinary lane: it is shown, and not sent again."""
    raw = struct.pack(">H", FLAG["content_type"] | FLAG["message_id"]) + b"\x02\xe9x\x02y\xe9"
    read = properties_of(raw)

    assert isinstance(read, Properties)
    assert (read.content_type, read.message_id) == ("\udce9x", "y\udce9")


USUAL = Basic.Properties(content_type="application/json", delivery_mode=2, message_id="m-1")
pieces = st.tuples(given_properties | st.just(USUAL), st.integers(0, 40))


@given(st.lists(pieces, max_size=6))
@example([(USUAL, 0), (USUAL, 4)])
def test_what_comes_together_is_read_as_what_comes_alone(sent: list[tuple[Basic.Properties, int]]) -> None:
    """Whatever was read before, of this producer or another; messages that are cut off anywhere among them."""
    wholes = [(each.marshal(), cut) for each, cut in sent]
    raws = [raw for whole, cut in wholes for raw in (whole, whole, whole[: len(whole) - cut] if cut else whole)]
    read = reader()

    assert [told(read(raw)) for raw in raws] == [told(properties_of(raw)) for raw in raws]


def told(read: Properties | Undecoded) -> tuple[Any, ...]:
    return (asdict(read.properties), read.detail) if isinstance(read, Undecoded) else (asdict(read),)


def test_a_second_word_of_flags_is_skipped() -> None:
    """AMQP has none of the properties that it could name."""
    raw = struct.pack(">HH", FLAG["message_id"] | 1, 0) + b"\x01m"
    read = properties_of(raw)

    assert isinstance(read, Properties)
    assert read.message_id == "m"


BROKEN = {
    "content_type": struct.pack(">H", FLAG["content_type"]) + b"\x09appli",
    "headers": struct.pack(">H", FLAG["headers"]) + struct.pack(">I", 3) + b"\x01n?",
    "delivery_mode": struct.pack(">H", FLAG["delivery_mode"]),
    "timestamp": struct.pack(">H", FLAG["timestamp"]) + b"\x00",
    "message_id": struct.pack(">H", FLAG["delivery_mode"] | FLAG["message_id"]) + b"\x02",
    "flags": b"\x80",
}


@pytest.mark.parametrize(("name", "raw"), BROKEN.items(), ids=BROKEN)
def test_a_property_that_cannot_be_read_is_a_dead_letter_that_shows_it(name: str, raw: bytes) -> None:
    """It names the property, keeps the body and what was read before, and shows the bytes that were left."""
    (delivery,) = of_cuts([(1, 0, b"x", b"k", raw, b'{"id": 7, "status": 4}')], generation=1, arrived_us=2, opened_us=1)
    dead = SCHEMA.decode(delivery)

    assert isinstance(dead, Dead)
    assert dead.reason is Reason.INVALID_EVENT
    assert f"property {name} cannot be read" in dead.detail
    copy = dead_copy(Settlement(delivery=delivery, disposition=dead), now_us=3, worker="test")
    shown = json.loads(copy.properties.headers["ow-original"])
    assert set(shown[f"headers.{UNDECODED}"]) == {"base64"}
    assert copy.body == delivery.body


def test_a_timestamp_that_is_missing_behind_an_id_is_told() -> None:
    """Whether or not the message before it had none either, as its flags say."""
    bare = USUAL.marshal()
    announced = bare[:1] + b"\xc0" + bare[2:]
    read = reader()

    for raw in (announced, bare, announced, announced):
        found = read(raw)
        assert isinstance(found, Undecoded) is (raw is announced)
        assert raw is bare or "property timestamp cannot be read" in str(found)


def test_the_frame_of_a_delivery_is_told_in_full() -> None:
    """Exchange, routing key, both times; how often it came back is believed only of one that did."""
    count = Basic.Properties(headers={"x-delivery-count": 3}).marshal()
    first, again, other = of_cuts(
        [(1, 0, b"x", b"k", count, b"1"), (2, 1, b"x", b"\xe9", count, b"2"), (3, 1, b"y", b"", b"\x00\x00", b"")],
        generation=9,
        arrived_us=2,
        opened_us=1,
    )

    assert (first.redelivered, first.returns, again.redelivered, again.returns, other.returns) == (False, 0, True, 3, 0)
    assert [(each.exchange, each.routing_key) for each in (first, again, other)] == [
        ("x", "k"),
        ("x", "\udce9"),
        ("y", ""),
    ]
    assert [(each.generation, each.tag, each.body) for each in (first, again, other)] == [
        (9, 1, b"1"),
        (9, 2, b"2"),
        (9, 3, b""),
    ]
    assert (first.arrived_us, first.opened_us) == (2, 1)
