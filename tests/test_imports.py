"""What a worker loads: only what its settings ask for. Libraries are most of its memory, and of its time to start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from worker import app
from worker.cli import main, run
from worker.assembling import assemble
from worker.cli.config import start

async def begin():
    async with AsyncExitStack() as stack:
        await assemble(start(), stack)
        print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))

asyncio.run(begin())
"""
ON_DEMAND = (
    "aiohttp.web",
    "alembic",
    "asyncpg",
    "jinja2",
    "opentelemetry",
    "prometheus_client",
    "pyrate_limiter",
    "sqlalchemy",
    "worker.console",
    "worker.demo",
    "worker.replay",
    "worker.simulator",
)
LEAST = {"JOURNAL_URL": "memory", "CLIENT_ID": "it", "CLIENT_SECRET": "its secret"}


def loaded(folder: Path, **settings: str) -> list[str]:
    """Which of these modules a worker has loaded when it is put together, in a process of its own."""
    variables = {f"ORDER_WORKER_{name}": value for name, value in (LEAST | settings).items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *ON_DEMAND],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names: list[str] = json.loads(done.stdout)
    return names


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"RATE_PER_HOUR": "1000"}, {"pyrate_limiter"}),
        ({"JOURNAL_URL": "sqlite:///journal.db"}, {"sqlalchemy"}),
    ],
    ids=["nothing asked for", "a budget", "a database"],
)
def test_a_worker_loads_no_library_that_nothing_asks_for(
    settings: dict[str, str], expected: set[str], tmp_path: Path
) -> None:
    """The databases' alone would be a third of its memory at the start."""
    assert set(loaded(tmp_path, **settings)) == expected
