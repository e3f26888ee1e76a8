"""The decoders that replace the library's: no message breaks a connection, and what it could read reads the same."""

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode
from pamqp.commands import Basic
from pamqp.common import FieldValue
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader
from structlog.testing import capture_logs

from worker.adapters.amqp import lenient

STOCK_METHODS, STOCK_TYPES = dict(decode.METHODS), dict(decode.TABLE_MAPPING)
STOCK: dict[str, Callable[..., tuple[int, FieldValue]]] = {
    "shortstr": decode.short_str,
    "timestamp": decode.timestamp,
    "table": decode.field_table,
    "array": decode.field_array,
}
MICROSECONDS = 1_795_255_200_000_000

texts = st.text(max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | texts
    | st.datetimes(datetime(1970, 1, 2), datetime(2105, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC)),  # noqa: DTZ001 - hypothesis wants naive bounds
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """The decoder tables as the library made them; afterwards they are as this process had them."""
    before = dict(decode.METHODS), dict(decode.TABLE_MAPPING)
    decode.METHODS.update({**STOCK_METHODS, **STOCK})
    types = {b"T": STOCK["timestamp"], b"F": STOCK["table"], b"A": STOCK["array"]}
    decode.TABLE_MAPPING.update({**STOCK_TYPES, **types})
    yield
    decode.METHODS.update(before[0])
    decode.TABLE_MAPPING.update(before[1])


def read(flag: int, payload: bytes) -> Basic.Properties:
    """The properties of a header frame with one property."""
    content = struct.pack(">HxxQH", Basic.frame_id, 0, flag) + payload
    _, _, frame = unmarshal(struct.pack(">BHI", 2, 1, len(content)) + content + b"\xce")
    assert isinstance(frame, ContentHeader)
    return frame.properties


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(*entries: bytes) -> bytes:
    return struct.pack(">I", len(b"".join(entries))) + b"".join(entries)


def nested(levels: int, kind: bytes) -> bytes:
    """Arrays in arrays, or tables in tables."""
    name = short(b"n") if kind == b"F" else b""
    value = kind + table()
    for _ in range(levels - 1):
        value = kind + table(name + value)
    return value


@pytest.mark.parametrize("name", ["content_type", "content_encoding", "correlation_id", "message_id", "app_id"])
def test_a_property_that_is_no_utf8_keeps_its_bytes(name: str) -> None:
    """They can be told from the text, and nothing is lost."""
    lenient.install()
    value = getattr(read(Basic.Properties.flags[name], short(b"caf\xe9")), name)

    assert value.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_header_name_that_is_no_utf8_is_kept_in_any_depth() -> None:
    """At the top, in a table and in an array of tables."""
    lenient.install()
    entry = short(b"\xe9") + b"t\x01"
    headers = read(
        Basic.Properties.flags["headers"],
        table(entry, short(b"t") + b"F" + table(entry), short(b"a") + b"A" + table(b"F" + table(entry))),
    ).headers

    assert headers == {"\udce9": True, "t": {"\udce9": True}, "a": [{"\udce9": True}]}


@pytest.mark.parametrize("number", [MICROSECONDS, 2**64 - 1, 2**63, 253_402_300_800_000])
def test_a_time_that_is_none_arrives_as_its_number(number: int) -> None:
    """As the property, and in a header."""
    lenient.install()
    raw = struct.pack(">Q", number)

    assert read(Basic.Properties.flags["timestamp"], raw).timestamp == number
    headers = read(Basic.Properties.flags["headers"], table(short(b"at") + b"T" + raw)).headers
    assert headers == {"at": number}


@pytest.mark.parametrize("kind", [b"A", b"F"])
@pytest.mark.parametrize("levels", [2, 15, 16, 5_000])
def test_nesting_of_any_depth_is_read(kind: bytes, levels: int) -> None:
    """What lies too deep stays bytes: the library's own decoder would run out of stack."""
    lenient.install()
    headers = read(Basic.Properties.flags["headers"], table(short(b"deep") + nested(levels, kind))).headers
    assert headers is not None
    value, depth = headers["deep"], 0
    while isinstance(value, list | dict) and value:
        value, depth = (value[0] if isinstance(value, list) else value["n"]), depth + 1

    assert depth == min(levels - 1, lenient.DEEPEST - 1)
    assert isinstance(value, bytes) == (levels > lenient.DEEPEST - 1)


@pytest.mark.parametrize(
    "broken", [b"", b"\x00\x00", struct.pack(">I", 9), table(short(b"n")), table(b"\x05n"), table(short(b"n") + b"?")]
)
def test_what_is_no_table_at_all_is_refused(broken: bytes) -> None:
    """No broker sends this; it is a fault of the connection."""
    with pytest.raises(ValueError, match=r"."):
        lenient.field_table(broken)


@given(st.dictionaries(texts, values, max_size=5))
def test_what_the_library_reads_reads_the_same(headers: dict[str, Any]) -> None:
    """Same value, same number of bytes."""
    raw = encode.field_table(headers)

    assert lenient.field_table(raw + b"more") == decode.field_table(raw + b"more")


@given(st.binary(max_size=64))
def test_bytes_are_read_or_refused_with_a_value_error(raw: bytes) -> None:
    """Nothing else is turned into a frame error by the library."""
    for decoder in (lenient.short_str, lenient.timestamp, lenient.field_table, lenient.field_array):
        try:
            consumed, _ = decoder(raw)
        except ValueError:
            continue
        assert consumed > 0


def test_installing_twice_is_harmless() -> None:
    """The second time there is nothing to do."""
    assert lenient.install()
    assert lenient.install()
    assert decode.METHODS["shortstr"] is lenient.short_str


def test_another_version_is_left_alone_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may decode elsewhere, or well."""
    monkeypatch.setattr(lenient, "version", lambda _: "5.0.0")
    with capture_logs() as logs:
        assert not lenient.install()

    assert [(line["event"], line["version"]) for line in logs] == [("broker.decoder_unknown", "5.0.0")]
    assert decode.METHODS["shortstr"] is decode.short_str


def test_another_shape_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else replaced a decoder, or the tables are not what they were."""
    monkeypatch.delitem(decode.TABLE_MAPPING, b"T")
    with capture_logs() as logs:
        assert not lenient.install()

    assert logs[0]["event"] == "broker.decoder_unknown"
    assert decode.METHODS["shortstr"] is decode.short_str
