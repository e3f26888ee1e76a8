"""The index of dead letters and the replays, the same on every journal (``LetterIndex``, ``Replays``)."""

import pytest

from tests.contract.journals import NOW, Pair, fresh_id, version
from worker.core.errors import UsageError
from worker.core.history import (
    DAY_US,
    HOUR_US,
    Fate,
    GroupBy,
    HistoryRow,
    Holder,
    IndexedLetter,
    ItemState,
    LetterState,
    Replay,
    ReplayItem,
    Sought,
    Tally,
)
from worker.core.journal import BatchRecord
from worker.journalports import Holders, LetterIndex, Replays


@pytest.fixture
def index(pair: Pair) -> LetterIndex:
    return pair.a


@pytest.fixture
def replays(pair: Pair) -> Replays:
    return pair.a


@pytest.fixture
def holders(pair: Pair) -> Holders:
    return pair.a


@pytest.fixture
def queue() -> str:
    return f"dead{fresh_id()}"


def letter(queue: str, number: int, reason: str = "rejected", order_id: int | None = 1) -> IndexedLetter:
    return IndexedLetter(
        copy_id=f"{queue}-c{number}",
        queue=queue,
        reason=reason,
        failed_us=NOW + number * DAY_US // 2,
        order_id=order_id,
        message_id=f"{queue}-m{number}",
        detail=f"detail {number}",
    )


async def numbers(index: LetterIndex, sought: Sought) -> list[int]:
    return [int(each.message_id.rpartition("m")[2]) for each in await index.page(sought)]


async def test_letters_are_indexed_once(pair: Pair, queue: str) -> None:
    """Everything comes back; a copy that is there already stays as it is."""
    full = IndexedLetter(
        copy_id=f"{queue}-x",
        queue=queue,
        reason="rejected",
        failed_us=NOW,
        order_id=2**63 - 1,
        message_id="m\x00",
        event_id="e",
        detail="d\udcff",
        fields={"status": 4},
        version=version(3, "m\x00"),
        attempt=2,
        exchange="ex",
        routing_key="key",
        batch_id="b",
        replay_id="r",
        worker="w",
    )
    await pair.a.add([full])
    await pair.b.add([full, letter(queue, 2)])

    first, second = await pair.b.page(Sought(queue=queue))
    (found,) = await pair.b.page(Sought(queue=queue, message_ids=("m\x00",)))

    assert (first.fields, first.version, first.state) == ({"status": 4}, full.version, LetterState.DEAD)
    assert (first.order_id, first.event_id, first.routing_key) == (full.order_id, "e", "key")
    assert first.seq < second.seq
    assert found == first


async def test_letters_are_found_by_what_is_known_of_them(index: LetterIndex, queue: str) -> None:
    """Reason, orders, message ids (of event or copy), time, state, and all of it together."""
    await index.add([letter(queue, 1), letter(queue, 2, "busy"), letter(queue, 3, order_id=7), letter(queue, 4)])
    await index.mark([f"{queue}-c4"], LetterState.REPLAYED, wall_us=NOW)
    both = (f"{queue}-m1", f"{queue}-c3")

    assert await numbers(index, Sought(queue=queue)) == [1, 2, 3]
    assert await numbers(index, Sought(queue=queue, reason="busy")) == [2]
    assert await numbers(index, Sought(queue=queue, detail="detail 2")) == [2]
    assert await numbers(index, Sought(queue=queue, order_ids=(7, 8))) == [3]
    assert await numbers(index, Sought(queue=queue, message_ids=both)) == [1, 3]
    assert await numbers(index, Sought(queue=queue, since_us=NOW + DAY_US, until_us=NOW + DAY_US + 1)) == [2]
    assert await numbers(index, Sought(queue=queue, state=LetterState.REPLAYED)) == [4]
    assert await numbers(index, Sought(queue=queue, order_ids=(1,), message_ids=both, reason="rejected")) == [1]
    assert await numbers(index, Sought(queue="none")) == []


async def test_letters_come_in_pages(index: LetterIndex, queue: str) -> None:
    """Each page begins behind the last letter of the one before; a short one is the last."""
    await index.add([letter(queue, number) for number in range(5)])

    first = await index.page(Sought(queue=queue), limit=3)
    second = await index.page(Sought(queue=queue), after=first[-1].seq, limit=3)

    assert [len(first), len(second)] == [3, 2]
    assert await index.page(Sought(queue=queue), after=second[-1].seq, limit=3) == []


async def test_letters_are_counted(index: LetterIndex, queue: str) -> None:
    """By reason, detail, order, day and hour; the most frequent first, with the detail of the latest."""
    await index.add([letter(queue, 0), letter(queue, 1, "busy", 7), letter(queue, 2)])
    sought = Sought(queue=queue)
    later = NOW + DAY_US

    assert await index.tallies(sought, GroupBy.REASON) == [
        Tally(key="rejected", count=2, oldest_us=NOW, newest_us=later, example="detail 2"),
        Tally(key="busy", count=1, oldest_us=NOW + DAY_US // 2, newest_us=NOW + DAY_US // 2, example="detail 1"),
    ]
    assert [(each.key, each.count) for each in await index.tallies(sought, GroupBy.ORDER)] == [(1, 2), (7, 1)]
    days = {each.key: each.count for each in await index.tallies(sought, GroupBy.DAY)}
    assert days == {NOW // DAY_US: 2, NOW // DAY_US + 1: 1} or sum(days.values()) == 3
    assert {each.key for each in await index.tallies(sought, GroupBy.DETAIL)} == {"detail 0", "detail 1", "detail 2"}
    hours = {each.key for each in await index.tallies(sought, GroupBy.HOUR)}
    assert hours == {(NOW + number * DAY_US // 2) // HOUR_US for number in range(3)}
    assert len(await index.tallies(sought, GroupBy.REASON, limit=1)) == 1
    assert await index.tallies(Sought(queue="none"), GroupBy.REASON) == []


async def test_marking_counts_what_changed(index: LetterIndex, queue: str) -> None:
    """Saying it twice, or of letters that are unknown, changes nothing."""
    await index.add([letter(queue, 1), letter(queue, 2)])
    ids = [f"{queue}-c1", f"{queue}-c2", "unknown"]

    assert await index.mark(ids, LetterState.REPLAYED, wall_us=NOW) == 2
    assert await index.mark(ids, LetterState.REPLAYED, wall_us=NOW + 1) == 0
    assert [each.state_us for each in await index.page(Sought(queue=queue, state=LetterState.REPLAYED))] == [NOW, NOW]
    assert await index.mark([], LetterState.REPLAYED, wall_us=NOW) == 0


async def test_a_replay_keeps_its_plan(replays: Replays, queue: str) -> None:
    """Frozen: in order, each message with what became of it."""
    replay = Replay(
        replay_id=queue,
        queue=queue,
        author="kim",
        options={"rate": 5, "set": {"status": 8}, "reasons": ["rejected"]},
        state="planned",
        created_us=NOW,
        changed_us=NOW,
    )
    items = [ReplayItem(place=number, copy_id=f"c{number}", state=ItemState.PLANNED) for number in range(5)]
    await replays.begin(replay)
    await replays.plan(queue, items[3:])
    await replays.plan(queue, items[:3])
    done = ReplayItem(place=1, copy_id="c1", state=ItemState.SUPERSEDED, detail="by m9")
    await replays.plan(queue, [done])
    await replays.plan(queue, [])
    await replays.turn(queue, "running", wall_us=NOW + 1)

    first = await replays.items(queue, limit=2)
    rest = await replays.items(queue, after=first[-1].place)
    found = await replays.replay(queue)

    assert [*first, *rest] == [items[0], done, *items[2:]]
    assert found is not None
    assert (found.state, found.changed_us, found.options) == ("running", NOW + 1, replay.options)
    assert await replays.replay("unknown") is None
    assert await replays.find(queue, ["c1", "c4", "c9"]) == {"c1": done, "c4": items[4]}
    assert await replays.states(queue) == {ItemState.PLANNED: 4, ItemState.SUPERSEDED: 1}
    assert (await replays.states("unknown"), await replays.find("unknown", ["c1"])) == ({}, {})


async def test_a_replay_id_is_taken_once(replays: Replays, queue: str) -> None:
    """Two people with the same id would mix their plans."""
    replay = Replay(
        replay_id=queue, queue=queue, author="a", options={}, state="planned", created_us=NOW, changed_us=NOW
    )
    await replays.begin(replay)

    with pytest.raises(UsageError, match="already"):
        await replays.begin(replay)


async def test_the_latest_row_of_each_replayed_message_is_its_outcome(pair: Pair, queue: str) -> None:
    """By its place in the replay, whatever else happened to its order."""

    def row(place: int | None, disposition: str, reason: str, replay_id: str | None = queue) -> HistoryRow:
        return HistoryRow(
            at_us=NOW, disposition=disposition, reason=reason, order_id=1, replay_id=replay_id, replay_place=place
        )

    await pair.a.record(
        BatchRecord(wall_us=NOW, history=[row(0, "retry", "busy"), row(1, "ack", "applied"), row(4, "ack", "applied")])
    )
    await pair.b.record(
        BatchRecord(
            wall_us=NOW, history=[row(0, "dead", "rejected"), row(None, "ack", "applied"), row(2, "x", "y", None)]
        )
    )

    outcomes = await pair.a.outcomes(queue)

    assert {place: each.reason for place, each in outcomes.items()} == {0: "rejected", 1: "applied", 4: "applied"}
    assert list(await pair.a.outcomes(queue, after=0, limit=1)) == [1]
    assert await pair.b.fates(queue) == {Fate("dead", "rejected"): 1, Fate("ack", "applied"): 2}
    assert await pair.a.fates("unknown") == {}


async def test_the_replays_of_a_queue_come_latest_first(replays: Replays, queue: str) -> None:
    """At most as many as asked for."""
    for number in range(3):
        await replays.begin(
            Replay(
                replay_id=f"{queue}-{number}",
                queue=queue,
                author="kim",
                options={},
                state="planned",
                created_us=NOW + number,
                changed_us=NOW,
            )
        )

    assert [each.replay_id for each in await replays.replays(queue, limit=2)] == [f"{queue}-2", f"{queue}-1"]
    assert await replays.replays("none") == []


async def test_what_a_whole_look_did_not_see_is_gone(index: LetterIndex, queue: str) -> None:
    """What is seen is in the queue, whatever was said before; what failed later is not the look's business."""
    await index.add([letter(queue, number) for number in range(4)])
    await index.mark([f"{queue}-c0"], LetterState.REPLAYED, wall_us=NOW)
    looked_us = NOW + DAY_US + 1

    seen = await index.seen([f"{queue}-c0", f"{queue}-c1", "unknown"], wall_us=looked_us)
    gone = await index.forget_unseen(queue, looked_us, wall_us=looked_us)

    assert (seen, gone) == (2, 1)
    assert sorted(await numbers(index, Sought(queue=queue))) == [0, 1, 3]
    assert await numbers(index, Sought(queue=queue, state=LetterState.REMOVED)) == [2]
    assert await index.forget_unseen(queue, looked_us, wall_us=looked_us) == 0


async def test_what_failed_just_before_the_look_may_have_been_overlooked(index: LetterIndex, queue: str) -> None:
    """Within the margin it is not called gone; what was seen before that look is, however lately."""
    await index.add([letter(queue, number) for number in range(2)])
    await index.seen([f"{queue}-c0"], wall_us=NOW + DAY_US - 1)

    gone = await index.forget_unseen(queue, NOW + DAY_US, margin_us=DAY_US // 2, wall_us=NOW)

    assert gone == 1
    assert await numbers(index, Sought(queue=queue)) == [1]


async def test_the_last_holder_of_a_queue_is_known(holders: Holders, queue: str) -> None:
    """A new one takes the place of the one before."""
    await holders.hold(queue, Holder(by="kim", since_us=NOW))
    await holders.hold(queue, Holder(by="sam", since_us=NOW + 1))

    assert await holders.holder(queue) == Holder(by="sam", since_us=NOW + 1)
    assert await holders.holder("none") is None
