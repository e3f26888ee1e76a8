"""Numbers, times and values as people read them."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from worker.core.history import DAY_US, HOUR_US
from worker.core.model import Scalar
from worker.core.times import format_time, parse_time

_MINUTE_US: Final = 60_000_000
_SECOND_US: Final = 1_000_000
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
LONGEST_VALUE: Final = 80
_MICROS: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.\d{6}Z")


def number(value: float | None) -> str:
    """Grouped by thousands; a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, int) or value == int(value) or abs(value) >= 100:
        return f"{round(value):,}".replace(",", _THIN)
    return f"{value:,.1f}".replace(",", _THIN)


def seconds(value: float | None) -> str:
    """A duration: ``0.4 s``, ``12 s``, ``3 min``, ``2 h``, ``5 d``."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    for unit, size, above in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 129_600)):
        if value < above:
            return f"{round(value / size)} {unit}"
    return f"{round(value / 86_400)} d"


def ago(micros: int, now_us: int) -> str:
    """``12 s ago``; times ahead of ours are said as such."""
    distance = now_us - micros
    if abs(distance) < _SECOND_US:
        return "now"
    span = _span(abs(distance))
    return f"{span} ago" if distance > 0 else f"in {span}"


def _span(micros: int) -> str:
    for unit, size, above in (
        ("s", _SECOND_US, 2 * _MINUTE_US),
        ("min", _MINUTE_US, 2 * HOUR_US),
        ("h", HOUR_US, 2 * DAY_US),
    ):
        if micros < above:
            return f"{micros // size} {unit}"
    return f"{micros // DAY_US} d"


def moment(micros: int | None, now_us: int) -> Markup:
    """A ``<time>``: relative, with the absolute one at hand. A dash where there is none."""
    if micros is None:
        return Markup("–")
    absolute = format_time(micros)
    shown = f"{absolute[:10]} {absolute[11:19]} UTC"
    markup = Markup('<time datetime="{}" title="{}" data-micros="{}">{}</time>')
    return markup.format(absolute, shown, micros, ago(micros, now_us))


def micros(text: object) -> int | None:
    """Microseconds of a time that a worker tells; None where that is none."""
    return parse_time(text) if isinstance(text, str) else None


def clock(micros: int | None) -> str:
    """The absolute time, to the second."""
    if micros is None:
        return "–"
    text = format_time(micros)
    return f"{text[:10]} {text[11:19]}"


def value(given: Scalar, limit: int = LONGEST_VALUE) -> str:
    """A value of a field, on one line and not longer than this."""
    text = "null" if given is None else str(given).lower() if isinstance(given, bool) else str(given)
    line = on_one_line(text)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def changes(fields: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """What an event wanted to change, name by name."""
    return [(name, value(given)) for name, given in fields.items()]


def detail(text: str, limit: int = 500) -> str:
    """A sentence of ours about a failure, with its times to the second."""
    line = _MICROS.sub(r"\1 \2", on_one_line(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def on_one_line(text: str) -> str:
    """Foreign text may hold characters that reorder what is around them, or that nobody sees."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def in_address(text: str) -> str:
    """As a part of an address."""
    return quote(text.encode("utf-8", "backslashreplace"), safe="")


def plural(count: int, one: str, many: str = "") -> str:
    """``1 letter``, ``2 letters``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
