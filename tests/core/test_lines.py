"""Lines of NDJSON: cut the same way however they arrive, checked like events, stamped without touching the rest."""

import json
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_US
from worker.core.decode import EventSchema
from worker.core.errors import UsageError
from worker.core.lines import MAX_LINE, Event, Line, LineRules, Splitter
from worker.core.times import format_time

SCHEMA = EventSchema({}, frozenset(), 300.0)
STRICT, FORCED = LineRules(SCHEMA), LineRules(SCHEMA, force=True)
STAMP = format_time(NOW_US)


def line(text: bytes) -> Line:
    """A line as the splitter makes it."""
    return Line(number=1, text=text, checksum=zlib.crc32(text))


def prepared(text: bytes, rules: LineRules = STRICT) -> Event:
    """The event of a line that is one."""
    event = rules.prepare(line(text), stamp_us=NOW_US, now_us=NOW_US)
    assert isinstance(event, Event), event
    return event


def problem(text: bytes) -> str:
    """What is wrong with a line that is none."""
    found = STRICT.prepare(line(text), stamp_us=NOW_US, now_us=NOW_US)
    assert isinstance(found, str)
    return found


@given(text=st.binary(max_size=60).map(lambda raw: raw.replace(b"x", b"\n")), cuts=st.lists(st.integers(0, 60)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: bytes, cuts: list[int]) -> None:
    """Chunk borders fall anywhere, also between the two bytes of a line end."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    splitter, whole = Splitter(), Splitter()

    pieces = [found for a, b in pairwise(places) for found in splitter.feed(text[a:b])]

    assert [*pieces, *splitter.end()] == [*whole.feed(text), *whole.end()]


def test_blank_lines_count_and_line_ends_of_both_kinds_go() -> None:
    """Numbers are those that an editor shows."""
    splitter = Splitter()
    lines = [*splitter.feed(b'{"a":1}\r\n\n {"b":2}\n'), *splitter.feed(b"last"), *splitter.end()]

    assert [(each.number, each.text) for each in lines] == [
        (1, b'{"a":1}'), (2, b""), (3, b' {"b":2}'), (4, b"last"),
    ]  # fmt: skip
    assert [each.is_blank for each in lines] == [False, True, False, False]


def test_a_checksum_covers_all_lines_up_to_it() -> None:
    """An edit anywhere before shows, and so does a line that moved."""
    sums = [Splitter().feed(text)[-1].checksum for text in (b"a\nb\n", b"x\nb\n", b"\na\nb\n", b"ab\nb\n")]

    assert len(set(sums)) == 4


def test_a_line_without_end_is_refused_with_its_number() -> None:
    """A file that is no NDJSON must not fill the memory."""
    splitter = Splitter()
    splitter.feed(b"{}\n")

    with pytest.raises(UsageError, match="line 2: longer than"):
        splitter.feed(b"x" * (MAX_LINE + 1))


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b'{"id":1,"status":4}', f'{{"occurred_at":"{STAMP}","id":1,"status":4}}'),
        (b' { "id" : 1, "status":4 } ', f' {{"occurred_at":"{STAMP}", "id" : 1, "status":4 }} '),
        (b'{"id":1,"status":4,"occurred_at":"2026-01-01T00:00:00Z"}', None),
        (b'{"id":1,"status":4,"occurred\\u005fat":"2026-01-01T00:00:00Z"}', None),
    ],
)
def test_only_a_missing_time_is_added(text: bytes, body: str | None) -> None:
    """The bytes of the producer stay; a time of its own stays too, however its name is written."""
    assert prepared(text).body == (text if body is None else body.encode())


@pytest.mark.parametrize(
    "text", [b"{}", b"{ }", b'{"occurred_at":null}', b"not json", b"[1]", b"\xff\xfe", b'{"a":NaN}']
)
def test_forced_lines_go_as_they_are(text: bytes) -> None:
    """Whoever tests with bad events gets exactly these; objects without a time are stamped."""
    body = prepared(text, FORCED).body

    if text in (b"{}", b"{ }"):
        assert json.loads(body) == {"occurred_at": STAMP}
    else:
        assert body == text


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans())))
def test_a_stamp_changes_nothing_else(content: dict[str, object]) -> None:
    """Any object is the same object with one member more."""
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False, indent=1)):
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            continue
        body = prepared(raw, FORCED).body
        if body != raw:
            assert json.loads(body) == {"occurred_at": STAMP} | content


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"id":46140199}', "46140199"), (b'{"id":"a-7"}', "a-7"), (b'{"id":true}', ""), (b'{"id":"\xc3\xa9"}', ""),
        (b'{"id":1.5}', ""), (b'{"id":%d}' % 2**63, str(2**63)), (b"[]", ""), (b'{"id":"' + b"x" * 256 + b'"}', ""),
    ],
)  # fmt: skip
def test_the_routing_key_is_the_order_id(text: bytes, key: str) -> None:
    """What is no order id gets no key: the work queue takes every key."""
    assert prepared(text, FORCED).routing_key == key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON"), (b"[]", "expected a JSON object"), (b'{"status":4}', "id: missing"),
        (b'{"id":1}', "nothing to change"), (b'{"id":1,"weight":2}', "unknown field"), (b"\xff", "UTF-8"),
        (b'{"id":1,"status":4,"occurred_at":"2099-01-01T00:00:00Z"}', "in the future"),
        (b'{"id":1,"shipping_method":"' + b"x" * 65_000 + b'","event_id":"' + b"y" * 600 + b'"}', "bytes, at most"),
    ],
)  # fmt: skip
def test_a_bad_line_says_what_is_wrong(text: bytes, words: str) -> None:
    """The same words as in a dead letter, before anything is sent."""
    assert words in problem(text)
