"""The durable journal: SQLite for one worker (and its tools on the same machine), PostgreSQL for replicas."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from worker.adapters.journal.claiming import Claiming, Claims
from worker.adapters.journal.database import DEADLINE_S, Database
from worker.adapters.journal.finishing import Finishing, PostgresFinishing, SqliteFinishing, changes_of
from worker.adapters.journal.memory import ABANDONED_S, CLAIM_S
from worker.adapters.journal.orders import BEFORE_ALL, Orders
from worker.adapters.journal.sqlarchive import SqlArchive
from worker.adapters.journal.ways import Kind
from worker.core.journal import BatchRecord, Claim, OrderRow
from worker.core.values import Values


class SqlJournal(SqlArchive):
    """Implements all ports of the journal on a ``Database``. ``claim_s`` is how long a claim stands, in seconds: the
    call timeout, and the longest that a call we gave up may take to be executed."""

    def __init__(
        self, url: str, *, worker: str = "worker", claim_s: float = CLAIM_S, deadline_s: float = DEADLINE_S
    ) -> None:
        super().__init__(Database(url, deadline_s=deadline_s))
        self._orders = Orders(self.database.dialect)
        self._claiming = Claiming(self.database.dialect)
        finishing = SqliteFinishing if self.database.is_sqlite else PostgresFinishing
        self._finishing: Finishing = finishing(self.database.dialect)
        self._claims = Claims()
        self._looked_at = BEFORE_ALL
        self._worker = worker
        self._claim_us = round(claim_s * 1_000_000)

    async def known(self, order_ids: Sequence[int]) -> Mapping[int, Values]:
        """The applied values of these orders."""
        if not order_ids:
            return {}
        return await self.database.run(lambda connection: self._orders.known(connection, order_ids), kind=Kind.SINGLE)

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """Claim the orders for this worker."""
        if not order_ids:
            return {}
        by = Claim(self._worker, wall_us + self._claim_us)
        handed = await self.database.run(
            lambda connection: self._claiming.claim(connection, order_ids, by, wall_us),
            kind=Kind.BRIEF if self.database.is_sqlite else Kind.SINGLE,
        )
        self._claims.note(handed)
        return {order_id: each.row for order_id, each in handed.items()}

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """Take down what came of a batch, in one transaction."""
        changes = changes_of(self._claims, record, apart=self.database.is_sqlite)
        if changes is None:
            return await self.database.run(lambda connection: self._record(connection, record))

        def finish(connection: Connection) -> bool:
            return self._finishing.finish(connection, changes, record)

        if self.database.is_sqlite:
            return await self.database.run(lambda on: {} if finish(on) else self._record(on, record), kind=Kind.BRIEF)
        if await self.database.run(finish, kind=Kind.SINGLE):
            return {}
        return await self.database.run(lambda connection: self._record(connection, record))

    def _record(self, connection: Connection, record: BatchRecord) -> dict[int, Claim | None]:
        moved = self._orders.record(connection, record.orders, record.wall_us) if record.orders else {}
        self._finishing.add_history(connection, record)
        return moved

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """Orders whose echo is due, or whose claim ran out long ago; the latter among some thousand orders, each time
        other ones."""
        expired_us = wall_us - round(ABANDONED_S * 1_000_000)

        def look(connection: Connection) -> list[int]:
            found, self._looked_at = self._orders.abandoned(connection, expired_us, self._looked_at)
            return list(dict.fromkeys([*self._orders.due(connection, wall_us, limit), *found]))[:limit]

        return await self.database.run(look)
