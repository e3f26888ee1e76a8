"""Times as people write them on a command line."""

import pytest

from tests.builders import NOW_US
from worker.core.errors import UsageError
from worker.core.span import moment_us
from worker.core.times import parse_time

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("30s", 30), ("90m", 5400), ("2h", 7200), ("3d", 3 * 86400), ("1w", 7 * 86400)]
)
def test_a_span_counts_back_from_now(text: str, seconds: int) -> None:
    """Whole numbers of one unit."""
    assert moment_us(text, now_us=NOW_US) == NOW_US - seconds * SECOND


def test_a_time_is_that_time() -> None:
    """RFC 3339 with its offset."""
    text = "2026-11-21T12:00:00+02:00"

    assert moment_us(text, now_us=0) == parse_time(text) == NOW_US


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "1.5h", "2h3m", "yesterday", "2026-11-21", "9999999999s"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    """A time without an offset is one of nowhere."""
    with pytest.raises(UsageError, match="3d"):
        moment_us(text, now_us=NOW_US)
