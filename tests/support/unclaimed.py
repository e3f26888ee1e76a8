"""The worker, except that its journal claims nothing: what is known is read, and nobody notices the other worker.

Without claim and revision there is nothing to echo either. Tests of two workers have to go wrong with this one, or they
prove nothing. Settings and signals as for ``order-worker run``.
"""

from collections.abc import Collection, Mapping
from unittest import mock

from worker.adapters.journal.sql import SqlJournal
from worker.cli.run import run
from worker.core.journal import OrderRow

FIRST_REVISION = 0
"""That of a row which was never claimed, so no record finds that somebody else was there."""


async def read_only(journal: SqlJournal, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
    """In place of ``SqlJournal.claim``: the applied values, and nothing written."""
    del wall_us
    known = await journal.known(list(order_ids))
    return {each: OrderRow(values=known.get(each, {}), revision=FIRST_REVISION) for each in order_ids}


def main() -> None:
    """Work without claims."""
    with mock.patch.object(SqlJournal, "claim", read_only):
        run()


if __name__ == "__main__":
    main()
