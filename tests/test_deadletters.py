"""Sync, export and discard: what they do to queue, index, history and file, whatever breaks in between."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import NOW_US, make_delivery, make_update
from tests.support.fakequeue import Broke, Effects, FakeQueue
from worker.adapters.journal.memory import MemoryJournal
from worker.core.deadletter import DeadLetter, letter_key, read_dead_letter
from worker.core.decode import EventSchema
from worker.core.headers import dead_copy
from worker.core.history import IndexedLetter, LetterState, Sought
from worker.core.journal import BatchRecord, Claim
from worker.core.letterfile import read_letter
from worker.core.model import Dead, Delivery, Properties, Reason, Settlement
from worker.deadletters import DISCARDED, MARGIN_US, WINDOW, Selection, Synced, Taken, discard, export, sync

SCHEMA = EventSchema({}, [])
HOUR = 3_600_000_000
LATER_US = NOW_US + 10 * HOUR


def ours(number: int, reason: Reason = Reason.REJECTED, *, hours: int = 0) -> DeadLetter:
    """A dead letter of the worker, of order 100 + ``number``."""
    update = make_update(100 + number, at=NOW_US / 1_000_000, message_id=f"m-{number}")
    settlement = Settlement(
        delivery=update.delivery, update=update, disposition=Dead(reason=reason, detail=f"detail {number}")
    )
    copy = dead_copy(settlement, now_us=NOW_US + hours * HOUR, worker="1")
    properties = Properties(headers=copy.properties.headers, message_id=f"copy-{number}")
    return read_dead_letter(Delivery(generation=0, tag=number, body=copy.body, properties=properties))


def the_brokers(number: int, **properties: Any) -> DeadLetter:
    """A dead letter of the broker."""
    death = {"reason": "expired", "queue": "work", "time": datetime(2026, 11, 21, 10, tzinfo=UTC)}
    body = {"id": 100 + number, "status": 4}
    return read_dead_letter(
        make_delivery(body, message_id=f"copy-{number}", headers={"x-death": [death]}, **properties)
    )


def selection(journal: MemoryJournal | None = None, **sought: Any) -> Selection:
    return Selection(Sought(queue="dead", **sought), SCHEMA, index=journal, wall_us=lambda: LATER_US)


class Paper:
    """Implements ``deadletters.LetterSink``; what is not synced is lost when it breaks."""

    def __init__(self, effects: Effects | None = None) -> None:
        self.lines: list[bytes] = []
        self.durable: list[bytes] = []
        self._effects = effects or Effects()

    def write(self, line: bytes) -> None:
        self._effects.step()
        self.lines.append(line)

    def sync(self) -> None:
        self._effects.step()
        self.durable = list(self.lines)
        self._effects.step()

    def copy_ids(self) -> list[str]:
        return [read_letter(line, 1).copy_id for line in self.durable]


class BreakingJournal(MemoryJournal):
    """A journal whose writes are effects that may break."""

    def __init__(self) -> None:
        super().__init__()
        self.effects = Effects()

    async def record(self, record: BatchRecord) -> dict[int, Claim | None]:
        return dict(await self.effects.of(lambda: MemoryJournal.record(self, record)))

    async def add(self, letters: Sequence[IndexedLetter]) -> None:
        await self.effects.of(lambda: MemoryJournal.add(self, letters))

    async def mark(self, copy_ids: Sequence[str], state: LetterState, *, wall_us: int) -> int:
        return await self.effects.of(lambda: MemoryJournal.mark(self, copy_ids, state, wall_us=wall_us))

    async def seen(self, copy_ids: Sequence[str], *, wall_us: int) -> int:
        return await self.effects.of(lambda: MemoryJournal.seen(self, copy_ids, wall_us=wall_us))


async def synced(queue: FakeQueue, journal: MemoryJournal) -> Synced:
    async with queue.taking("kim") as taking:
        return await sync(taking, journal, selection(), wall_us=lambda: LATER_US)


async def indexed_ids(journal: MemoryJournal, state: LetterState = LetterState.DEAD) -> set[str]:
    return {each.copy_id for each in await journal.page(Sought(queue="dead", state=state))}


# -- sync -------------------------------------------------------------------------------------------------------------


async def test_sync_adds_what_the_index_lacks_and_says_so() -> None:
    """Of any maker; twice is the same as once, over several windows."""
    letters = [the_brokers(number) if number % 3 else ours(number) for number in range(WINDOW + 10)]
    queue, journal = FakeQueue(letters), MemoryJournal()
    await journal.add([selection().row(letter) for letter in letters[5:25]])
    before = list(queue.letters)

    first, second = await synced(queue, journal), await synced(queue, journal)

    assert first == Synced(found=WINDOW + 10, added=WINDOW - 10, gone=0, complete=True)
    assert second == Synced(found=WINDOW + 10, added=0, gone=0, complete=True)
    assert queue.letters == before
    rows = {row.copy_id: row for row in await journal.page(Sought(queue="dead"), limit=1000)}
    assert rows.keys() == {letter_key(letter) for letter in letters}
    assert (rows["copy-1"].reason, rows["copy-1"].order_id, rows["copy-1"].fields) == (
        "broker:expired",
        101,
        {"status": 4},
    )


async def test_sync_finds_out_what_is_gone() -> None:
    """Whoever took it; and what is back in the queue is a dead letter again."""
    journal = MemoryJournal()
    await journal.add([selection().row(ours(number)) for number in range(4)])
    await journal.mark(["copy-3"], LetterState.REPLAYED, wall_us=NOW_US)

    result = await synced(FakeQueue([ours(0), ours(3)]), journal)

    assert result == Synced(found=2, added=0, gone=2, complete=True)
    assert await indexed_ids(journal) == {"copy-0", "copy-3"}
    assert await indexed_ids(journal, LetterState.REMOVED) == {"copy-1", "copy-2"}


async def test_sync_calls_nothing_gone_that_others_hold() -> None:
    """Not everything was seen."""
    journal = MemoryJournal()
    await journal.add([selection().row(ours(number)) for number in range(2)])

    result = await synced(FakeQueue([ours(0)], others=True), journal)

    assert result == Synced(found=1, added=0, gone=0, complete=False)
    assert await indexed_ids(journal) == {"copy-0", "copy-1"}


async def test_sync_calls_nothing_gone_that_failed_while_it_looked() -> None:
    """Its copy may have come behind the last one that was looked at; clocks differ, too."""
    journal = MemoryJournal()
    late, early = selection().row(ours(1)), selection().row(ours(2))
    late_us, early_us = LATER_US - MARGIN_US, LATER_US - MARGIN_US - 1
    await journal.add([replace(late, failed_us=late_us), replace(early, failed_us=early_us)])

    assert await synced(FakeQueue(), journal) == Synced(found=0, added=0, gone=1, complete=True)
    assert await indexed_ids(journal) == {"copy-1"}


async def test_what_was_there_a_moment_ago_is_gone_when_it_is_not_there_now() -> None:
    """The look before this one does not count, however lately it was."""
    journal, queue = MemoryJournal(), FakeQueue([ours(0), ours(1)])
    await synced(queue, journal)
    del queue.letters[0]
    async with queue.taking("kim") as taking:
        result = await sync(taking, journal, selection(), wall_us=lambda: LATER_US + 1)

    assert result == Synced(found=1, added=0, gone=1, complete=True)


async def test_letters_that_are_alike_are_one_in_the_index() -> None:
    """Without a message id nothing tells them apart."""
    alike = [the_brokers(1), the_brokers(1)]
    journal = MemoryJournal()

    assert await synced(FakeQueue(alike), journal) == Synced(found=2, added=1, gone=0, complete=True)


async def test_a_sync_that_broke_is_simply_repeated() -> None:
    """At any point: nothing is called gone that is there, and the second time it is complete."""
    for breaks_at in itertools.count():
        queue, journal = FakeQueue([ours(number) for number in range(3)]), BreakingJournal()
        await journal.add([selection().row(ours(0))])
        queue.effects = journal.effects = Effects(breaks_at)
        try:
            await synced(queue, journal)
        except Broke:
            assert await indexed_ids(journal, LetterState.REMOVED) == set()
        else:
            break
        queue.effects = journal.effects = Effects()
        assert (await synced(queue, journal)).found == 3
        assert await indexed_ids(journal) == {"copy-0", "copy-1", "copy-2"}

    assert breaks_at >= 5


# -- selection and export ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sought", "numbers"),
    [
        ({}, [0, 1, 2, 3]),
        ({"reason": "rejected"}, [0, 2]),
        ({"reason": "broker:expired"}, [3]),
        ({"order_ids": (101, 103)}, [1, 3]),
        ({"message_ids": ("m-0", "copy-2")}, [0, 2]),
        ({"since_us": NOW_US + HOUR}, [1, 2]),
        ({"until_us": NOW_US + HOUR}, [0, 3]),
        ({"reason": "rejected", "since_us": NOW_US + HOUR}, [2]),
    ],
)
async def test_an_export_has_the_letters_that_are_meant_and_changes_nothing(
    sought: dict[str, Any], numbers: list[int]
) -> None:
    """Oldest first."""
    letters = [ours(0), ours(1, Reason.BUSY, hours=1), ours(2, hours=2), the_brokers(3)]
    queue, paper = FakeQueue(letters), Paper()
    async with queue.taking("kim") as taking:
        result = await export(taking, selection(**sought), paper)

    assert paper.copy_ids() == [f"copy-{number}" for number in numbers]
    assert result == Taken(looked=4, chosen=len(numbers), complete=True)
    assert queue.letters == letters


async def test_a_letter_without_a_time_is_as_old_as_the_index_says() -> None:
    """So it is found by the day on which it was first seen."""
    letter, journal, paper = read_dead_letter(make_delivery(message_id="copy-1")), MemoryJournal(), Paper()
    await journal.add([replace(selection().row(letter), failed_us=NOW_US)])
    async with FakeQueue([letter]).taking("kim") as taking:
        old = await export(taking, selection(journal, until_us=NOW_US + 1), paper)
    async with FakeQueue([letter]).taking("kim") as taking:
        new = await export(taking, selection(journal, since_us=NOW_US + 1), paper)

    assert (old.chosen, new.chosen) == (1, 0)


# -- discard ----------------------------------------------------------------------------------------------------------


async def discarded(queue: FakeQueue, paper: Paper, journal: MemoryJournal, **sought: Any) -> Taken:
    async with queue.taking("kim") as taking:
        return await discard(taking, selection(**sought), paper, journal, by="kim@desk", wall_us=lambda: LATER_US)


async def test_what_is_discarded_is_in_the_file_the_history_and_the_index() -> None:
    """And only that is gone; also what the index did not know."""
    letters = [ours(0), ours(1, Reason.BUSY), the_brokers(2), ours(3)]
    queue, paper, journal = FakeQueue(letters), Paper(), MemoryJournal()
    await journal.add([selection().row(letters[0])])

    result = await discarded(queue, paper, journal, reason="rejected")

    assert result == Taken(looked=4, chosen=2, complete=True)
    assert paper.copy_ids() == ["copy-0", "copy-3"]
    assert queue.letters == [letters[1], letters[2]]
    assert await indexed_ids(journal, LetterState.REMOVED) == {"copy-0", "copy-3"}
    ((_, row),) = await journal.history(103)
    assert (row.disposition, row.reason, row.worker, row.message_id) == (DISCARDED, "rejected", "kim@desk", "m-3")
    assert (row.fields, row.at_us, row.detail) == ({"status": 4}, LATER_US, "detail 3")


async def test_nothing_is_lost_wherever_discarding_breaks() -> None:
    """Each letter is in the queue, or durably in the file; repeating it finishes the job."""
    everything = {f"copy-{number}" for number in range(3)}
    for breaks_at in itertools.count():
        queue, journal = FakeQueue([ours(number) for number in range(3)]), BreakingJournal()
        effects = Effects(breaks_at)
        queue.effects = journal.effects = effects
        paper = Paper(effects)
        try:
            await discarded(queue, paper, journal)
        except Broke:
            left = {letter_key(letter) for letter in queue.letters}
            assert left | set(paper.copy_ids()) == everything
            assert everything - left <= await indexed_ids(journal, LetterState.REMOVED)
        else:
            break
        queue.effects = journal.effects = Effects()
        await discarded(queue, Paper(), journal)
        assert queue.letters == []
        assert await indexed_ids(journal, LetterState.REMOVED) == everything

    assert breaks_at >= 15
