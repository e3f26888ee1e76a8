"""The worker, except that claims expire soon after the call, and echoes are looked for more often.

The real times belong to a platform that may execute a call 30 s after it was given up. The stand-in never does so
unless it is told to, and a test need not wait for it. Settings and signals as for ``order-worker run``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from worker import assembling, echoes
from worker.adapters.journal import sql
from worker.cli.run import run
from worker.core import bookkeeping

LATE_S = 1.0
ABANDONED_S = 1.0
EVERY_S = 1.0


@contextmanager
def impatience() -> Iterator[None]:
    """Short times, for as long as the block."""
    with (
        mock.patch.object(assembling, "LATE_S", LATE_S),
        mock.patch.object(bookkeeping, "LATE_S", LATE_S),
        mock.patch.object(sql, "ABANDONED_S", ABANDONED_S),
        mock.patch.object(echoes, "EVERY_S", EVERY_S),
    ):
        yield


def main() -> None:
    """Work with the short times."""
    with impatience():
        run()


if __name__ == "__main__":
    main()
