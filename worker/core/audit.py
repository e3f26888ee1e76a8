"""Who did what to which messages, and what came of it: what the journal keeps of the deeds of people.

Deeds are noted when they begin to have an effect and again when they end, and so is what was refused. No payloads and
no secrets: a target is a name or an id.
"""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What somebody did, or wanted to do."""

    LOG_IN = "log-in"
    LOG_OUT = "log-out"
    ACCESS = "access"
    """Only where it was refused: a role that is missing, a wrong origin, a forged form."""
    LOOK = "look"
    """A letter was taken out of the queue to be looked at, and went back."""
    EXPORT = "export"
    DISCARD = "discard"
    SYNC = "sync"
    PLAN = "plan"
    REPLAY = "replay"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"


class Outcome(StrEnum):
    """What came of it."""

    BEGUN = "begun"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(slots=True, frozen=True, kw_only=True)
class Deed:
    """One line of the audit. ``target`` says what it was done to: a queue, a replay, a letter, a worker. ``count`` are
    the messages concerned, None where nobody counted. ``number`` is its place in the journal, given there."""

    at_us: int
    by: str
    action: Action
    outcome: Outcome
    target: str = ""
    detail: str = ""
    count: int | None = None
    number: int = 0
