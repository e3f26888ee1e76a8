"""A broker of their own for tests that ill-treat it, and the times that recovery took, told at the end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.accounting import Verdict
from tests.support.arena import Arena
from tests.support.broker import Lanes
from worker.adapters.privatebroker import PrivateBroker

_LINES: list[str] = []


class Told:
    """Notes how many seconds recovery took, and the figures of the accounts, for the summary."""

    def __init__(self, test: str) -> None:
        self._test = test

    def __call__(self, took_s: float, verdict: Verdict, case: str = "") -> None:
        figures = ", ".join(f"{name} {count}" for name, count in verdict.figures.items() if count)
        _LINES.append(f"{self._test}{case and f' {case}'}: consuming again after {took_s:.2f} s; {figures}")


@pytest.fixture(scope="session")
def own_node() -> Iterator[PrivateBroker]:
    """One node for the whole folder; other folders never see it."""
    with PrivateBroker() as node:
        yield node


@pytest.fixture
def node(own_node: PrivateBroker) -> PrivateBroker:
    """The node, running: a test that failed in the middle of something may have left it dead."""
    return own_node.start()


@pytest.fixture
async def arena(node: PrivateBroker, tmp_path: Path) -> AsyncIterator[Arena]:
    """Broker, platform and books; no worker yet."""
    async with Arena(node, tmp_path) as made:
        yield made


@pytest.fixture(params=["fast", pytest.param("ordinary", marks=pytest.mark.slow)])
def each_lane_at_length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice where there is time: with deliveries by our own lane, and by the AMQP library's."""
    monkeypatch.setattr(Lanes, "fast", request.param == "fast")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Told:
    """See ``Told``."""
    return Told(request.node.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests told."""
    if _LINES:
        terminalreporter.section("recovery")
        for line in _LINES:
            terminalreporter.write_line(line)
