"""Changes that a person makes to dead letters while they are replayed: ``--set status=8``.

Only what an event may change can be set, and when it happened. The edited body has to be an event again by the rules of
today (``decode.py``), which whoever applies the edits has to check before anything moves.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from worker.core.errors import UsageError
from worker.core.fields import Kind
from worker.core.model import Fields, Scalar, Version
from worker.core.times import parse_time

OCCURRED_AT: Final = "occurred_at"
SEQUENCE: Final = "sequence"
_TEXTS: Final = frozenset({Kind.STRING, Kind.NAME})
_TYPES: Final[Mapping[Kind, tuple[type, ...]]] = {
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
}
_WANTED: Final[Mapping[Kind, str]] = {
    Kind.INTEGER: "an integer or null, like 8",
    Kind.NUMBER: "a number or null, like 1.5",
    Kind.BOOLEAN: "true, false or null",
}


@dataclass(slots=True, frozen=True)
class Edits:
    """What to change, by the name of the field in the event. False where nothing is."""

    changes: Mapping[str, Scalar] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def fields(self) -> Fields:
        """The fields of the order among them."""
        return {name: value for name, value in self.changes.items() if name not in {OCCURRED_AT, SEQUENCE}}

    def version(self, before: Version) -> Version:
        """The version of the edited event."""
        occurred, sequence = self.changes.get(OCCURRED_AT), self.changes.get(SEQUENCE)
        time_us = parse_time(occurred) if isinstance(occurred, str) else None
        return replace(
            before,
            time_us=before.time_us if time_us is None else time_us,
            sequence=sequence if isinstance(sequence, int) else before.sequence,
        )


NO_EDITS: Final = Edits()


def parse_edits(texts: Iterable[str], changes: Mapping[str, Kind]) -> Edits:
    """From ``name=value``; ``changes`` are the fields that events may change.

    ``null`` is null for all of them; other values are JSON for numbers and truth values, and taken as they are for
    texts. Raises UsageError with every problem.
    """
    found: dict[str, Scalar] = {}
    problems: list[str] = []
    for text in texts:
        name, given, value = text.partition("=")
        parsed = _parsed(name, value, changes) if given else _Problem(f"{text!r} is not name=value")
        if isinstance(parsed, _Problem):
            problems.append(parsed)
        elif name in found:
            problems.append(f"{name} is set twice")
        else:
            found[name] = parsed
    if problems:
        raise UsageError("--set: " + "; ".join(problems))
    return Edits(found)


def edited(body: bytes, edits: Edits, *, cloud: bool) -> bytes | str:
    """The body with these changes, or why that cannot be done. ``cloud``: the event is the ``data`` of a CloudEvent."""
    try:
        whole = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return "the body is not JSON, so nothing can be set in it"
    event: Any = whole.get("data") if cloud and isinstance(whole, dict) else whole
    if not isinstance(event, dict):
        return f"{'data' if cloud else 'the body'} is not a JSON object, so nothing can be set in it"
    event.update(edits.changes)
    try:
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can only escape
        return json.dumps(whole, separators=(",", ":")).encode()


class _Problem(str):
    """What is wrong with one text."""


def _parsed(name: str, value: str, changes: Mapping[str, Kind]) -> Scalar | _Problem:
    if name == "id":
        return _Problem("id cannot be set, it says which order this is; publish another event instead")
    if name == OCCURRED_AT:
        right = parse_time(value) is not None
        return value if right else _Problem(f"{name} takes a time like 2026-11-21T10:00:00.123Z, not {value!r}")
    kind = Kind.INTEGER if name == SEQUENCE else changes.get(name)
    if kind is None:
        known = ", ".join((*changes, OCCURRED_AT, SEQUENCE))
        return _Problem(f"{name!r} is no field that can be set; these are: {known} (EXTRA_FIELDS has more)")
    if value == "null" and name != SEQUENCE:
        return None
    return value if kind in _TEXTS else _typed(name, value, kind)


def _typed(name: str, value: str, kind: Kind) -> Scalar | _Problem:
    problem = _Problem(f"{name} takes {_WANTED[kind]}, not {value!r}")
    try:
        found: Any = json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return problem
    right = isinstance(found, _TYPES[kind]) and isinstance(found, bool) == (kind is Kind.BOOLEAN)
    return found if right else problem


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
