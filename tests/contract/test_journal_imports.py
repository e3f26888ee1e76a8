"""Which libraries a journal loads: a database's only where there is a database."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import worker.cli.run
from worker.adapters.journal.opening import journal_at
journal_at(sys.argv[1])
print(json.dumps([name for name in ("alembic", "asyncpg", "sqlalchemy") if name in sys.modules]))
"""


@pytest.mark.parametrize(("url", "expected"), [("memory", []), ("sqlite:///journal.db", ["sqlalchemy"])])
def test_a_journal_loads_no_database_library_but_its_own(url: str, expected: list[str], tmp_path: Path) -> None:
    """In a process of its own, with all that the worker imports; they would be a third of its memory at the start."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert json.loads(done.stdout) == expected
