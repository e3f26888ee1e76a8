"""A plan for 100,000 dead letters: less than a minute, and memory that does not grow with their number."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders import NOW_US, applied_record
from worker.adapters.journal.opening import checked_journal
from worker.core.history import IndexedLetter
from worker.core.model import Version
from worker.ports import wall_us

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LETTERS = 100_000
PAGE = 1000
MOST_S = 60.0
MOST_MB = 200.0
QUEUE = "order-updates.plan-of-many"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str:
    """A durable journal of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def letter(number: int) -> IndexedLetter:
    """One of them, of an order of its own."""
    time_us = NOW_US + number
    return IndexedLetter(
        copy_id=f"copy-{number:08}", queue=QUEUE, reason=("rejected", "retries-exhausted", "busy")[number % 3],
        failed_us=time_us, order_id=5_000_000 + number, message_id=f"m-{number}", detail="no such carrier",
        fields={"status": 4, "shipping_carrier": "Royal Mail"}, version=Version(time_us, -1, time_us, f"m-{number}"),
        exchange="order-updates", routing_key=str(5_000_000 + number), worker="1.0",
    )  # fmt: skip


async def fill(url: str) -> None:
    """Every order is known; every second letter is superseded."""
    async with checked_journal(url) as journal:
        for start in range(0, LETTERS, PAGE):
            letters = [letter(number) for number in range(start, start + PAGE)]
            await journal.add(letters)
            at_us = [NOW_US + (2 * LETTERS if number % 2 else -1) for number in range(start, start + PAGE)]
            values = {
                5_000_000 + number: {
                    name: (Version(time_us, -1, time_us, "a"), value)
                    for name, value in (("status", 8), ("shipping_carrier", "DHL"))
                }
                for number, time_us in zip(range(start, start + PAGE), at_us, strict=True)
            }
            await journal.record(applied_record(values, wall_us=wall_us()))


def planned(url: str, folder: Path) -> tuple[dict[str, object], float, float]:
    """Run the command: what it printed, seconds, and megabytes resident at most."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORDER_WORKER_")}
    settings = {"ORDER_WORKER_JOURNAL_URL": url, "ORDER_WORKER_DEAD_LETTER_QUEUE": QUEUE}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "dead", "replay", "--json"],
        cwd=folder, env=inherited | settings, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as out:
        printed = out.read()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    assert process.returncode == 0
    return json.loads(printed), time.monotonic() - began, usage.ru_maxrss / 1024


async def test_a_plan_of_many_is_quick_and_flat(url: str, tmp_path: Path) -> None:
    """A process of its own, start included."""
    await fill(url)
    plan, took_s, resident_mb = planned(url, tmp_path)
    print(f"\nplan of {LETTERS}: {took_s:.1f} s, {resident_mb:.0f} MB resident")  # noqa: T201

    assert (plan["matched"], plan["apply"], plan["superseded"]) == (LETTERS, LETTERS // 2, LETTERS // 2)
    assert took_s < MOST_S
    assert resident_mb < MOST_MB
