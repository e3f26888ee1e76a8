"""How the core's values stand in columns, and back.

JSON texts give everything back exactly, whatever is in a message id or a value. Plain text columns are for looking
things up and for people: what PostgreSQL refuses (NUL, lone surrogates) is written as an escape there.

msgspec is five times as quick as the standard library, and a row has several of these texts; what it cannot do (lone
surrogates, integers beyond 64 bits) is left to the other.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import msgspec
from sqlalchemy import RowMapping

from worker.core.history import DAY_US, HistoryRow, IndexedLetter, LetterState
from worker.core.model import Scalar, Version
from worker.core.values import Stamped, Values, together

HISTORY_TYPES: Final = {
    "order_id": "bigint",
    "at_us": "bigint",
    "disposition": "text",
    "reason": "text",
    "message_id": "text",
    "event_id": "text",
    "fields": "text",
    "version": "text",
    "attempt": "integer",
    "detail": "text",
    "batch_id": "text",
    "replay_id": "text",
    "replay_place": "bigint",
    "worker": "text",
    "status": "bigint",
    "status_name": "text",
}
"""The columns of the history that we fill, with PostgreSQL's types."""
LETTER_COLUMNS: Final = (
    *("copy_id", "queue", "state", "state_us", "reason", "detail", "order_id", "message_id", "event_id", "fields"),
    *("version", "failed_us", "attempt", "exchange", "routing_key", "batch_id", "replay_id", "worker"),
)
_LETTER: Final = tuple(each.name for each in fields(IndexedLetter))
_HISTORY: Final = tuple(HistoryRow.__struct_fields__)
_encode = msgspec.json.Encoder().encode
_decode_values = msgspec.json.Decoder(dict[str, tuple[Version, Scalar]]).decode
_decode_event = msgspec.json.Decoder(tuple[Version, dict[str, Scalar]]).decode
_decode_version = msgspec.json.Decoder(Version).decode


def dump_json(value: object) -> str:
    """Any JSON value."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(value, separators=(",", ":"), default=msgspec.structs.astuple)  # ASCII


def load_json(text: str) -> Any:
    """And back."""
    return json.loads(text)


def dump_values(values: Values) -> str:
    """``{"status": [[time_us, sequence, first_seen_us, message_id], value]}``; where all have one version, as what a
    single event applied, ``[version, {"status": value}]``."""
    stamped = together(values)
    return dump_json(values) if stamped is None else dump_json((stamped.version, stamped.fields))


def load_values(text: str) -> Values:
    """The values of a row, exactly as they were."""
    try:
        if text.startswith("{"):
            return _decode_values(text)
        version, fields = _decode_event(text)
    except msgspec.DecodeError:
        return _load_values(json.loads(text))
    return Stamped(version, fields)


def _load_values(found: Any) -> Values:
    if isinstance(found, dict):
        return {name: (Version(*version), value) for name, (version, value) in found.items()}
    return Stamped(Version(*found[0]), found[1])


def load_version(text: str | None) -> Version | None:
    """The version of a row, exactly as it was."""
    if text is None:
        return None
    try:
        return _decode_version(text)
    except msgspec.DecodeError:
        return Version(*json.loads(text))


def newest_us(values: Values) -> int | None:
    """The greatest time among the versions."""
    if isinstance(values, Stamped):
        return values.version.time_us
    newest: int | None = None
    for version, _ in values.values():
        if newest is None or version.time_us > newest:
            newest = version.time_us
    return newest


def end_of_day(wall_us: int) -> int:
    """When the day of this time ends (UTC): what changes once a day costs its index nothing on the other times."""
    return (wall_us // DAY_US + 1) * DAY_US


def storable(text: str) -> str:
    r"""The text as any database takes it: lone surrogates and NUL become ``\udcff`` and ``\x00``."""
    if text.isascii() and "\x00" not in text:
        return text
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\x00", "\\x00")


def history_columns(row: HistoryRow) -> tuple[object, ...]:
    """A history row in the order of ``HISTORY_TYPES``. Texts that are ours alone need no look."""
    return (
        row.order_id,
        row.at_us,
        row.disposition,
        row.reason,
        storable(row.message_id),
        _storable(row.event_id),
        dump_json(row.fields),
        None if row.version is None else dump_json(row.version),
        row.attempt,
        storable(row.detail),
        row.batch_id,
        _storable(row.replay_id),
        row.replay_place,
        row.worker,
        row.status,
        _storable(row.status_name),
    )


def letter_columns(letter: IndexedLetter) -> tuple[object, ...]:
    """A letter in the order of ``LETTER_COLUMNS``; others than we write letters too, so every text is looked at."""
    plain: Mapping[str, object] = {
        "fields": dump_json(letter.fields),
        "version": None if letter.version is None else dump_json(letter.version),
        "state": letter.state.value,
    }
    values = (plain[name] if name in plain else getattr(letter, name) for name in LETTER_COLUMNS)
    return tuple(storable(value) if isinstance(value, str) else value for value in values)


def history_of(row: RowMapping) -> HistoryRow:
    """A history row as it was recorded."""
    return HistoryRow(**{name: row[name] for name in _HISTORY} | _parsed(row))


def letter_of(row: RowMapping) -> IndexedLetter:
    """A letter as it was indexed, with its number."""
    return IndexedLetter(**{name: row[name] for name in _LETTER} | _parsed(row) | {"state": LetterState(row["state"])})


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _parsed(row: RowMapping) -> dict[str, Any]:
    return {"fields": json.loads(row["fields"]), "version": load_version(row["version"])}
