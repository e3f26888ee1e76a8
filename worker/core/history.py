"""What the journal keeps for people: what became of each event, the index of dead letters, pauses and replays.

Personal data: these rows hold what the event has, and of the platform's replies nothing but status and status name.
All times are wall clock, microseconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from worker.core.model import Fields, Scalar, Version
from worker.core.times import format_time


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was done with one delivery, and why. ``order_id`` and ``version`` are None where it could not be decoded.

    ``at_us`` is when it was decided. ``replay_place`` is its place in the plan of that replay. ``status`` and
    ``status_name`` are what the platform said, if it did.
    """

    at_us: int
    disposition: str
    reason: str
    order_id: int | None = None
    message_id: str = ""
    event_id: str | None = None
    fields: Fields = msgspec.field(default_factory=dict)
    version: Version | None = None
    attempt: int = 1
    detail: str = ""
    batch_id: str = ""
    replay_id: str | None = None
    replay_place: int | None = None
    worker: str = ""
    status: int | None = None
    status_name: str | None = None


class LetterState(StrEnum):
    """Where a dead letter is."""

    DEAD = "dead"
    """In the dead-letter queue."""
    REPLAYED = "replayed"
    """A copy went back to work."""
    REMOVED = "removed"
    """Taken out: discarded, superseded, or moved by another program."""


@dataclass(slots=True, frozen=True, kw_only=True)
class IndexedLetter:
    """One dead letter as the index knows it. ``copy_id`` is the message id of the copy in ``queue``, and the key.

    ``message_id``, ``exchange`` and ``routing_key`` are the producer's. ``seq`` is the place in the index, given by the
    journal: pages come in this order.
    """

    copy_id: str
    queue: str
    reason: str
    failed_us: int
    order_id: int | None = None
    message_id: str = ""
    event_id: str | None = None
    detail: str = ""
    fields: Fields = field(default_factory=dict)
    version: Version | None = None
    attempt: int = 1
    exchange: str = ""
    routing_key: str = ""
    batch_id: str = ""
    replay_id: str | None = None
    worker: str = ""
    state: LetterState = LetterState.DEAD
    state_us: int | None = None
    seq: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class Sought:
    """Which letters of ``queue`` are meant; what is None or empty does not matter. ``until_us`` is excluded.

    A message id may be the producer's or that of the copy. At most 1,000 orders and message ids.
    """

    queue: str
    reason: str | None = None
    detail: str | None = None
    order_ids: tuple[int, ...] = ()
    message_ids: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    state: LetterState = LetterState.DEAD

    def matches(self, letter: IndexedLetter) -> bool:
        """Whether this letter is meant."""
        return (
            (letter.queue, letter.state) == (self.queue, self.state)
            and (self.reason is None or letter.reason == self.reason)
            and (self.detail is None or letter.detail == self.detail)
            and (not self.order_ids or letter.order_id in self.order_ids)
            and (not self.message_ids or not {letter.message_id, letter.copy_id}.isdisjoint(self.message_ids))
            and (self.since_us is None or letter.failed_us >= self.since_us)
            and (self.until_us is None or letter.failed_us < self.until_us)
        )


class GroupBy(StrEnum):
    """What letters are counted by. A day or an hour is one of UTC, as its number since 1970."""

    REASON = "reason"
    DETAIL = "detail"
    ORDER = "order"
    DAY = "day"
    HOUR = "hour"


HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


@dataclass(slots=True, frozen=True, kw_only=True)
class Tally:
    """The letters of one group: how many, first and last failure, and the detail of the latest row."""

    key: str | int | None
    count: int
    oldest_us: int
    newest_us: int
    example: str


class PauseKind(StrEnum):
    """Who stopped the consuming."""

    MANUAL = "manual"
    STORM = "storm"


@dataclass(slots=True, frozen=True, kw_only=True)
class Pause:
    """All workers of ``queue`` consume nothing. One of each kind at most."""

    queue: str
    kind: PauseKind
    detail: str
    by: str
    since_us: int

    @property
    def told(self) -> str:
        """Why, by whom and since when, for people."""
        return f"{self.detail or 'no reason was given'} (paused by {self.by} since {format_time(self.since_us)})"


@dataclass(slots=True, frozen=True, kw_only=True)
class Replay:
    """One replay of dead letters: who wanted it, with which options, and how far it is. ``state`` is the replay's own
    word, at most 40 characters."""

    replay_id: str
    queue: str
    author: str
    options: Mapping[str, Scalar | list[Scalar] | dict[str, Scalar]]
    state: str
    created_us: int
    changed_us: int


class ItemState(StrEnum):
    """How far one message of a replay is. What the worker made of it then is in the history."""

    PLANNED = "planned"
    """Still to be looked at."""
    MOVED = "moved"
    """Its copy is confirmed, back at work."""
    SUPERSEDED = "superseded"
    """Dropped: for each of its fields a later value is applied."""
    LEFT = "left"
    """Still a dead letter: it would have come straight back, or was not wanted."""
    MISSING = "missing"
    """No longer in the queue: somebody else moved it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplayItem:
    """One message of a replay's frozen plan, ``place`` in its order from 0, and what became of it."""

    place: int
    copy_id: str
    state: ItemState = ItemState.PLANNED
    detail: str = ""


class Fate(NamedTuple):
    """The last thing that the workers said of a replayed message: the words of its history row."""

    disposition: str
    reason: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Holder:
    """Who takes dead letters out of a queue, alone. ``by`` is for people: a name, a host, a process id."""

    by: str
    since_us: int
