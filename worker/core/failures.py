"""Why a message failed before, on its way through replays: the header ``ow-failures`` (JSON, the newest last).

A replay takes the reason of the dead letter off its copy, because the copy is new work; what it said goes here, so that
whoever finds it dead again sees that it is not the first time. Bounded: at most five, and so many bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from worker.core.table import fit

HEADER: Final = "ow-failures"
MOST: Final = 5
MAX_BYTES: Final = 1200
"""Of the whole header, encoded; the oldest go first."""
_MAX_DETAIL: Final = 120
_MAX_WORD: Final = 64


@dataclass(slots=True, frozen=True, kw_only=True)
class Failure:
    """One earlier failure. ``failed_at`` is RFC 3339, empty where nobody said when; ``replay_id`` is that of the replay
    that had brought it there."""

    reason: str
    detail: str = ""
    failed_at: str = ""
    attempt: int = 1
    replay_id: str = ""


def dump_failures(failures: Sequence[Failure]) -> str:
    """The header's text: the latest failures that fit; empty for none."""
    latest = [_short(failure) for failure in failures[-MOST:]]
    while latest:
        text = json.dumps([asdict(failure) for failure in latest], ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) <= MAX_BYTES:
            return text
        del latest[0]
    return ""


def load_failures(value: object) -> tuple[Failure, ...]:
    """What a header says, as far as it is what we write; never raises."""
    if not isinstance(value, str) or len(value) > MAX_BYTES:
        return ()
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return ()
    return tuple(filter(None, map(_read, found[-MOST:]))) if isinstance(found, list) else ()


def _short(failure: Failure) -> Failure:
    return Failure(
        reason=fit(failure.reason, _MAX_WORD),
        detail=fit(failure.detail, _MAX_DETAIL),
        failed_at=fit(failure.failed_at, _MAX_WORD),
        attempt=failure.attempt,
        replay_id=fit(failure.replay_id, _MAX_WORD),
    )


def _read(entry: Any) -> Failure | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("reason"), str):
        return None
    attempt = entry.get("attempt")
    texts = {name: entry[name] for name in ("detail", "failed_at", "replay_id") if isinstance(entry.get(name), str)}
    number = attempt if type(attempt) is int and 1 <= attempt <= 1_000_000 else 1
    return _short(Failure(reason=entry["reason"], attempt=number, **texts))
