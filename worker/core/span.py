"""Points in time as people give them to a command: RFC 3339, or a span that counts back from now."""

import re
from typing import Final

from worker.core.errors import UsageError
from worker.core.times import parse_time

_SPAN: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}


def moment_us(text: str, *, now_us: int) -> int:
    """Microseconds since 1970 of a text like ``2026-11-21T10:00:00Z``, ``90m``, ``2h`` or ``3d`` (back from now).

    Raises UsageError for anything else.
    """
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now_us - int(span[1]) * _UNIT_US[span[2]]
    found = parse_time(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no time: give one with its offset, like 2026-11-21T10:00:00Z, or a span back from now, "
            "like 90m, 2h or 3d"
        )
    return found
