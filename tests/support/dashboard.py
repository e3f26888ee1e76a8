"""The Grafana dashboard as a file: its panels, and their queries with values in place of Grafana's variables."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "docker/grafana/dashboards/order-worker.json"
Panel = Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class Query:
    """One query of a panel. ``ranged``: Grafana asks for a course of time, not for one moment."""

    panel: str
    letter: str
    expression: str
    ranged: bool

    def filled(self, values: Mapping[str, str]) -> str:
        """As Grafana sends it. KeyError where a variable has no value."""
        return re.sub(r"\$(\w+)", lambda match: values[match[1]], self.expression)

    def __str__(self) -> str:
        return f"{self.panel} ({self.letter})"


def board() -> Mapping[str, Any]:
    """The whole file."""
    read: Mapping[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[Panel]:
    """All panels but the headings of rows, in the order of the file."""
    return [each for each in board()["panels"] if each["type"] != "row"]


def queries() -> list[Query]:
    """All queries of all panels."""
    return list(_queries())


def _queries() -> Iterator[Query]:
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["refId"], target["expr"], ranged=target["range"])
