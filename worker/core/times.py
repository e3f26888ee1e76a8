"""Points in time: RFC 3339 texts and microseconds since 1970 (UTC), converted without loss, years 1 to 9999."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
EARLIEST_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LATEST_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND

TIME_PATTERN: Final = (
    r"^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""RFC 3339 section 5.6 with its offset; without leap seconds, which neither Python nor the platform can express."""

_matches = re.compile(TIME_PATTERN).fullmatch


def parse_time(text: str) -> int | None:
    """Microseconds of an RFC 3339 text, or None where it is none or lies outside the years 1 to 9999 (UTC).

    Digits finer than a microsecond are cut off, so that an event never seems later than it was.
    """
    if text[26:] == "Z" and text[4:20:3] == "--T::." and text[11:13] < "24":
        # The usual form, as format_time writes it. All but its digits is as it has to be: that leaves ``fromisoformat``
        # nothing to be lenient about, and takes half the time of the pattern.
        try:
            delta = datetime.fromisoformat(text) - EPOCH
        except ValueError:
            return None
        return delta.days * 86_400_000_000 + delta.seconds * 1_000_000 + delta.microseconds
    # The pattern is checked first: fromisoformat also takes weeks, missing seconds and times without an offset.
    if _matches(text) is None:
        return None
    try:
        return micros_of(datetime.fromisoformat(text.upper()))
    except ValueError:  # a day that its month does not have, or the year 0
        return None


def micros_of(moment: datetime) -> int | None:
    """Microseconds of a datetime, None if out of range. A naive one is taken as UTC, as the AMQP client does."""
    delta = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - EPOCH
    # Integers all the way: datetime.timestamp() is a float, and floats lose microseconds.
    micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return micros if EARLIEST_US <= micros <= LATEST_US else None


def format_time(micros: int) -> str:
    """The RFC 3339 text of a time: UTC, always six digits, 27 characters, so texts sort like times.

    What lies outside the years 1 to 9999 is shown as the nearest time that can be written.
    """
    moment = EPOCH + timedelta(microseconds=min(max(micros, EARLIEST_US), LATEST_US))
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
