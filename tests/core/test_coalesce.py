"""The coalescer rule by rule: merging, batch limits, linger, milestones, what comes back, lost channels."""

from collections.abc import Sequence

from tests.builders import make_update
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.model import Update


def coalescer(
    *, max_batch: int = 100, max_bytes: int = 1 << 20, linger_s: float = 1.0, milestones: Sequence[int] = ()
) -> Coalescer:
    return Coalescer(max_batch=max_batch, max_bytes=max_bytes, linger_s=linger_s, milestones=milestones)


def filled(*updates: Update, at: float = 0.0, max_batch: int = 100, milestones: Sequence[int] = ()) -> Coalescer:
    buffer = coalescer(max_batch=max_batch, milestones=milestones)
    for update in updates:
        buffer.add(update, at)
    return buffer


def popped(buffer: Coalescer, now: float = 100.0) -> Batch:
    batch = buffer.pop_ready(now)
    assert batch is not None
    return batch


def ids(batch: Batch) -> list[int]:
    return [entry.order_id for entry in batch.entries]


def statuses(entry: Entry) -> list[object]:
    return [update.fields.get("status") for update in entry.updates]


# -- merging ------------------------------------------------------------------------------------------------------


def test_updates_of_one_order_become_one_entry() -> None:
    """Per field the greatest version wins, whatever order they came in; all deliveries stay attached."""
    new, old = make_update(1, status=8, at=2, tag=1), make_update(1, status=4, carrier="DPD", at=1, tag=2)
    (entry,) = popped(filled(new, old)).entries

    assert entry.updates == [new, old]
    assert entry.winners == {"status": new, "shipping_carrier": old}


def test_an_order_that_is_out_gathers_a_next_entry() -> None:
    """It is not handed out again before the first entry is finished."""
    buffer = filled(make_update(1, at=1, tag=1))
    first = popped(buffer)
    buffer.add(make_update(1, at=2, tag=2), 0.0)

    assert buffer.pop_ready(100.0) is None
    assert buffer.next_deadline() is None
    buffer.finish(first.entries[0])
    assert ids(popped(buffer)) == [1]


def test_merged_updates_cost_the_bytes_of_their_winners() -> None:
    """What is sent is one value per field."""
    small, large = make_update(1, status=4, at=1), make_update(1, carrier="x" * 100, at=2)

    assert Entry(1, [small, small, large], 0.0).size == small.size + large.size


# -- when a batch leaves ------------------------------------------------------------------------------------------


def test_an_update_leaves_after_linger() -> None:
    """Not earlier, and the deadline says when."""
    buffer = coalescer(linger_s=0.5)
    buffer.add(make_update(1), 10.0)

    assert buffer.pop_ready(10.4) is None
    assert buffer.next_deadline() == 10.5
    assert popped(buffer, 10.5).reason is FlushReason.LINGER
    assert buffer.next_deadline() is None


def test_what_comes_alone_to_an_idle_worker_leaves_at_once() -> None:
    """For as long as a linger nothing came, and nothing is out: no company is to be expected."""
    buffer = coalescer(linger_s=0.5)
    buffer.add(make_update(1, tag=1), 10.0)
    buffer.finish(popped(buffer, 10.5).entries[0])
    buffer.add_all([make_update(2, tag=2)], 10.6)

    assert buffer.next_deadline() == 10.6
    assert popped(buffer, 10.6).reason is FlushReason.LINGER


def test_what_follows_the_lone_one_waits_for_company() -> None:
    """While its call is in flight, and afterwards too: more may come."""
    buffer = coalescer(linger_s=0.5)
    buffer.add(make_update(1, tag=1), 10.0)
    popped(buffer, 10.5)
    buffer.add(make_update(2, tag=2), 11.0)
    assert buffer.pop_ready(11.0) is None
    call = popped(buffer, 11.5)
    buffer.finish(call.entries[0])
    buffer.add(make_update(3, tag=3), 11.6)

    assert buffer.next_deadline(1) == 12.6
    assert buffer.next_deadline() == 12.1


def test_linger_counts_from_the_first_update_of_an_entry() -> None:
    """Merging does not start it anew."""
    buffer = coalescer(linger_s=0.5)
    buffer.add(make_update(1, at=1, tag=1), 10.0)
    buffer.add(make_update(1, at=2, tag=2), 10.4)

    assert buffer.next_deadline() == 10.5


def test_a_full_batch_leaves_at_once() -> None:
    """What is over stays behind."""
    buffer = filled(*[make_update(n, tag=n) for n in range(1, 6)], max_batch=3)
    batch = popped(buffer, 0.0)

    assert (batch.reason, ids(batch)) == (FlushReason.SIZE, [1, 2, 3])
    assert buffer.pop_ready(0.0) is None
    assert buffer.buffered == 2


def test_a_batch_is_bounded_in_bytes() -> None:
    """It leaves when the bytes are full, and never holds more, except for one entry that is larger by itself."""
    updates = [make_update(n, carrier="x" * 300, tag=n) for n in range(1, 5)]
    buffer = coalescer(max_bytes=2 * updates[0].size + 1)
    for update in updates[:2]:
        buffer.add(update, 0.0)
    assert buffer.pop_ready(0.0) is None
    for update in updates[2:]:
        buffer.add(update, 0.0)

    batch = popped(buffer, 0.0)
    assert (batch.reason, ids(batch)) == (FlushReason.BYTES, [1, 2])
    huge = make_update(9, carrier="x" * 3000, tag=9)
    buffer.add(huge, 0.0)
    assert [ids(popped(buffer, 0.0)) for _ in range(2)] == [[3, 4], [9]]


def test_merged_away_bytes_do_not_fill_a_batch() -> None:
    """The running sum overestimates; before a batch leaves for it, it is counted anew."""
    updates = [make_update(1, status=4, at=n, tag=n) for n in range(1, 20)]
    buffer = coalescer(max_bytes=3 * updates[0].size)
    for update in updates:
        buffer.add(update, 0.0)

    assert buffer.pop_ready(0.0) is None


def test_bytes_that_gathered_behind_a_call_count_when_it_is_over() -> None:
    """A lane that becomes ready again brings its bytes along."""
    first, second = make_update(1, at=1, tag=1), make_update(1, carrier="x" * 500, at=2, tag=2)
    buffer = coalescer(max_bytes=500)
    buffer.add(first, 0.0)
    batch = popped(buffer)
    buffer.add(second, 100.0)
    buffer.add(make_update(2, tag=3), 100.0)
    assert buffer.pop_ready(100.0) is None
    buffer.finish(batch.entries[0])

    assert popped(buffer, 100.0).reason is FlushReason.BYTES


def test_after_a_full_batch_the_oldest_of_the_rest_sets_the_deadline() -> None:
    """An entry that gathered behind a call is older than its place in the queue says."""
    buffer = filled(make_update(1, at=1, tag=1), max_batch=3)
    call = popped(buffer, 1.0)
    buffer.add(make_update(1, at=2, tag=2), 3.0)
    for n, when in ((2, 0.0), (3, 3.5), (4, 3.6), (5, 3.7)):
        buffer.add(make_update(n, tag=10 + n), when)
    buffer.finish(call.entries[0])
    popped(buffer, 3.8)

    assert buffer.buffered == 2
    assert buffer.next_deadline() == 4.0
    assert popped(buffer, 4.0).reason is FlushReason.LINGER


def test_losing_the_oldest_moves_the_deadline() -> None:
    """The shell is not woken for what is gone."""
    buffer = filled(make_update(1, tag=1, generation=1))
    buffer.add(make_update(2, tag=1, generation=2), 5.0)
    buffer.lost(1)

    assert buffer.next_deadline() == 6.0


def test_draining_lets_nothing_linger() -> None:
    """Whatever is ready leaves at once."""
    buffer = filled(make_update(1))
    buffer.drain()

    assert popped(buffer, 0.0).reason is FlushReason.DRAIN


def test_calls_are_numbered_as_they_start() -> None:
    """A batch that waited gets the number of its start, and keeps its id."""
    buffer = filled(make_update(1))
    waiting = buffer.batch((), FlushReason.CONTROL)
    buffer.urge(waiting, 50.0)
    first = popped(buffer, 10.0)
    name = waiting.id

    assert popped(buffer, 50.0) is waiting
    assert (waiting.id, waiting.seq > first.seq) == (name, True)
    assert buffer.seq == waiting.seq


# -- urgent batches -------------------------------------------------------------------------------------------------


def test_an_urgent_batch_leaves_before_all_others_but_not_before_its_time() -> None:
    """While it waits the others go on; its time is a deadline."""
    buffer = filled(make_update(1))
    urgent = buffer.batch((), FlushReason.RESEND)
    buffer.urge(urgent, 0.7)

    assert buffer.pop_ready(0.6) is None
    assert buffer.next_deadline() == 0.7
    assert popped(buffer, 1.0) is urgent
    assert ids(popped(buffer, 1.0)) == [1]


def test_urge_first_overtakes_what_is_urgent() -> None:
    """The control call must not wait behind a long search."""
    buffer = coalescer()
    search, control = buffer.batch((), FlushReason.RESEND), buffer.batch((), FlushReason.CONTROL)
    buffer.urge(search)
    buffer.urge_first(control)

    assert [popped(buffer, 0.0), popped(buffer, 0.0)] == [control, search]


def test_a_probe_takes_one_entry_even_before_linger() -> None:
    """One after the other, each of another order, then what is urgent, then none."""
    buffer = filled(make_update(1, tag=1), make_update(2, tag=2))
    urgent = buffer.batch((), FlushReason.RESEND)
    buffer.urge(urgent, 1000.0)
    probes = [buffer.pop_probe() for _ in range(2)]

    assert [(ids(probe), probe.reason) for probe in probes if probe] == [
        ([1], FlushReason.PROBE),
        ([2], FlushReason.PROBE),
    ]
    assert buffer.pop_probe() is urgent
    assert buffer.pop_probe() is None


# -- coming back ----------------------------------------------------------------------------------------------------


def test_what_comes_back_merges_with_what_gathered() -> None:
    """One entry again, with the linger of the older one."""
    buffer = filled(make_update(1, status=4, at=1, tag=1))
    (entry,) = popped(buffer).entries
    buffer.add(make_update(1, status=8, at=2, tag=2), 50.0)
    buffer.put_back(entry)
    (again,) = popped(buffer).entries

    assert statuses(again) == [4, 8]
    assert again.winners["status"].fields["status"] == 8
    assert buffer.pop_ready(1000.0) is None


def test_what_goes_out_one_by_one_keeps_the_order_it_was_put_in() -> None:
    """Unmerged entries leave singly as soon as a call can start; newer updates are not merged into them."""
    buffer = filled(make_update(1, at=1, tag=1))
    popped(buffer)
    singles = [Entry(1, [make_update(1, at=n, tag=n)], 0.0) for n in (3, 4)]
    for single in singles:
        single.alone = True
    rest = Entry(1, [make_update(1, at=2, tag=2)], 0.0)
    buffer.put_first(1, (*singles, rest))
    buffer.add(make_update(1, at=5, tag=5), 0.0)
    out = []
    for _ in range(3):
        (entry,) = popped(buffer).entries
        out.append([update.delivery.tag for update in entry.updates])
        assert buffer.pop_ready(100.0) is None
        buffer.finish(entry)

    assert out == [[3], [4], [2, 5]]
    assert buffer.idle


def test_an_entry_that_took_something_in_is_no_longer_the_one_that_was_refused() -> None:
    """A refusal speaks of values that were sent, not of what was merged in since."""
    entry = Entry(1, [make_update(1, at=1, tag=1)], 0.0)
    entry.refused_at = 7
    entry.merge(make_update(1, at=2, tag=2))

    assert entry.refused_at is None


# -- milestones -----------------------------------------------------------------------------------------------------


def entries_of(buffer: Coalescer) -> list[list[object]]:
    """The statuses of what leaves, entry by entry."""
    left = []
    while (batch := buffer.pop_ready(1000.0)) is not None:
        (entry,) = batch.entries
        left.append(sorted(statuses(entry), key=str))
        buffer.finish(entry)
    return left


def test_an_entry_closes_behind_a_milestone() -> None:
    """What is newer goes into the next one, what is older is still merged."""
    updates = [make_update(1, status=s, at=at, tag=at) for s, at in ((8, 5), (4, 9), (3, 2))]

    assert entries_of(filled(*updates, milestones=(8,))) == [[3, 8], [4]]


def test_a_milestone_that_comes_late_splits_what_was_merged() -> None:
    """Newer updates move behind it, and a milestone among them still closes theirs."""
    updates = [make_update(1, status=s, at=at, tag=at) for s, at in ((2, 1), (64, 7), (4, 5), (8, 3), (1, 9))]

    assert entries_of(filled(*updates, milestones=(8, 64))) == [[2, 8], [4, 64], [1]]


def test_pending_entries_stay_in_version_order_when_one_comes_back() -> None:
    """Two milestones that are older than the returning update came while it was out."""
    buffer = filled(make_update(1, status=4, at=6, tag=6), milestones=(8, 64))
    (entry,) = popped(buffer).entries
    for status, at in ((8, 2), (64, 4), (9, 7), (3, 1)):
        buffer.add(make_update(1, status=status, at=at, tag=at), 0.0)
    buffer.put_back(entry)

    assert entries_of(buffer) == [[3, 8], [64], [4, 9]]


def test_a_returning_milestone_goes_behind_an_older_one() -> None:
    """Both are seen by the platform, the older one first."""
    buffer = filled(make_update(1, status=64, at=6, tag=6), milestones=(8, 64))
    (entry,) = popped(buffer).entries
    buffer.add(make_update(1, status=8, at=2, tag=2), 0.0)
    buffer.put_back(entry)

    assert entries_of(buffer) == [[8], [64]]


# -- lost channels --------------------------------------------------------------------------------------------------


def test_waiting_updates_of_a_lost_channel_are_forgotten() -> None:
    """Those of a newer channel stay, with their own values."""
    old, new = make_update(1, status=8, at=2, generation=1), make_update(1, status=4, at=1, generation=2)
    buffer = filled(old, new, make_update(2, generation=1, tag=5))
    gone = buffer.lost(1)
    (entry,) = popped(buffer).entries

    assert [update.delivery.tag for update in gone] == [1, 5]
    assert entry.updates == [new]
    assert entry.winners == {"status": new}


def test_a_lost_channel_takes_nothing_of_another_partition_along() -> None:
    """An order may have updates of two, where its hash moved: those of the other one stay, with their values."""
    buffer = Coalescer(max_batch=100, max_bytes=1 << 20, linger_s=0.02, partitions=2)
    kept = make_update(1, status=4, at=1, generation=3)
    for update in (kept, make_update(1, status=8, at=2, generation=4), make_update(2, status=8, at=2, generation=2)):
        buffer.add(update, 0.0)
    gone = buffer.lost(4)
    batch = buffer.pop_ready(1.0)

    assert sorted(update.delivery.generation for update in gone) == [2, 4]
    assert batch is not None
    assert [(entry.order_id, entry.updates) for entry in batch.entries] == [(1, [kept])]
    assert buffer.alive(batch.entries[0])
    buffer.lost(5)
    assert not buffer.alive(batch.entries[0])


def test_an_entry_of_a_lost_channel_vanishes_when_it_comes_back() -> None:
    """While it is out its order stays out; then nothing is left."""
    buffer = filled(make_update(1, generation=1))
    (entry,) = popped(buffer).entries
    buffer.add(make_update(1, generation=1, tag=2), 0.0)
    buffer.lost(1)
    assert not buffer.idle
    buffer.put_back(entry)

    assert buffer.idle


def test_urgent_batches_of_a_lost_channel_are_dropped_with_all_that_travels_with_them() -> None:
    """Their orders are free again; batches with anything alive and control calls stay."""
    buffer = filled(*[make_update(n, generation=1 + (n == 4), tag=n) for n in range(1, 5)])
    first, second, third, fourth = popped(buffer).entries
    dead = buffer.batch((first,), FlushReason.RESEND)
    dead.other, dead.rest = (second,), (third,)
    alive, control = buffer.batch((fourth,), FlushReason.RESEND), buffer.batch((), FlushReason.CONTROL)
    for batch in (dead, alive, control):
        buffer.urge(batch)
    buffer.add(make_update(1, generation=2, tag=7), 0.0)
    gone = buffer.lost(1)

    assert sorted(update.order_id for update in gone) == [1, 2, 3]
    assert [popped(buffer, 0.0), popped(buffer, 0.0)] == [alive, control]
    assert ids(popped(buffer)) == [1]
