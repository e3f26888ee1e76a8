"""History, retention and pauses, the same on every journal (``journalports.Archive``, ``journalports.Pauses``)."""

from tests.contract.journals import CLAIM_US, NOW, SECOND, AnyJournal, Pair, applied, fresh_id, record_of, version
from worker.adapters.journal.memory import MemoryJournal
from worker.core.fields import INT64_MIN
from worker.core.history import HistoryRow, IndexedLetter, ItemState, LetterState, Pause, PauseKind, Replay, ReplayItem
from worker.core.journal import BatchRecord, OrderOutcome
from worker.journalports import Archive

DAY = 86_400 * SECOND


def row(order_id: int, at_us: int = NOW, message_id: str = "m") -> HistoryRow:
    return HistoryRow(at_us=at_us, disposition="ack", reason="applied", order_id=order_id, message_id=message_id)


def letter(order_id: int, copy_id: str) -> IndexedLetter:
    return IndexedLetter(copy_id=copy_id, queue="dead", reason="rejected", failed_us=NOW, order_id=order_id)


async def pruned(archive: Archive, before_us: int, limit: int = 2) -> int:
    """All the steps until nothing is left."""
    total = 0
    while step := await archive.prune(before_us, limit=limit):
        total += step
    return total


async def test_history_comes_back_as_it_was_recorded(pair: Pair, one: int) -> None:
    """Every field of it, in the order of recording; what no database stores as text is escaped."""
    full = HistoryRow(
        at_us=NOW,
        disposition="dead",
        reason="rejected",
        order_id=one,
        message_id="m-1",
        event_id="e-1",
        fields={"status": 4, "shipping_carrier": None},
        version=version(5, "id\udcff"),
        attempt=3,
        detail="not allowed",
        batch_id="b-7",
        replay_id="r-1",
        worker="w",
        status=8,
        status_name="Dispatched",
    )
    bare = HistoryRow(at_us=NOW + 1, disposition="dead", reason="invalid-event", order_id=one, message_id="\x00\udcff")
    await pair.a.record(BatchRecord(wall_us=NOW, history=[full, row(one + 1), bare]))

    found = [each for _, each in await pair.b.history(one)]

    assert found[0] == full
    assert found[1].message_id in ("\x00\udcff", "\\x00\\udcff")
    assert len(found) == 2


async def test_history_comes_in_pages(pair: Pair, one: int) -> None:
    """The number of the last row leads to the next page."""
    await pair.a.record(BatchRecord(wall_us=NOW, history=[row(one, NOW + n) for n in range(5)]))

    times: list[int] = []
    after = 0
    while page := await pair.a.history(one, after=after, limit=2):
        times += [each.at_us for _, each in page]
        after = page[-1][0]

    assert times == [NOW + n for n in range(5)]


async def test_a_record_is_all_or_nothing(pair: Pair, one: int) -> None:
    """A row that cannot be stored takes versions and history of its batch along: nothing is half done."""
    outcome = OrderOutcome(revision=1, applied=applied(1))
    broken = row(one, at_us=2**70)
    try:
        await pair.a.record(BatchRecord(wall_us=NOW, orders={one: outcome}, history=[row(one), broken]))
    except Exception:  # noqa: BLE001 - each database has its own word for it
        assert await pair.a.known([one]) == {}
        assert await pair.a.history(one) == []
    else:
        assert isinstance(pair.a, MemoryJournal)


async def test_pruning_forgets_what_is_over(own: AnyJournal) -> None:
    """History, letters that left the queue, replays: by age, in steps."""
    await own.record(BatchRecord(wall_us=NOW, history=[row(1, NOW - 4 + n) for n in range(5)] + [row(1, NOW + DAY)]))
    await own.add([letter(2, "gone"), letter(3, "there")])
    await own.mark(["gone"], LetterState.REPLAYED, wall_us=NOW)
    await own.begin(replay("r-old", NOW))
    await own.begin(replay("r-new", NOW + DAY))
    await own.plan("r-old", [ReplayItem(place=n, copy_id=f"c{n}", state=ItemState.PLANNED) for n in range(5)])

    assert await pruned(own, NOW - 1) == 3
    await pruned(own, NOW + 1)

    assert [each.at_us for _, each in await own.history(1)] == [NOW + DAY]
    assert await own.replay("r-old") is None
    assert await own.items("r-old") == []
    assert await own.replay("r-new") is not None
    assert await own.mark(["gone", "there"], LetterState.REMOVED, wall_us=NOW) == 1


async def test_pruning_keeps_orders_that_are_needed(own: AnyJournal) -> None:
    """A claim, an echo, a letter in the queue: each keeps its order. What went raises the horizon.

    Orders are kept until a day has gone by since the last record.
    """
    used, claimed, owing, dead, late = range(1, 6)
    rows = await own.claim([used, claimed, owing, dead, late], wall_us=NOW)
    values = {each: applied(NOW - 10 * each) for each in (used, owing, dead, late)}
    echoes = {owing: NOW}
    outcomes = {
        each: OrderOutcome(revision=rows[each].revision, applied=values[each], echo_us=echoes.get(each))
        for each in (used, owing, dead)
    }
    await own.record(BatchRecord(wall_us=NOW, orders=outcomes))
    await own.add([letter(dead, "c")])
    await own.record(record_of(late, OrderOutcome(revision=rows[late].revision, applied=values[late]), NOW + 2 * DAY))

    assert await own.horizon_us() == INT64_MIN
    forgotten = await pruned(own, NOW + DAY)

    known = await own.claim([used, claimed, owing, dead, late], wall_us=NOW + CLAIM_US)
    assert [each for each in (claimed, owing, dead, late) if known[each].revision != 2] == []
    if isinstance(own, MemoryJournal):
        assert forgotten == 0
        return
    assert (forgotten, known[used].revision) == (1, 1)
    assert await own.horizon_us() == NOW - 10 * used + 1


async def test_the_horizon_never_goes_back(own: AnyJournal) -> None:
    """Pruning an order with older versions than those forgotten before changes nothing."""
    for order_id, time_us, wall_us in ((1, NOW, NOW - DAY), (2, NOW - DAY, NOW)):
        await own.record(record_of(order_id, OrderOutcome(revision=0, applied=applied(time_us)), wall_us))
        await pruned(own, wall_us + DAY)

    assert await own.horizon_us() in (NOW + 1, INT64_MIN)


async def test_a_pause_holds_for_all_workers_of_its_queue(pair: Pair) -> None:
    """One of each kind, the first one stays; a resume ends them all and says whether there was one."""
    queue, other = f"q{fresh_id()}\x00", f"q{fresh_id()}"
    storm = Pause(queue=other, kind=PauseKind.STORM, detail="51 %", by="a", since_us=NOW + 1)
    manual = Pause(queue=other, kind=PauseKind.MANUAL, detail="stocktaking", by="kim", since_us=NOW)
    for pause in (storm, manual, Pause(queue=other, kind=PauseKind.STORM, detail="60 %", by="b", since_us=NOW)):
        await pair.a.pause(pause)
    await pair.b.pause(Pause(queue=queue, kind=PauseKind.MANUAL, detail="", by="", since_us=NOW))

    found = await pair.b.pauses(other)
    first, second = await pair.b.resume(other), await pair.a.resume(other)

    assert found == [manual, storm]
    assert (first, second) == (True, False)
    assert await pair.a.pauses(other) == []
    assert len(await pair.a.pauses(queue)) == 1


def replay(replay_id: str, changed_us: int) -> Replay:
    return Replay(
        replay_id=replay_id,
        queue="dead",
        author="kim",
        options={"rate": 5, "set": {"status": 8}, "reasons": ["rejected"]},
        state="planned",
        created_us=NOW,
        changed_us=changed_us,
    )
