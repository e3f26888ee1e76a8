"""A user who may configure nothing, a journal for each run, and the figures of all runs, told at the end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounting import Verdict
from tests.support.postgres import PrivatePostgres
from worker.adapters.privatebroker import PrivateBroker

USER = "passive"
JournalOf = Callable[[str], str]
"""From the name of a run to the address of its journal."""
Tell = Callable[[str, float, Verdict], None]
"""Notes a run, the seconds it took, and its accounts."""
_LINES: list[str] = []


@pytest.fixture(scope="session")
def passive_url(broker: PrivateBroker) -> str:
    """The broker's address for a user who may use everything and configure nothing."""
    broker.ctl("add_user", USER, USER)
    broker.ctl("set_permissions", USER, "^$", ".*", ".*")
    return broker.url.replace("guest:guest", f"{USER}:{USER}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def journal_of(request: pytest.FixtureRequest, tmp_path: Path) -> JournalOf:
    """Journals of either kind, with tables; each name once in a test."""
    if request.param == "sqlite":
        migrated: Path = request.getfixturevalue("migrated_file")

        def copied(name: str) -> str:
            shutil.copy(migrated, tmp_path / f"{name}.db")
            return f"sqlite:///{tmp_path / name}.db"

        return copied
    request.getfixturevalue("postgres_url")
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return lambda name: server.create(f"{name}_{tmp_path.name}", like="empty_journal")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """For the summary."""

    def note(run: str, took_s: float, verdict: Verdict) -> None:
        figures = ", ".join(f"{name} {count}" for name, count in verdict.figures.items() if count)
        wrong = ", ".join(f"{kind} {len(cases)}" for kind, cases in verdict.problems.items()) or "every order right"
        _LINES.append(f"{request.node.name} {run}: {wrong} after {took_s:.0f} s; {figures}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests told."""
    if _LINES:
        terminalreporter.section("two workers")
        for line in _LINES:
            terminalreporter.write_line(line)
