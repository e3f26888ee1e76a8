"""Figures that tests tell, shown at the end."""

from collections.abc import Callable, Mapping

import pytest

Tell = Callable[[Mapping[str, object]], None]
"""Notes what a test counted and measured."""
_LINES: list[str] = []


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """For the summary."""

    def note(figures: Mapping[str, object]) -> None:
        _LINES.append(f"{request.node.name}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests told."""
    if _LINES:
        terminalreporter.section("bad nights")
        for line in _LINES:
            terminalreporter.write_line(line)
