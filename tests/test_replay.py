"""Replays on fakes: what is planned, what is moved in which order, and that breaking anywhere loses nothing."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import make_delivery
from tests.support.fakequeue import Broke, Effects
from tests.support.replaynight import BAD_NIGHT, bad_night, whole_story
from tests.support.replaystage import ID, Stage, dead_letter, invalid_letter
from tests.support.virtualtime import run_virtual
from worker.core.deadletter import letter_key, read_dead_letter
from worker.core.edits import Edits
from worker.core.errors import (
    ConnectionLost,
    CopyFailed,
    CopyReturned,
    CopyUnencodable,
    JournalUnavailable,
    QueueHeld,
)
from worker.core.forecast import Cell, Kind
from worker.core.history import ItemState, LetterState, Sought
from worker.core.model import Ack, AckReason, Dead, Reason, Retry
from worker.replay.care import Ended
from worker.replay.executing import Execution


async def test_a_plan_counts_what_would_come_of_each() -> None:
    """By reason and kind, with a detail of the first."""
    stage = await bad_night()
    plan = await stage.plan()

    assert plan.tallies.cells() == [
        Cell(reason="rejected", kind=Kind.APPLY, count=3, example=""),
        Cell(reason="rejected", kind=Kind.SUPERSEDED, count=1, example="status is 8 since 2026-11-21T10:00:09.000000Z"),
        Cell(reason="invalid-event", kind=Kind.RETURNS, count=1, example="invalid-event: id: wrong"),
        Cell(
            reason="terminal-order",
            kind=Kind.RETURNS,
            count=1,
            example="terminal-order: status is 64 since 2026-11-21T10:00:00.000000Z, which an order does not leave",
        ),
    ]
    assert await stage.state() == "planned"
    assert list(await stage.states()) == [letter_key(letter) for letter in BAD_NIGHT]
    assert len(stage.queue.letters) == 6
    assert stage.outlet.sent == []


async def test_a_plan_has_what_was_asked_for_and_no_more() -> None:
    """Selection and limit, page by page."""
    letters = [dead_letter(order_id, reason=Reason.REJECTED) for order_id in range(1, 2503)]
    stage = Stage([*letters, dead_letter(9999, reason=Reason.BUSY)])
    await stage.index()

    assert (await stage.plan(reason="rejected", replay_id="r-2")).tallies.total == 2502
    assert (await stage.plan(limit=1500, replay_id="r-3")).tallies.total == 1500
    assert (await stage.plan(order_ids=(7, 8), replay_id="r-4")).tallies.total == 2
    assert (await stage.plan(limit=0, replay_id="r-5")).tallies.total == 0
    places = [item.place for item in await stage.journal.items("r-2", after=2000)]
    assert places == list(range(2001, 2502))


async def test_executing_brings_each_planned_letter_to_its_end() -> None:
    """Copies for what applies, a row of history for what is superseded; the rest stays, and what came later, too."""
    stage = await bad_night()
    await stage.plan()
    late = dead_letter(6)
    stage.queue.letters.append(late)
    result = await stage.execute()
    await stage.work()

    assert result.ended is Ended.DONE
    assert await stage.state() == "done"
    assert list((await stage.states()).values()) == [
        ItemState.MOVED, ItemState.MOVED, ItemState.SUPERSEDED, ItemState.LEFT, ItemState.LEFT, ItemState.MOVED,
    ]  # fmt: skip
    assert stage.left() == ["copy-4-invalid", "copy-5-0", "copy-6-0"]
    assert [(exchange, key) for exchange, key, _, _ in stage.outlet.sent] == [
        ("work", "1"),
        ("work", "2"),
        ("work", "1"),
    ]
    [(_, row)] = await stage.journal.history(3)
    assert (row.disposition, row.reason, row.replay_id, row.replay_place, row.worker) == (
        "ack", "superseded", ID, 2, "order-worker dead",
    )  # fmt: skip
    assert (await stage.status(1), await stage.status(3)) == (5, 8)
    found = await stage.journal.page(Sought(queue="dead", state=LetterState.REPLAYED))
    assert [letter.copy_id for letter in found] == ["copy-1-0", "copy-2-0", "copy-1-1"]
    assert [letter.copy_id for letter in await stage.journal.page(Sought(queue="dead", state=LetterState.REMOVED))] == [
        "copy-3-0"
    ]


async def test_superseded_letters_stay_where_that_is_wanted() -> None:
    """``--keep-superseded``: told, and left."""
    stage = await bad_night()
    await stage.plan(keep_superseded=True, order_ids=(3,))
    await stage.execute()

    [item] = await stage.journal.items(ID)
    assert (item.state, item.detail) == (ItemState.LEFT, "status is 8 since 2026-11-21T10:00:09.000000Z")
    assert len(stage.queue.letters) == 6


async def test_a_terminal_order_takes_it_where_that_is_allowed() -> None:
    """And the copy says so, for the worker."""
    stage = await bad_night()
    await stage.plan(allow_terminal=True, order_ids=(5,))
    await stage.execute()

    assert [properties.headers["ow-allow-terminal"] for _, _, _, properties in stage.outlet.sent] == [True]


async def test_what_is_not_in_the_queue_any_more_is_missing() -> None:
    """Somebody else moved it; only if nobody holds any."""
    stage = await bad_night()
    await stage.plan(order_ids=(1, 2))
    del stage.queue.letters[1]
    stage.queue.others = True
    partly = await stage.execute()
    stage.queue.others = False
    done = await stage.execute()

    assert (partly.ended, done.ended) == (Ended.PARTLY, Ended.DONE)
    assert (await stage.states())["copy-2-0"] is ItemState.MISSING
    assert [letter.copy_id for letter in await stage.journal.page(Sought(queue="dead", state=LetterState.REMOVED))] == [
        "copy-2-0"
    ]


async def test_two_letters_of_one_id_that_others_made_both_go() -> None:
    """The broker's own dead letters have the ids of their producers, and those may be the same."""
    death = {"reason": "delivery_limit", "exchange": "order-updates", "queue": "work", "routing-keys": ["7"]}
    twins = [
        read_dead_letter(make_delivery({"id": order_id, "status": 4}, message_id="same", headers={"x-death": [death]}))
        for order_id in (7, 8)
    ]
    stage = Stage(twins)
    await stage.index()
    await stage.plan()
    await stage.execute()
    await stage.work()

    assert stage.left() == []
    assert (await stage.status(7), await stage.status(8)) == (4, 4)


async def test_an_unknown_origin_is_left_and_said() -> None:
    """Without --exchange nobody knows where a foreign letter belongs."""
    stage = Stage([read_dead_letter(make_delivery({"id": 7, "status": 4}, message_id="theirs"))])
    await stage.index()
    await stage.plan()
    replay = await stage.journal.replay(ID)
    assert replay is not None
    stage.journal._replays[ID] = replace(replay, options={"queue": "dead"})
    await stage.execute()

    [item] = await stage.journal.items(ID)
    assert (item.state, item.detail[:28]) == (ItemState.LEFT, "nobody says which exchange i")


# -- breaking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("works", [True, False], ids=["a worker runs", "the worker comes later"])
async def test_killed_at_any_effect_nothing_is_lost_and_resuming_ends_it(works: bool) -> None:
    """At each point before and after each effect; a second copy has no effect."""
    for point in itertools.count():
        stage = await bad_night()
        await stage.plan()
        stage.break_at(Effects(point))
        try:
            await stage.execute()
        except Broke:
            broke = True
        else:
            broke = False
        stage.break_at(Effects())
        if works:
            await stage.work()
        await stage.execute()
        await stage.work()
        await whole_story(stage)
        if not broke:
            break

    assert point > 30


class Hiccup(Effects):
    """One of the effects fails, once, in the way of its kind; then all is well again."""

    def __init__(self, error: Exception, shared: list[int], at: int) -> None:
        super().__init__()
        self._error = error
        self._shared = shared
        self._at = at

    def step(self) -> None:
        """Fail if it is the one."""
        self._shared[0] += 1
        if self._shared[0] == self._at:
            raise self._error


def test_a_hiccup_of_anything_at_any_effect_is_survived_in_the_same_run() -> None:
    """Broker, publisher and journal go away and come back: the replay goes on by itself."""

    async def once(point: int, counts: list[int]) -> None:
        stage = await bad_night()
        await stage.plan()
        stage.effects = Hiccup(JournalUnavailable("away"), counts, point)
        stage.queue.effects = Hiccup(ConnectionLost("gone"), counts, point)
        stage.outlet.effects = Hiccup(CopyFailed("not confirmed"), counts, point)
        result = await stage.execute(clock=asyncio.get_running_loop().time)
        await stage.work()

        assert result.ended is Ended.DONE
        if await stage.state() == "done":  # else the journal was away for that very word
            await whole_story(stage)
        else:
            assert point >= counts[0] - 2

    for point in itertools.count(1):
        counts = [0]
        run_virtual(once(point, counts))
        if counts[0] < point:
            break
    assert point > 30


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda stage, error: stage.outlet.failures.extend([error] * 10_000), CopyFailed("not confirmed")),
        (lambda stage, error: stage.outlet.failures.extend([error] * 10_000), ConnectionLost("gone")),
    ],
)
def test_patience_ends_and_it_can_be_resumed(spoil: Callable[[Stage, Exception], None], error: Exception) -> None:
    """A minute without any progress is enough; nothing is lost."""

    async def story() -> None:
        stage = await bad_night()
        await stage.plan()
        spoil(stage, error)
        result = await stage.execute(clock=asyncio.get_running_loop().time)

        assert (result.ended, result.detail) == (Ended.GAVE_UP, str(error))
        assert await stage.state() == "stopped"
        assert len(stage.queue.letters) == 5  # the superseded one went
        stage.outlet.failures.clear()
        assert (await stage.execute()).ended is Ended.DONE
        await stage.work()
        await whole_story(stage)

    run_virtual(story())


async def test_a_missing_binding_stops_at_once() -> None:
    """Waiting would not help; what was confirmed beside it stays so."""
    stage = await bad_night()
    await stage.plan()
    stage.outlet.failures.append(CopyReturned("returned: no queue is bound"))
    result = await stage.execute()

    assert (result.ended, result.detail) == (Ended.UNROUTABLE, "returned: no queue is bound")
    assert await stage.state() == "stopped"
    assert list((await stage.states()).values()).count(ItemState.MOVED) == 2


async def test_what_cannot_be_encoded_goes_bare_or_stays() -> None:
    """Its own fault: first without its properties, then not at all."""
    stage = await bad_night()
    await stage.plan(order_ids=(1,))
    stage.outlet.failures += [CopyUnencodable("too large"), CopyUnencodable("still too large"), CopyUnencodable("x")]
    await stage.execute()

    states = await stage.journal.items(ID)
    assert [item.state for item in states] == [ItemState.LEFT, ItemState.MOVED]
    assert states[0].detail == "no copy of it can be made: still too large"
    [(_, _, _, properties)] = stage.outlet.sent
    assert properties.headers["ow-replay-id"] == ID


async def test_the_queue_of_somebody_else_is_not_waited_for() -> None:
    """Who holds it is told; the plan stays."""
    stage = await bad_night()
    await stage.plan()

    class Held:
        def taking(self, holder: str) -> Any:
            raise QueueHeld(f"taken by sam, not {holder}")

    with pytest.raises(QueueHeld, match="taken by sam"):
        await stage.execute(queue=Held())
    assert await stage.state() == "planned"


async def test_stopping_finishes_what_is_under_way() -> None:
    """Ctrl-C: what went is journalled and out of the queue, the rest is open."""
    letters = [dead_letter(order_id) for order_id in range(1, 301)]
    stage = Stage(letters)
    await stage.index()
    await stage.plan()
    running: list[Execution] = []
    running.append(await stage.execution(told=lambda *_: running[0].stop()))
    result = await running[0].run()

    assert result.ended is Ended.STOPPED
    assert await stage.state() == "stopped"
    assert len(stage.outlet.sent) == 100
    assert stage.left() == [f"copy-{order_id}-0" for order_id in range(101, 301)]
    assert (await stage.execute()).ended is Ended.DONE
    assert stage.left() == []
    assert len(stage.outlet.sent) == 300


# -- edits ------------------------------------------------------------------------------------------------------------


async def test_edited_letters_go_with_the_new_value() -> None:
    """An event that was invalid may be one now."""
    stage = Stage([invalid_letter(7, b'{"id":7,"status":"Dispatched"}'), dead_letter(8)])
    await stage.index()
    edits = Edits({"status": 8})
    plan = await stage.plan(edits=edits)
    result = await stage.execute(edits=edits)
    await stage.work()

    assert plan.tallies.by_kind[Kind.UNJUDGED] == 1
    assert result.ended is Ended.DONE
    assert (await stage.status(7), await stage.status(8)) == (8, 8)
    assert json.loads(stage.outlet.sent[0][2]) == {"id": 7, "status": 8}


async def test_one_edited_body_that_is_no_event_and_nothing_moves() -> None:
    """All of them are told, at most twenty in full."""
    broken = [invalid_letter(order_id, b'{"id":0}') for order_id in range(10, 40)]
    stage = Stage([dead_letter(1), *broken])
    await stage.index()
    edits = Edits({"status": 8})
    await stage.plan(edits=edits)
    result = await stage.execute(edits=edits)

    assert (result.ended, result.detail) == (Ended.REFUSED, "30 edited letters are no events; nothing was moved")
    assert len(result.problems) == 20
    assert result.problems[0].startswith("copy-10-invalid: id: ")
    assert stage.outlet.sent == []
    assert len(stage.queue.letters) == 31
    assert await stage.state() == "planned"


# -- with care --------------------------------------------------------------------------------------------------------


async def many(count: int, **options: Any) -> Stage:
    """Letters of so many orders, planned."""
    stage = Stage([dead_letter(order_id) for order_id in range(1, count + 1)])
    await stage.index()
    await stage.plan(**options)
    return stage


class Time:
    """A clock that moves when somebody waits, and a worker that works meanwhile."""

    def __init__(self, stage: Stage, *, works: bool = True) -> None:
        self.now = 0.0
        self.stage = stage
        self.works = works
        self.sent: list[tuple[float, int]] = []

    def __call__(self) -> float:
        return self.now

    async def wait(self, seconds: float) -> bool:
        self.now += max(seconds, 1e-3)
        self.sent.append((self.now, len(self.stage.outlet.sent)))
        if self.works:
            await self.stage.work()
        return False


async def carried_out(stage: Stage, time: Time) -> Any:
    """With this time."""
    execution = await stage.execution(clock=time, wait=time.wait)
    return await execution.run()


async def test_the_canary_goes_first_and_when_it_did_well_the_rest() -> None:
    """Nothing else before each of them has an outcome; then slowly, then quicker."""
    stage = await many(200, canary=10, rate=100.0)
    time = Time(stage)
    result = await carried_out(stage, time)
    await stage.work()

    assert result.ended is Ended.DONE
    assert len(stage.applied) == 200
    assert [count for _, count in time.sent if count <= 10][-1] == 10
    assert 3.0 < time.now < 6.0  # ten, twenty, forty, eighty, the rest


async def test_a_canary_that_dies_stops_the_replay() -> None:
    """More failures than allowed: the rest is left alone."""
    stage = await many(50, canary=10)
    stage.verdicts = {3: Dead(reason=Reason.REJECTED, detail="again")}
    result = await carried_out(stage, Time(stage))

    assert (result.ended, result.detail) == (
        Ended.FAILURES, "1 are dead letters again (rejected), 0 are allowed",
    )  # fmt: skip
    assert len(stage.outlet.sent) == 10
    assert len(stage.queue.letters) == 40
    assert await stage.state() == "stopped"


async def test_a_stopped_replay_goes_on_and_counts_new_failures_only() -> None:
    """Whoever resumes has seen the old ones."""
    stage = await many(50, canary=10)
    stage.verdicts = {3: Dead(reason=Reason.REJECTED, detail="again")}
    await carried_out(stage, Time(stage))
    result = await carried_out(stage, Time(stage))

    assert result.ended is Ended.DONE
    assert stage.left() == []


async def test_a_canary_without_an_outcome_is_not_waited_for_for_ever() -> None:
    """No worker, or one with another journal; a retry is no outcome."""
    stage = await many(50, canary=10, canary_wait_s=30.0)
    stage.verdicts = {3: Retry(tier=0, reason=Reason.BUSY, detail="locked")}
    time = Time(stage)
    result = await carried_out(stage, time)

    assert result.ended is Ended.NO_OUTCOME
    assert result.detail.startswith("1 of 10 have no outcome after 30 s")
    assert time.now == pytest.approx(30, abs=2)


async def test_failures_are_looked_at_on_the_way() -> None:
    """Also behind the canary, once a second."""
    stage = await many(500, canary=10, max_failures=3, rate=50.0)
    stage.verdicts = dict.fromkeys(range(100, 500), Dead(reason=Reason.REJECTED, detail="again"))
    result = await carried_out(stage, Time(stage))

    assert result.ended is Ended.FAILURES
    assert 100 < len(stage.outlet.sent) < 220


async def test_superseded_copies_count_as_outcomes() -> None:
    """The worker may find that a newer value came in between."""
    stage = await many(20, canary=10)
    stage.verdicts = dict.fromkeys(range(1, 21), Ack(AckReason.SUPERSEDED))

    assert (await carried_out(stage, Time(stage))).ended is Ended.DONE


async def test_a_rate_is_kept() -> None:
    """Fifty at ten a second take five seconds."""
    stage = await many(50, rate=10.0)
    time = Time(stage)
    await carried_out(stage, time)

    assert time.now == pytest.approx(4.9, abs=0.2)


async def test_what_another_replay_moved_stays_known_as_moved() -> None:
    """Two plans may hold the same letter; the second one finds it missing, and the index keeps the truth."""
    stage = await bad_night()
    await stage.plan(order_ids=(1,), replay_id="r-other")
    await stage.plan(order_ids=(1,))
    await stage.execute()
    other = await (await stage.execution(replay_id="r-other")).run()

    assert other.ended is Ended.DONE
    assert set((await stage.states("r-other")).values()) == {ItemState.MISSING}
    assert len(await stage.journal.page(Sought(queue="dead", state=LetterState.REPLAYED))) == 2
