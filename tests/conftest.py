"""Fixtures that several folders share. A test that uses ``broker`` carries the mark of the same name."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import generation
from tests.support.broker import Lanes, Outside, unique_topology
from tests.support.postgres import PrivatePostgres
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.journal.upgrading import upgrade
from worker.adapters.privatebroker import PrivateBroker

# Hypothesis measures wall time: 200 ms for an example, and 1 s for drawing the first ten. The first text of a process
# waits for tables of all characters (a second of computing where there is no cache yet), and machines that run tests
# are busy: whichever test drew it failed. Without a deadline the first ten may take 30 s; pytest's timeout bounds all.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


def pytest_configure() -> None:
    """Let programs be interrupted. A shell that starts us in the background has SIGINT ignored, by us and by each
    process that we start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Which RabbitMQ the tests that need one run on."""
    return f"RabbitMQ: {generation.name()} ({generation.VARIABLE} chooses: {', '.join(generation.NAMES)})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly which generations were not run, wherever a broker was used at all."""
    finished = [report for key in ("passed", "failed", "error") for report in terminalreporter.getreports(key)]
    count = len({report.nodeid for report in finished if "broker" in getattr(report, "keywords", ())})
    if count:
        others = ", ".join(generation.not_run())
        text = f"{count} tests ran on RabbitMQ {generation.version()} ({generation.name()}); NOT RUN ON: {others}"
        terminalreporter.write_line(f"WARNING: {text}", yellow=True, bold=True)


@pytest.fixture(scope="session")
def broker() -> Iterator[PrivateBroker]:
    """One private RabbitMQ for the whole session, started when the first test asks for it."""
    with PrivateBroker(installation=generation.chosen(), plugins=generation.hash_plugins()) as node:
        yield node


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """One private PostgreSQL for the whole session, started when the first test asks for it."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PrivatePostgres) -> str:
    """A database with the journal's tables, for the whole session: tests use orders that no other test has."""
    asyncio.run(upgrade(postgres.create("empty_journal")))
    return postgres.create("journal", like="empty_journal")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the journal's tables, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "migrated.db"
    asyncio.run(upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """A journal in a file of the test's own."""
    shutil.copy(migrated_file, tmp_path / "journal.db")
    return f"sqlite:///{tmp_path / 'journal.db'}"


@pytest.fixture
async def outside(broker: PrivateBroker) -> AsyncIterator[Outside]:
    """A connection of the test's own, past any proxy."""
    person = await Outside.connect(broker.url)
    yield person
    await person.close()


@pytest.fixture(params=["fast", "ordinary"])
def each_lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: with deliveries by our own lane, and by the AMQP library's."""
    monkeypatch.setattr(Lanes, "fast", request.param == "fast")


@pytest.fixture
def names() -> Topology:
    """Exchange and queue names that no other test has; nothing is declared yet."""
    return unique_topology()


@pytest.fixture
async def queues(outside: Outside, names: Topology) -> Topology:
    """The topology of ``names``, declared."""
    await declare(outside.connection, names)
    return names


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves a task behind. The libraries need a moment to wind up after a close: they get 5 s."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=5.0)

    assert not left, f"tasks left behind: {left}"
