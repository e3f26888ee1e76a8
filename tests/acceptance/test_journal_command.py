"""``order-worker journal`` as people run it."""

import os
import sqlite3
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.postgres import PrivatePostgres


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """``python -m worker journal ...`` in a directory of its own, with these settings and nothing of the machine's."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("ORDER_WORKER_")}
    given = {f"ORDER_WORKER_{name}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        cwd=directory, env=clean | given, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def newest() -> str:
    """The version of this program's tables."""
    migrations = files("worker.adapters.journal.migrations") / "versions"
    return max(each.name for each in migrations.iterdir() if each.name.startswith("v"))[1:5]


def test_upgrade_makes_the_tables_and_prune_forgets(tmp_path: Path) -> None:
    """A file where the command is started; only what is older than the retention goes."""
    url = "sqlite:///order-worker.db"
    upgraded = run(tmp_path, "journal", "upgrade", JOURNAL_URL=url)
    with sqlite3.connect(tmp_path / "order-worker.db") as file:
        file.executemany(
            "INSERT INTO orders (order_id, applied, newest_us, revision, touched_us) VALUES (?, '{}', 5, 1, ?)",
            [(1, 5), (2, 2**62)],
        )
    file.close()

    pruned = run(tmp_path, "journal", "prune", JOURNAL_URL=url, JOURNAL_RETENTION_DAYS="30")
    again = run(tmp_path, "journal", "prune", "--days", "7", JOURNAL_URL=url)

    assert (upgraded.returncode, upgraded.stdout) == (0, f"the journal's tables are at version {newest()}\n")
    assert (pruned.returncode, pruned.stdout) == (0, "1 rows older than 30 days forgotten\n"), pruned.stderr
    assert again.stdout == "0 rows older than 7 days forgotten\n"


@pytest.mark.postgres
def test_prune_wants_the_tables_of_this_version(tmp_path: Path, postgres: PrivatePostgres) -> None:
    """An empty database: usage, with the command that helps, and no password."""
    url = postgres.create("unprepared").replace("@", ":hunter2-planted@")

    refused = run(tmp_path, "journal", "prune", JOURNAL_URL=url)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "order-worker journal upgrade" in refused.stderr
    assert "hunter2-planted" not in refused.stderr


def test_what_cannot_be_reached_is_a_failure_without_password(tmp_path: Path) -> None:
    """Exit code 1: it may work later."""
    failed = run(tmp_path, "journal", "upgrade", JOURNAL_URL="postgresql://worker:hunter2-planted@127.0.0.1:1/x")

    assert failed.returncode == 1
    assert "refused" in failed.stderr.lower()
    assert "Traceback" not in failed.stderr
    assert "hunter2-planted" not in failed.stderr


def test_memory_has_no_tables(tmp_path: Path) -> None:
    """Says what to set."""
    refused = run(tmp_path, "journal", "upgrade", JOURNAL_URL="memory")

    assert refused.returncode == 2
    assert "ORDER_WORKER_JOURNAL_URL" in refused.stderr


def test_config_masks_the_password_of_the_journal(tmp_path: Path) -> None:
    """In tables and in JSON."""
    url = "postgresql://worker:hunter2-planted@db/journal"
    for arguments in (["config"], ["config", "--json"]):
        shown = run(tmp_path, *arguments, JOURNAL_URL=url)
        assert "worker:***@db" in shown.stdout
        assert "hunter2-planted" not in shown.stdout + shown.stderr
