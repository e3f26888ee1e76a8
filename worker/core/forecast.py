"""What a replay of one dead letter would do, judged by what the journal knows of its order.

A forecast made from the index may be wrong by the time it is carried out, so the replay makes it again from the message
itself; and the worker decides by the same versions once more. None of the three can make an order go backwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from worker.core.allowed import EVERY_ORDER, Allowed, not_allowed
from worker.core.deadletter import MOST_GROUPS, OTHERS
from worker.core.edits import NO_EDITS, Edits
from worker.core.fields import INT64_MIN
from worker.core.history import IndexedLetter
from worker.core.model import AckReason, Dead, Fields, Reason, Update, Version
from worker.core.terminal import STATUS, leaves
from worker.core.times import format_time
from worker.core.values import Values
from worker.core.versions import standing_of


class Kind(StrEnum):
    """What would come of it."""

    APPLY = "apply"
    """At least one of its values is newer than what is applied."""
    SUPERSEDED = "superseded"
    """For each of its fields the same or a later value is applied."""
    RETURNS = "returns"
    """It would be a dead letter again at once."""
    UNJUDGED = "unjudged"
    """The index does not know its fields: judged when its body is read."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Forecast:
    """``detail`` says why, for people; empty where it applies. ``duplicate``: it is superseded by itself, in part at
    least."""

    kind: Kind
    detail: str = ""
    duplicate: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class Grounds:
    """The rules that the worker will go by. Versions before ``horizon_us`` may have been forgotten by the journal;
    ``latest_us`` is the latest time that an event may say it happened. Orders that are not ``allowed`` are not sent."""

    terminal: frozenset[int]
    latest_us: int
    allow_terminal: bool = False
    horizon_us: int = INT64_MIN
    allowed: Allowed = EVERY_ORDER


_APPLIES: Final = Forecast(kind=Kind.APPLY)


def forecast_letter(
    letter: IndexedLetter, values: Values | None, grounds: Grounds, edits: Edits = NO_EDITS
) -> Forecast:
    """From the index alone. ``values``: what is applied of its order, None for an order without a row."""
    if letter.version is None or not letter.fields:
        if letter.reason == Reason.INVALID_EVENT and not edits:
            return Forecast(kind=Kind.RETURNS, detail=f"{Reason.INVALID_EVENT.value}: {letter.detail}")
        return Forecast(kind=Kind.UNJUDGED, detail="the index knows none of its fields; judged when its body is read")
    fields, version = {**letter.fields, **edits.fields}, edits.version(letter.version)
    if edits and version.time_us > grounds.latest_us:
        return Forecast(kind=Kind.RETURNS, detail=f"{Reason.INVALID_EVENT.value}: occurred_at is in the future")
    barred = None if letter.order_id is None else _barred(letter.order_id, grounds)
    return barred or _judged(fields, version, values, grounds)


def forecast_decoded(decoded: Update | Dead, values: Values | None, grounds: Grounds) -> Forecast:
    """From the message itself, decoded by today's rules."""
    if isinstance(decoded, Dead):
        return Forecast(kind=Kind.RETURNS, detail=f"{decoded.reason.value}: {decoded.detail}")
    return _barred(decoded.order_id, grounds) or _judged(decoded.fields, decoded.version, values, grounds)


def _barred(order_id: int, grounds: Grounds) -> Forecast | None:
    dead = not_allowed(order_id, grounds.allowed)
    return None if dead is None else Forecast(kind=Kind.RETURNS, detail=f"{dead.reason.value}: {dead.detail}")


def _judged(fields: Fields, version: Version, values: Values | None, grounds: Grounds) -> Forecast:
    if not values:
        return _APPLIES if version.time_us >= grounds.horizon_us else _too_old(version, grounds)
    reason = standing_of(fields, version, values)
    if reason is not None:
        duplicate = reason is AckReason.DUPLICATE
        return Forecast(kind=Kind.SUPERSEDED, detail=_by_what(fields, values, duplicate=duplicate), duplicate=duplicate)
    if not grounds.allow_terminal and (detail := _terminal(fields, version, values, grounds)):
        return Forecast(kind=Kind.RETURNS, detail=detail)
    return _APPLIES


def _too_old(version: Version, grounds: Grounds) -> Forecast:
    happened, horizon = format_time(version.time_us), format_time(grounds.horizon_us)
    why = f"it happened {happened}, and what was applied before {horizon} may be forgotten (JOURNAL_RETENTION_DAYS)"
    return Forecast(kind=Kind.RETURNS, detail=f"{Reason.TOO_OLD_TO_JUDGE.value}: {why}")


def _by_what(fields: Fields, values: Values, *, duplicate: bool) -> str:
    known = ", ".join(f"{name} is {_shown(values, name)}" for name in fields)
    return f"already applied: {known}" if duplicate else known


def _shown(values: Values, name: str) -> str:
    version, value = values[name]
    text = value if isinstance(value, str) else "null" if value is None else str(value)
    return f"{text[:60]} since {format_time(version.time_us)}"


def _terminal(fields: Fields, version: Version, values: Values, grounds: Grounds) -> str:
    """Why the order takes no other status any more; empty where it does."""
    if not leaves(fields, version, values, grounds.terminal):
        return ""
    return f"{Reason.TERMINAL_ORDER.value}: status is {_shown(values, STATUS)}, which an order does not leave"


@dataclass(slots=True, frozen=True, kw_only=True)
class Cell:
    """The letters of one reason that would meet the same end; ``example`` is the first detail among them."""

    reason: str
    kind: Kind
    count: int
    example: str


class Tallies:
    """Counts by reason and kind. Bounded: reasons are headers, and headers may say anything."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, Kind], Cell] = {}
        self._reasons: set[str] = set()

    def add(self, reason: str, forecast: Forecast) -> None:
        """Count one letter."""
        if reason not in self._reasons and len(self._reasons) >= MOST_GROUPS:
            reason = OTHERS
        self._reasons.add(reason)
        key = reason, forecast.kind
        found = self._cells.get(key) or Cell(reason=reason, kind=forecast.kind, count=0, example=forecast.detail)
        self._cells[key] = replace(found, count=found.count + 1)

    def cells(self) -> list[Cell]:
        """By reason, the most frequent reason first; within one in the order of ``Kind``."""
        totals: dict[str, int] = {}
        for cell in self._cells.values():
            totals[cell.reason] = totals.get(cell.reason, 0) + cell.count
        kinds = list(Kind)
        return sorted(
            self._cells.values(), key=lambda cell: (-totals[cell.reason], cell.reason, kinds.index(cell.kind))
        )

    @property
    def by_kind(self) -> Mapping[Kind, int]:
        """How many of each kind, all reasons together."""
        return {kind: sum(cell.count for cell in self._cells.values() if cell.kind is kind) for kind in Kind}

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_kind.values())
