"""What happened in a run, in the order of virtual time: for people, and to compare two runs of one seed."""

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from tests.support.virtualtime import START_S

ALARMS = frozenset({"broker.delivery_failed", "broker.keeper_failed"})
"""Log events that only a mistake of ours writes."""


class Trace:
    """Timed lines and the violations among them. Cheap to write: lines are made when somebody reads them."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str, tuple[object, ...]]] = []
        self.violations: list[str] = []

    def note(self, what: str, *about: object) -> None:
        """Something happened now."""
        self.entries.append((asyncio.get_running_loop().time() - START_S, what, about))

    def violation(self, text: str) -> None:
        """A promise was broken now."""
        self.note("VIOLATION", text)
        self.violations.append(text)

    def lines(self) -> list[str]:
        """The whole story, readable."""
        return [f"{at:11.4f}  {what:<18} {' '.join(map(str, about))}".rstrip() for at, what, about in self.entries]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What the worker logs becomes part of the trace, and nothing is printed."""
        before = structlog.get_config()
        structlog.configure(
            processors=[self._hear],
            wrapper_class=structlog.make_filtering_bound_logger(20),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _hear(self, _logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name = event.pop("event")
        fields = [f"{key}={value}" for key, value in event.items() if value is not None and key != "exc_info"]
        self.note("log", name, *fields)
        if name in ALARMS:
            self.violation(f"the worker logged {name}")
        raise structlog.DropEvent
