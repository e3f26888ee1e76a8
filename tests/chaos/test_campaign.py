"""A short campaign, so that the long ones do not rot: a handful of faults of each sort, the same code, a verdict."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.__main__ import campaign
from tests.chaos.schedule import Planned
from tests.chaos.table import View
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

SEED = 20261122
LENGTH_S = 6.0
COURSE = (
    ("platform 500 at random", 0.2, 1.0, 0),
    ("worker killed", 0.5, 0.3, 0),
    ("line cut", 1.0, 0.0, 1),
    ("platform down", 1.5, 0.5, 0),
    ("worker frozen", 2.0, 1.0, 1),
    ("broker killed", 3.5, 0.0, 0),
    ("worker stopped", 4.0, 0.2, 1),
    ("tokens revoked", 5.0, 0.3, 0),
)


@pytest.fixture
def node() -> Iterator[PrivateBroker]:
    """A node of its own: it is killed."""
    with PrivateBroker() as started:
        yield started


async def test_a_short_campaign_keeps_every_promise(node: PrivateBroker, tmp_path: Path) -> None:
    """Overlapping faults of workers, lines, broker and platform; then every event is where it belongs."""
    planned = [
        Planned(number=number, at_s=at_s, name=name, lasts_s=lasts_s, slot=slot)
        for number, (name, at_s, lasts_s, slot) in enumerate(COURSE, 1)
    ]
    async with asyncio.timeout(270):
        with View(Console(quiet=True), line_every_s=1.0) as view:
            report = await campaign(node, tmp_path, view, planned, seed=SEED, length_s=LENGTH_S, rate=100.0)

    assert not report.broken, str(report)
    assert sum(report.faults.values()) + report.skipped == len(COURSE)
    assert report.verdict.figures["applied"] > 0
    assert report.verdict.figures["dead"] > 0
