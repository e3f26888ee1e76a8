"""The generated tables of README.md: commands, settings, log events, metrics.

``python -m tests.support.readme`` renews them.

Each stands between two comments, ``<!-- BEGIN name: ... -->`` and ``<!-- END name -->``; everything else is prose.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from worker.cli.main import COMMANDS, PROGRAM
from worker.metrics import Metric
from worker.settingsview import settings_table
from worker.telemetry import EVENTS, METRICS

README = Path(__file__).parents[2] / "README.md"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [heads, ["---" for _ in heads], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def commands() -> str:
    """Every command and what it does."""
    return _table(
        ("Command", "What it does"), ((_code(f"{PROGRAM} {name}"), entry.summary) for name, entry in COMMANDS.items())
    )


def settings() -> str:
    """Every setting, its default, and what it means."""
    rows = ((_code(row.variable), _code(row.default), row.description) for row in settings_table())
    return _table(("Variable", "Default", "Meaning"), rows)


def events() -> str:
    """Every log event, its level, what it means, and its own fields."""
    rows = (
        (_code(name), event.level, event.meaning, ", ".join(map(_code, event.fields))) for name, event in EVENTS.items()
    )
    return _table(("Event", "Level", "Meaning", "Fields"), rows)


def metrics() -> str:
    """Every metric, its kind, its labels with all their values, and what it means."""
    rows = ((_code(name), metric.kind, _labels(metric), metric.meaning) for name, metric in METRICS.items())
    return _table(("Metric", "Kind", "Labels", "Meaning"), rows)


def _labels(metric: Metric) -> str:
    return "; ".join(
        f"{_code(label)}: {', '.join(metric.values_of(label))}" if metric.series else _code(label)
        for label in metric.labels
    )


TABLES: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "events": events,
    "metrics": metrics,
}


def renewed(text: str) -> str:
    """The README with its tables made anew. ValueError where a table has no place."""
    for name, make in TABLES.items():
        places = re.findall(rf"<!-- BEGIN {name}\b[^>]*-->\n(.*?)<!-- END {name} -->", text, re.DOTALL)
        if len(places) != 1:
            raise ValueError(f"README.md needs the markers BEGIN and END of {name!r} once")
        text = _replaced(text, name, make())
    return text


def _replaced(text: str, name: str, table: str) -> str:
    # A function instead of a template: backslashes in the table are meant as they are.
    place = re.compile(rf"(<!-- BEGIN {name}\b[^>]*-->\n).*?(<!-- END {name} -->)", re.DOTALL)
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
