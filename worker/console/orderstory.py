"""The history of an order as a person reads it: event by event, each step a sentence. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from worker.core.history import HistoryRow
from worker.core.model import Fields

_ACKS: Final = {
    "applied": "The platform has it",
    "superseded": "Not sent: a later value is applied already",
    "duplicate": "Not sent: the same value is applied already",
}
_REASONS: Final = {
    "busy": "the platform was busy with this order",
    "unconfirmed": "the platform's reply did not confirm it",
    "outcome-unknown": "the call got no answer, so nobody knows what became of it",
    "rejected": "the platform refused it",
    "rejected-in-doubt": "the platform refused it, after a call whose outcome is not known",
    "retries-exhausted": "it was tried as often as allowed",
    "invalid-event": "it is not an event",
    "terminal-order": "the order is in a status that it never leaves",
    "too-old-to-judge": "it is older than what the journal remembers",
    "crash-suspect": "the worker ended while it had it, again and again",
    "not-allowed": "this order is not among those that are allowed (going live)",
    "moved": "it was moved by hand",
    "worn": "it came back too often",
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Step:
    """Something that was decided about an event. ``tone``: good, idle, warn or bad."""

    at_us: int
    tone: str
    text: str
    detail: str = ""
    attempt: int = 1
    batch_id: str = ""
    replay_id: str = ""
    worker: str = ""


@dataclass(slots=True, kw_only=True)
class Told:
    """One event of the order, and its steps."""

    message_id: str
    event_id: str
    fields: Fields
    occurred_us: int | None
    first_seen_us: int | None
    sequence: int | None
    steps: list[Step] = field(default_factory=list)

    @property
    def since_us(self) -> int:
        """Where it stands in the timeline: when it happened, or when something was first decided about it."""
        return self.occurred_us if self.occurred_us is not None else self.steps[0].at_us

    @property
    def tone(self) -> str:
        """That of the latest step."""
        return self.steps[-1].tone


def story(rows: Iterable[HistoryRow]) -> list[Told]:
    """The events of an order, the one that happened last first."""
    events: dict[str, Told] = {}
    for number, row in enumerate(rows):
        key = row.message_id or f"\x00{number}"
        told = events.get(key)
        if told is None:
            told = events[key] = _event(row)
        told.steps.append(step_of(row))
    return sorted(events.values(), key=lambda told: told.since_us, reverse=True)


def step_of(row: HistoryRow) -> Step:
    """One row of the history as a sentence."""
    tone, text = _sentence(row)
    return Step(
        at_us=row.at_us,
        tone=tone,
        text=text,
        detail=row.detail,
        attempt=row.attempt,
        batch_id=row.batch_id,
        replay_id=row.replay_id or "",
        worker=row.worker,
    )


def _event(row: HistoryRow) -> Told:
    version = row.version
    return Told(
        message_id=row.message_id,
        event_id=row.event_id or "",
        fields=row.fields,
        occurred_us=None if version is None else version.time_us,
        first_seen_us=None if version is None else version.first_seen_us,
        sequence=None if version is None or version.sequence == -1 else version.sequence,
    )


def _sentence(row: HistoryRow) -> tuple[str, str]:
    why = _REASONS.get(row.reason, row.reason)
    match row.disposition:
        case "ack":
            answered = "" if row.status is None else f": it answered status {row.status}"
            named = f" ({row.status_name})" if row.status_name else ""
            said = f"{answered}{named}" if row.reason == "applied" else ""
            return ("good" if row.reason == "applied" else "idle"), _ACKS.get(row.reason, f"Done: {row.reason}") + said
        case "retry":
            return "warn", f"Tried again later: {why}"
        case "dead":
            return "bad", f"Became a dead letter: {why}"
        case "discarded":
            return "idle", f"Discarded by {row.worker or 'somebody'}"
        case "release":
            return "idle", "Handed back to the broker"
        case _:
            return "idle", f"{row.disposition}: {why}"
