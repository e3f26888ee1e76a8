"""Forgetting what is older than JOURNAL_RETENTION_DAYS, in small steps, so that nobody waits long for the tables."""

import asyncio

import structlog

from worker.core.errors import JournalUnavailable
from worker.core.horizon import Horizon
from worker.journalports import Archive
from worker.ports import WallClock

log = structlog.get_logger(__name__)

EVERY_S = 3600.0
STEP_ROWS = 1000
"""Rows of each table in one transaction: workers wait for it a few milliseconds."""
DAY_US = 86_400_000_000


async def prune(archive: Archive, *, days: int, wall_us: WallClock) -> int:
    """Forget everything that is older than so many days; how many rows that were. JournalUnavailable."""
    before_us, forgotten = wall_us() - days * DAY_US, 0
    while step := await archive.prune(before_us, limit=STEP_ROWS):
        forgotten += step
    return forgotten


async def keep_pruned(archive: Archive, horizon: Horizon, *, wall_us: WallClock) -> None:
    """Prune once an hour, until cancelled, and tell ``horizon`` what is forgotten, by other workers too. A journal that
    is away is met again an hour later."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            forgotten = await prune(archive, days=horizon.days, wall_us=wall_us)
            horizon.before_us = await archive.horizon_us()
        except JournalUnavailable as error:
            log.warning("journal.not_pruned", detail=str(error))
        else:
            log.info("journal.pruned", rows=forgotten, days=horizon.days)
