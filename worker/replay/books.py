"""The journal as a replay uses it, and the words that it keeps of a replay."""

from enum import StrEnum
from typing import Final, Protocol

from worker.journalports import Archive, AuditTrail, Holders, Ledger, LetterIndex, Pauses, Replays

PAGE: Final = 1000
"""Rows asked for at a time."""


class Books(Ledger, Archive, Pauses, LetterIndex, Replays, Holders, AuditTrail, Protocol):
    """Everything in one: versions, history, pauses, the index of dead letters, replays, and who did what."""


class State(StrEnum):
    """How far a replay is (``history.Replay.state``)."""

    PLANNING = "planning"
    """Its plan is being written; where that was broken off it stays so, and cannot be executed."""
    PLANNED = "planned"
    """Frozen; nothing was moved."""
    RUNNING = "running"
    """Somebody carries it out, or was killed while doing so."""
    STOPPED = "stopped"
    """Not finished; it can be resumed."""
    DONE = "done"
    """Nothing of it is open."""
