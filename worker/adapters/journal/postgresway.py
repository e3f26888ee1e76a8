"""The way to PostgreSQL, over asyncpg: READ COMMITTED; single statements run in autocommit mode, which saves two round
trips."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from worker.adapters.journal.failures import Failure, kind_of
from worker.adapters.journal.ways import CommitFailed, Kind, Work

T = TypeVar("T")

CONNECTIONS: Final = 5
"""MAX_IN_FLIGHT batches, and one for everything else."""


class PostgresPool:
    """Implements ``Way``."""

    stops = True

    def __init__(self, url: str, *, deadline_s: float) -> None:
        milliseconds = str(round(deadline_s * 1000))
        settings = {
            "application_name": "order-worker",
            "statement_timeout": milliseconds,
            # A worker that is frozen in the middle of a transaction must not keep the orders locked for the others.
            "idle_in_transaction_session_timeout": milliseconds,
        }

        # asyncpg reads the address itself: it knows all that libpq's addresses may hold (sslmode, several hosts).
        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(url, timeout=deadline_s / 2, server_settings=settings)

        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=deadline_s,
        )
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self.dialect = self._engine.dialect

    async def once(self, work: Work[T], kind: Kind) -> T:
        """See ``Way``."""
        engine = self._single if kind is Kind.SINGLE else self._engine
        async with engine.connect() as connection, _discarded(connection):
            result = await connection.run_sync(work)
            try:
                await connection.commit()
            except Exception as error:
                raise CommitFailed(error) from error
            return result

    async def close(self) -> None:
        """See ``Way``."""
        try:
            await self._engine.dispose()
        except asyncio.CancelledError:
            await self._engine.dispose(close=False)
            raise


@asynccontextmanager
async def _discarded(connection: AsyncConnection) -> AsyncIterator[None]:
    """A connection that failed for no reason of ours is not used again.

    SQLAlchemy sees to that where the driver says that it is closed. asyncpg does not say so while the server's farewell
    is still unread, and then fails with "another operation is in progress".
    """
    try:
        yield
    except Exception as error:
        cause = error.error if isinstance(error, CommitFailed) else error
        if kind_of(cause) in (Failure.LOST, Failure.AWAY):
            await connection.invalidate()
        raise
