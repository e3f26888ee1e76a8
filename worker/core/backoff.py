"""How long to wait before the next try: formulas only, the shell draws the jitter and does the waiting."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def full_jitter(attempt: int, *, first_s: float, cap_s: float, jitter: float) -> float:
    """A wait in seconds between 0 and ``first_s * 2**(attempt - 1)``, at most ``cap_s``. ``jitter`` is drawn from [0,
    1)."""
    ceiling = min(cap_s, first_s * 2.0 ** min(attempt - 1, 60))
    return ceiling * jitter


def retry_after_s(text: str | None, *, wall_s: float) -> float | None:
    """The seconds that a ``Retry-After`` header asks for (RFC 9110: whole seconds or an HTTP date), None if unreadable.

    ``wall_s`` is the current time in seconds since 1970; a date in the past means 0.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:12]), 10**9))
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for years and offsets of many digits
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(wall_s, UTC)).total_seconds())
