"""The durable journal: the real rules of claims and records on rows that outlive every worker and that all share.

It takes its time, and is away now and then. A statement whose worker gave it up, or died, may be executed nevertheless,
a little later: databases do that.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from tests.simulation.oracle import Oracle
from tests.simulation.processes import nobodys
from tests.simulation.scenario import Scenario, Trouble
from tests.simulation.steps import Snares, Step
from tests.simulation.trace import Trace
from tests.simulation.weather import Weather
from worker.adapters.journal.memory import MemoryJournal
from worker.core.errors import JournalUnavailable
from worker.core.journal import LATE_S, BatchRecord, Claim, OrderRow, StoredOrder

CALL_TIMEOUT_S = 15.0
STRAGGLES_S = 3.0
"""The latest that a statement may be executed after its worker gave it up."""

T = TypeVar("T")


class Books:
    """The rows, and what every worker's way to them has in common."""

    def __init__(self, scenario: Scenario, oracle: Oracle, trace: Trace, weather: Weather, snares: Snares) -> None:
        self.resting: dict[int, bytes | StoredOrder] = {}
        self.open: dict[int, StoredOrder] = {}
        self.scenario = scenario
        self.oracle = oracle
        self.trace = trace
        self.weather = weather
        self.snares = snares
        self._stragglers: set[asyncio.Future[object]] = set()

    def straggle(self, work: Callable[[], Awaitable[object]]) -> None:
        """Execute a statement that nobody waits for any more."""
        straggler = asyncio.ensure_future(work())
        self._stragglers.add(straggler)
        straggler.add_done_callback(self._stragglers.discard)

    @property
    def quiet(self) -> bool:
        """No claim stands, and no echo is owed."""
        return not self.open


class SimJournal(MemoryJournal):
    """One worker's connection to the books. The oracle sees every claim and every record."""

    def __init__(self, books: Books, worker: str) -> None:
        super().__init__(worker=worker, claim_s=CALL_TIMEOUT_S + LATE_S)
        self._resting, self._open = books.resting, books.open
        self._books = books
        self._alone = books.scenario.workers == 1

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """See ``journalports.Ledger``."""
        claim = super().claim
        rows = await self._ask(lambda: claim(order_ids, wall_us=wall_us), Step.CLAIMING, Step.CLAIMED)
        standing = [row.standing for row in rows.values() if row.standing is not None]
        if any(claim.worker != self._worker for claim in standing):
            self._books.snares.contested.add(self._worker)
        for order_id, row in rows.items():
            times = (row.echo_us, row.standing and row.standing.expires_us)
            echoes = any(time is not None and time <= wall_us for time in times)
            self._books.oracle.claimed(self._worker, order_id, row.values, echoes=echoes)
        return rows

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """See ``journalports.Ledger``."""
        moved = await self._ask(lambda: self._record(record), Step.RECORDING, Step.RECORDED)
        self._books.snares.contested.discard(self._worker)
        return moved

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """See ``journalports.Ledger``."""
        if self._books.weather.has(Trouble.JOURNAL_AWAY):
            raise JournalUnavailable("away")
        return await super().due_echoes(wall_us, limit)

    # -- what it does -------------------------------------------------------------------------------------------------

    async def _record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        moved = await super().record(record)
        applied = {order_id: outcome.applied for order_id, outcome in record.orders.items() if outcome.applied}
        self._books.oracle.recorded(applied)
        if applied:
            values = {order_id: [value for _, value in fields.values()] for order_id, fields in applied.items()}
            self._books.trace.note("journal", values)
        return moved

    # -- the way there and back -----------------------------------------------------------------------------------

    async def _ask(self, work: Callable[[], Awaitable[T]], before: Step, after: Step) -> T:
        takes_s = self._books.scenario.journal_takes_s
        if self._alone:
            await asyncio.sleep(takes_s)
            return await work()
        snares, dice = self._books.snares, self._books.weather.dice
        slow = self._books.weather.has(Trouble.JOURNAL_SLOW)
        try:
            await asyncio.sleep(dice.choice([0.5, 2.0, 4.0]) if slow else takes_s / 2)
            await snares.reach(before, self._worker)
            if self._books.weather.has(Trouble.JOURNAL_AWAY, 0.8):
                raise JournalUnavailable("away")
        except (asyncio.CancelledError, JournalUnavailable):
            self._perhaps(work, dice)
            raise
        answer = await work()
        await snares.reach(after, self._worker)
        await asyncio.sleep(dice.choice([0.5, 2.0, 4.0]) if slow else takes_s / 2)
        return answer

    def _perhaps(self, work: Callable[[], Awaitable[T]], dice: random.Random) -> None:
        """The statement of a worker that hears of it no more."""
        if dice.random() < 0.3:
            loop = asyncio.get_running_loop()
            loop.call_later(dice.uniform(0.0, STRAGGLES_S), self._books.straggle, work, context=nobodys())
