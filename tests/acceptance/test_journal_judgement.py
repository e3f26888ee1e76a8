"""What the worker decides by its journal alone, as a process with an SQLite file: orders that are over or were
forgotten, and the index of what it dead-lettered."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.support.world import BASE_US, World, stamped
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.privatebroker import PrivateBroker
from worker.core.history import Sought

pytestmark = pytest.mark.broker

CANCELLED = 128


async def test_orders_that_are_over_or_forgotten_are_dead_letters_and_in_the_index(
    broker: PrivateBroker, tmp_path: Path, migrated_file: Path
) -> None:
    """A cancelled order does not go back to production, an unknown one not to what it was long ago; the platform hears
    of neither, and the index has both under the message ids of their copies."""
    file = tmp_path / "judging.db"
    shutil.copy(migrated_file, file)
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO horizon (only, before_us) VALUES (1, ?)", (BASE_US + 10,))
    connection.close()
    async with World(broker, tmp_path) as world:
        worker = await world.start(JOURNAL_URL=f"sqlite:///{file}")
        await world.publish([stamped(1, 20, status=CANCELLED)])
        await world.until_applied({1: CANCELLED})
        await world.publish([stamped(1, 30, status=4), stamped(2, 9, status=8), stamped(3, 11, status=8)])
        dead = await world.until_dead(2)
        await world.until_applied({3: 8})
        assert await worker.terminate() == 0
        journal = SqlJournal(f"sqlite:///{file}")
        letters = await journal.page(Sought(queue=world.settings["DEAD_LETTER_QUEUE"]))
        await journal.close()

        assert {each.headers["ow-order-id"]: each.headers["ow-reason"] for each in dead} == {
            1: "terminal-order",
            2: "too-old-to-judge",
        }
        assert {each.copy_id for each in letters} == {each.properties.message_id for each in dead}
        assert {each.order_id: each.reason for each in letters} == {1: "terminal-order", 2: "too-old-to-judge"}
        assert (world.status(1), world.status(2)) == (CANCELLED, 1)
        assert await world.leftover() == 0
