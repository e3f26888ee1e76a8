"""What an event may hold: names, kinds and bounds. Decoding, refusals and the published schema read this one table."""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

from worker.core.errors import UsageError

MAX_BODY_BYTES: Final = 64 * 1024
"""Larger bodies are refused: an update of one order is a few hundred bytes."""
MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects, well below what the JSON decoder can do before it runs out of stack."""
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Kind(StrEnum):
    """What values a field takes. JSON ``null`` is a value of every kind: it is sent on."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"
    NAME = "name"
    """A string that is not empty."""


KNOWN_FIELDS: Final[Mapping[str, Kind]] = {
    "status": Kind.INTEGER,
    "shipping_carrier": Kind.NAME,
    "shipping_method": Kind.NAME,
}
NOTES: Final = frozenset({"event_id", "source"})
"""Kept for people, never sent, of any type."""
RESERVED: Final = frozenset({"id", "occurred_at", "sequence"}) | NOTES

_EXTRA_KINDS: Final = (Kind.STRING, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN)
# Extra fields become names in a GraphQL document; section 2.1.9 of its specification says what a name is.
_GRAPHQL_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


def changeable_fields(extra: Mapping[str, str]) -> dict[str, Kind]:
    """The known fields and the extra ones with their kinds. Raises UsageError with every problem of EXTRA_FIELDS."""
    _raise_all("EXTRA_FIELDS", (_extra_problem(name, kind) for name, kind in extra.items()))
    return {**KNOWN_FIELDS, **{name: Kind(kind) for name, kind in extra.items()}}


def ignored_fields(ignore: Collection[str], changes: Mapping[str, Kind]) -> frozenset[str]:
    """The fields that are kept for people, the two standing ones included. Raises UsageError naming IGNORE_FIELDS."""
    _raise_all("IGNORE_FIELDS", (_ignore_problem(name, changes) for name in ignore))
    return NOTES | frozenset(ignore)


def _raise_all(setting: str, problems: Iterable[str | None]) -> None:
    found = [problem for problem in problems if problem is not None]
    if found:
        raise UsageError(f"{setting}: " + "; ".join(found))


def _extra_problem(name: str, kind: str) -> str | None:
    if name in KNOWN_FIELDS:
        return f"{name!r} is sent anyway; leave it out"
    if name in RESERVED:
        return f"{name!r} is not a field of the order"
    if _GRAPHQL_NAME.fullmatch(name) is None or name.startswith("__"):
        return f"{name!r} is not a GraphQL field name"
    if kind not in _EXTRA_KINDS:
        return f"{name!r} has the type {kind!r}; use one of {', '.join(_EXTRA_KINDS)}"
    return None


def _ignore_problem(name: str, changes: Mapping[str, Kind]) -> str | None:
    if name in changes or name in RESERVED - NOTES:
        return f"{name!r} is used by the worker and cannot be ignored"
    # The JSON decoder compares raw keys, so it takes no names that would be escaped in JSON.
    if not name or not name.isprintable() or '"' in name or "\\" in name:
        return f"{name!r} is empty or has quotes, backslashes or control characters"
    return None
