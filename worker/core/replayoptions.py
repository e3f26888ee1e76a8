"""How a replay was asked for: which dead letters, where to, how quickly, with which changes. Kept with its plan."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from worker.core.history import Sought

CANARY_WAIT_S: Final = 300.0
"""How long the first copies may take until each has an outcome."""
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([sm]))?")
_PER: Final = {None: 1.0, "s": 1.0, "m": 60.0}


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """``queue`` holds the dead letters. ``exchange`` and ``routing_key`` are where copies go, None for the producer's.

    The selection is that of ``Sought``, of which the first ``limit`` are meant. ``rate`` is copies per second, None for
    no limit. ``canary`` copies go first; more than ``max_failures`` dead ones stop the replay, None: they do not.
    ``edits`` are texts like ``status=8``. ``file`` and ``digest`` name the file that the bodies come from.
    """

    queue: str
    exchange: str | None = None
    routing_key: str | None = None
    reason: str | None = None
    detail: str | None = None
    order_ids: tuple[int, ...] = ()
    message_ids: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    limit: int | None = None
    rate: float | None = None
    canary: int = 0
    canary_wait_s: float = CANARY_WAIT_S
    max_failures: int | None = None
    edits: tuple[str, ...] = ()
    allow_terminal: bool = False
    keep_superseded: bool = False
    file: str | None = None
    digest: str | None = None

    @property
    def sought(self) -> Sought:
        """The letters that are meant, as the index is asked for them."""
        return Sought(
            queue=self.queue,
            reason=self.reason,
            detail=self.detail,
            order_ids=self.order_ids,
            message_ids=self.message_ids,
            since_us=self.since_us,
            until_us=self.until_us,
        )

    @property
    def failures_allowed(self) -> int | None:
        """How many may be dead letters again; None where nobody counts."""
        return 0 if self.max_failures is None and self.canary else self.max_failures

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it: what is not the default."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in values.items()
            if value != default
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Options":
        """And back; what a later version knows besides is left out."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
        }
        return cls(**{name: value for name, value in values.items() if name in known})


def parse_rate(text: str) -> float | None:
    """Copies per second, from ``5``, ``5/s`` or ``30/m``; None where that is no rate above 0."""
    matched = _RATE.fullmatch(text.strip())
    rate = float(matched[1]) / _PER[matched[2]] if matched else 0.0
    return rate or None


def replay_id(now: str, salt: str) -> str:
    """An id that is short, sorts by time, and is new: ``r-20261122-031500-x7k2``. ``now`` is RFC 3339, UTC."""
    digits = re.sub(r"[^0-9]", "", now)
    return f"r-{digits[:8]}-{digits[8:14]}-{salt}"


def selected(options: Options) -> dict[str, Any]:
    """Which letters, for people: only what narrows the selection."""
    names = ("reason", "detail", "order_ids", "message_ids", "since_us", "until_us", "limit")
    return {name: value for name, value in asdict(options).items() if name in names and value not in (None, ())}
