"""Lines of NDJSON made fit for publishing: cut out of a stream of bytes, checked as events, stamped.

A line stays byte for byte as it was, but for the ``occurred_at`` that is put at the beginning of an object that has
none. The order of the members means nothing in JSON, and the rest need not be written anew.
"""

import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from worker.core.decode import EventSchema
from worker.core.errors import UsageError
from worker.core.model import Dead, Delivery, Properties
from worker.core.original import MAX_SHORT
from worker.core.times import format_time

CONTENT_TYPE: Final = "application/json"
MAX_LINE: Final = 1024 * 1024
"""Longest line in bytes: far more than an event may have, so that too large ones can still be injected on purpose."""
_BLANKS: Final = b" \t\r\n"
_MOST_ID_BITS: Final = 256


@dataclass(slots=True, frozen=True, kw_only=True)
class Line:
    """A line without its end. ``number`` counts from 1, blank lines too; ``checksum`` covers all lines up to it."""

    number: int
    text: bytes
    checksum: int

    @property
    def is_blank(self) -> bool:
        """Nothing to publish."""
        return not self.text.strip(_BLANKS)


class Splitter:
    """Cuts chunks of bytes into lines. Holds at most one line and one chunk."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0
        self._checksum = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk. Raises UsageError for a line longer than ``MAX_LINE``."""
        *texts, self._rest = (self._rest + chunk).split(b"\n")
        lines = [self._line(text) for text in texts]
        self._check_length(len(self._rest), self._number + 1)
        return lines

    def end(self) -> list[Line]:
        """The last line, if the input does not end with a line end."""
        rest, self._rest = self._rest, b""
        return [self._line(rest)] if rest else []

    def _line(self, text: bytes) -> Line:
        self._number += 1
        self._check_length(len(text), self._number)
        self._checksum = zlib.crc32(text, zlib.crc32(b"\n", self._checksum))
        return Line(number=self._number, text=text.removesuffix(b"\r"), checksum=self._checksum)

    def _check_length(self, length: int, number: int) -> None:
        if length > MAX_LINE:
            raise UsageError(f"line {number}: longer than {MAX_LINE} bytes; is this NDJSON, one event per line?")


@dataclass(slots=True, frozen=True, kw_only=True)
class Event:
    """A line ready to be published."""

    line: Line
    body: bytes
    routing_key: str
    stamp_us: int


class LineRules:
    """What a line has to be. With ``force`` anything goes: operators must be able to inject bad events."""

    def __init__(self, schema: EventSchema, *, force: bool = False) -> None:
        self._schema = schema
        self._force = force
        self._decode = msgspec.json.Decoder().decode

    def prepare(self, line: Line, *, stamp_us: int, now_us: int) -> Event | str:
        """The event of this line, stamped with ``stamp_us`` if it has no time of its own; or what is wrong with it."""
        content = self._object(line.text)
        stamped = content is not None and "occurred_at" not in content
        body = _with_stamp(line.text, format_time(stamp_us)) if stamped else line.text
        if not self._force and (problem := self._problem(body, now_us)) is not None:
            return problem
        key = _routing_key(content.get("id")) if content is not None else ""
        return Event(line=line, body=body, routing_key=key, stamp_us=stamp_us)

    def _object(self, text: bytes) -> dict[str, Any] | None:
        try:
            found = self._decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _problem(self, body: bytes, now_us: int) -> str | None:
        delivery = Delivery(
            generation=0, tag=0, body=body, properties=Properties(content_type=CONTENT_TYPE), arrived_us=now_us
        )
        found = self._schema.decode(delivery)
        return found.detail if isinstance(found, Dead) else None


def _with_stamp(text: bytes, stamp: str) -> bytes:
    start = text.index(b"{") + 1
    comma = b"" if text[start:].lstrip(_BLANKS).startswith(b"}") else b","
    return b'%b"occurred_at":"%b"%b%b' % (text[:start], stamp.encode(), comma, text[start:])


def _routing_key(order_id: object) -> str:
    """The order id; empty for what is none (such events go nowhere else: the work queue is bound with ``#``)."""
    if isinstance(order_id, int) and not isinstance(order_id, bool) and order_id.bit_length() <= _MOST_ID_BITS:
        return str(order_id)
    return order_id if isinstance(order_id, str) and order_id.isascii() and len(order_id) <= MAX_SHORT else ""
