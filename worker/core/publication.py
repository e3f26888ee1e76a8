"""What a publication is asked for, and how it ends: the values between the use case and the command line."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WINDOW: Final = 200
"""Publishes in flight at once."""


class Ended(StrEnum):
    """How a publication ended; all but ``DONE`` can be resumed."""

    DONE = "done"
    STOPPED = "stopped"
    BAD_LINE = "bad-line"
    UNROUTABLE = "unroutable"
    GAVE_UP = "gave-up"


@dataclass(slots=True, frozen=True, kw_only=True)
class Result:
    """``confirmed`` counts events over all tries, ``resumed_from`` those of earlier ones; ``lines`` those read, without
    blank ones. ``line`` and ``detail`` belong to what ended it."""

    ended: Ended
    confirmed: int
    resumed_from: int
    lines: int
    line: int = 0
    detail: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class Pace:
    """``patience_s``: longest wait for what a lost connection left unconfirmed. ``rate``: most events per second, 0 for
    no limit. ``window``: most publishes in flight."""

    patience_s: float = 60.0
    rate: float = 0.0
    window: int = WINDOW
