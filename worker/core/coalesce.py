"""Coalescing: deliveries of one order become one entry, entries of many orders become one batch.

Theory of operation
-------------------
Every order that has anything to do owns a *lane* (``lanes.py``): a short list of waiting entries, nearly always one,
and a flag that says whether an entry of it is *out* (in a batch that was handed out and is not settled). A lane is
*ready* when it has a waiting entry and nothing out, so no order is ever in two calls at once (promise 3).

    add        merges the update into the lane's entry; per field the greatest version wins
    pop_ready  takes ready lanes, first come first, and makes a batch of their first entries; the lanes are out now
    finish     the entry is settled: the lane may be ready again with what gathered meanwhile
    put_back   the entry was not sent: it waits again, merged with what gathered meanwhile
    put_first  several entries take the place of one (unmerging); they go out one by one, in this order
    urge       a batch that goes out as it is, before all others, not before a given time; its lanes stay out
               (``urgent.py``)
    hold       nothing of these orders goes out until let_go: what came of their last call is still being journalled
    lend       the lane of an order that has nothing to do is out, for a call that is none of the coalescer's

Nothing here looks at a clock or decides what a reply means: the shell asks ``pop_ready`` when a call can start and arms
one timer from ``next_deadline``. As long as no call can start, entries keep merging, so load makes batches fuller by
itself.
"""

import math
from collections.abc import Collection, Sequence
from itertools import islice

from worker.core.entry import Batch, Entry, FlushReason
from worker.core.lanes import Lane
from worker.core.model import Update
from worker.core.partition import LostGenerations
from worker.core.urgent import Urgent


class Coalescer:
    """Owns every update between its decoding and its settlement. Bounds: ``max_batch`` entries, ``max_bytes``,
    ``linger_s``. The deliveries come from the channels of so many ``partitions`` (``partition.py``)."""

    def __init__(
        self,
        *,
        max_batch: int,
        max_bytes: int,
        linger_s: float,
        milestones: Collection[int] = (),
        name: str = "b",
        partitions: int = 1,
    ) -> None:
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._milestones = frozenset(milestones)
        self._name = name
        self._lanes: dict[int, Lane] = {}
        self._ready: dict[int, Lane] = {}
        self._ready_bytes = 0
        self._oldest: float | None = math.inf
        self._arrived = math.inf  # of the first ones nobody knows whether more are on their way
        self._is_alone = False
        self._held: set[int] = set()
        self._urgent = Urgent(self._held)
        self._freed: set[int] = set()
        self._seq = 0
        self._lost = LostGenerations(partitions)
        self._draining = False

    # -- taking in ------------------------------------------------------------------------------------------------

    def add_all(self, updates: Sequence[Update], now: float) -> None:
        """Buffer updates that came together, in their order."""
        if not updates:
            return
        lanes, ready, milestones, size = self._lanes, self._ready, self._milestones, 0
        self._note_arrival(now)
        for update in updates:
            order_id = update.order_id
            if order_id in lanes or (milestones and update.fields.get("status") in milestones):
                self._add(update, now)
                continue
            # Nothing else is known of the order: the straight line of the usual case.
            ready[order_id] = lanes[order_id] = Lane([Entry(order_id, [update], now)])
            size += update.size
        self._ready_bytes += size
        if size and self._oldest is not None and now < self._oldest:
            self._oldest = now

    def add(self, update: Update, now: float) -> None:
        """Buffer one update. ``now`` is monotonic seconds; linger counts from the first update of an entry."""
        self._note_arrival(now)
        self._add(update, now)

    def _note_arrival(self, now: float) -> None:
        if not self._lanes:
            self._is_alone = now - self._arrived >= self._linger_s
        self._arrived = now

    def _add(self, update: Update, now: float) -> None:
        lane = self._lanes.get(update.order_id)
        if lane is None:
            lane = self._lanes[update.order_id] = Lane([])
        lane.add(update, now, milestones=self._milestones)
        if update.order_id in self._ready:
            self._ready_bytes += update.size
        elif not lane.out:
            self._make_ready(update.order_id, lane)

    def _make_ready(self, order_id: int, lane: Lane) -> None:
        head = lane.waiting[0]
        if head.alone:
            lane.out = True
            self.urge(self.batch((lane.waiting.pop(0),), FlushReason.RESEND))
            return
        self._ready[order_id] = lane
        self._ready_bytes += head.size
        # An entry that gathered behind a call may be older than some that are before it in the queue.
        if self._oldest is not None:
            self._oldest = min(self._oldest, head.since)

    def _oldest_since(self) -> float:
        """Since when the ready one waits that waits longest. Looked for only when asked: full batches do not ask."""
        if self._oldest is None:
            self._oldest = min([lane.waiting[0].since for lane in self._ready.values()], default=math.inf)
        return self._oldest

    # -- handing out ----------------------------------------------------------------------------------------------

    def pop_ready(self, now: float, in_flight: int = 0) -> Batch | None:
        """The next batch that should leave now, or None. Call it only when a call can start.

        A batch that is not full waits one linger, and one longer for every call that is ``in_flight``: under load one
        fuller call is worth more than one more call. What comes alone to an idle worker does not wait: when nothing
        came for as long as a linger, there is no company to be expected within another one.
        """
        if self._urgent and (batch := self._urgent.pop(now)) is not None:
            return self._started(batch)
        if not self._ready:
            return None
        reason = self._due(now, in_flight)
        return None if reason is None else self._take(self._max_batch, reason)

    def due(self, now: float, in_flight: int = 0) -> FlushReason | None:
        """Why ``pop_ready`` would hand out a batch at this moment, or None if it would not."""
        if self._urgent and (batch := self._urgent.due(now)) is not None:
            return batch.reason
        return self._due(now, in_flight) if self._ready else None

    def pop_probe(self) -> Batch | None:
        """A batch of one entry, each time of another order: a try whether the platform takes anything at all."""
        if self._ready:
            return self._take(1, FlushReason.PROBE)
        batch = self._urgent.pop()
        return None if batch is None else self._started(batch)

    def _started(self, batch: Batch) -> Batch:
        batch.seq = self._next_seq()
        return batch

    def _due(self, now: float, in_flight: int) -> FlushReason | None:
        if len(self._ready) >= self._max_batch:
            return FlushReason.SIZE
        if self._ready_bytes >= self._max_bytes:
            # The running sum only ever overestimates (merged values are counted twice): look closer, then go on from
            # there.
            self._ready_bytes = sum(lane.waiting[0].size for lane in self._ready.values())
            if self._ready_bytes >= self._max_bytes:
                return FlushReason.BYTES
        if self._draining:
            return FlushReason.DRAIN
        return FlushReason.LINGER if now >= self._patience_until(in_flight) else None

    def _patience_until(self, in_flight: int) -> float:
        if self._is_alone and not in_flight:
            return self._oldest_since()
        return self._oldest_since() + self._linger_s * (1 + in_flight)

    def _take(self, most: int, reason: FlushReason) -> Batch:
        entries: list[Entry] = []
        size, max_bytes = 0, self._max_bytes
        for lane in islice(self._ready.values(), most):
            entry = lane.waiting[0]
            updates = entry.updates
            entry_size = updates[0].size if len(updates) == 1 else entry.size
            if size + entry_size > max_bytes and entries:
                reason = FlushReason.BYTES
                break
            lane.out = True
            del lane.waiting[0]
            entries.append(entry)
            size += entry_size
        for entry in entries:
            del self._ready[entry.order_id]
        self._ready_bytes = max(0, self._ready_bytes - size) if self._ready else 0
        self._oldest = None
        self._is_alone = False
        return self.batch(entries, reason)

    def batch(self, entries: Sequence[Entry], reason: FlushReason) -> Batch:
        """Name a new batch. Its entries must be out already."""
        seq = self._next_seq()
        return Batch(id=f"{self._name}-{seq}", seq=seq, entries=entries, reason=reason)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    @property
    def seq(self) -> int:
        """The number of the call that started last."""
        return self._seq

    def next_deadline(self, in_flight: int = 0) -> float | None:
        """When ``pop_ready`` has to be asked again even if nothing else happens; None: not before something does."""
        urgent = self._urgent.next_time()
        if not self._ready:
            return urgent
        patience = self._patience_until(in_flight)
        return patience if urgent is None else min(urgent, patience)

    # -- coming back ----------------------------------------------------------------------------------------------

    def finish(self, entry: Entry) -> None:
        """Everything in ``entry`` is decided: the order's next entry may go."""
        self._free(entry.order_id)

    def finish_all(self, entries: Sequence[Entry]) -> None:
        """The same for the entries of a batch."""
        order_ids = [entry.order_id for entry in entries]
        if self._held.issuperset(order_ids):
            self._freed.update(order_ids)
        else:
            for order_id in order_ids:
                self._free(order_id)

    def put_back(self, entry: Entry) -> None:
        """``entry`` was not sent, or must be sent anew: it waits again and goes on merging."""
        self.put_first(entry.order_id, (entry,))

    def put_first(self, order_id: int, entries: Sequence[Entry]) -> None:
        """Put ``entries`` in front of whatever the order has waiting. Updates of lost channels are left out: they
        come again."""
        lane = self._lanes[order_id]
        lane.put_first([entry for entry in entries if self._prune(entry)], milestones=self._milestones)
        self._free(order_id)

    def urge(self, batch: Batch, not_before: float = 0.0) -> None:
        """Send ``batch`` as it is as soon as a call can start, but not before ``not_before``. Its orders stay out."""
        self._urgent.add(batch, not_before)

    def urge_first(self, batch: Batch) -> None:
        """Send ``batch`` before everything else."""
        self._urgent.add_first(batch)

    def hold(self, order_ids: Collection[int]) -> None:
        """Keep everything of these orders back until ``let_go``. They must be out."""
        self._held.update(order_ids)

    def let_go(self, order_ids: Collection[int]) -> None:
        """What was decided of these orders since ``hold`` takes effect now."""
        self._held.difference_update(order_ids)
        freed = self._freed.intersection(order_ids)
        self._freed -= freed
        lanes = self._lanes
        for order_id in freed:
            if lanes[order_id].waiting:
                self._free(order_id)
            else:
                del lanes[order_id]

    def lend(self, order_id: int) -> bool:
        """Mark an order out that has nothing to do, until ``give_back``; False if it has."""
        if order_id in self._lanes:
            return False
        self._lanes[order_id] = Lane([], out=True)
        return True

    def give_back(self, order_id: int) -> None:
        """The call is over: what gathered meanwhile may go."""
        self._free(order_id)

    def _free(self, order_id: int) -> None:
        if order_id in self._held:
            self._freed.add(order_id)
            return
        lane = self._lanes[order_id]
        lane.out = False
        if lane.waiting:
            self._make_ready(order_id, lane)
        else:
            del self._lanes[order_id]

    # -- channels and draining ------------------------------------------------------------------------------------

    def lost(self, generation: int) -> list[Update]:
        """Forget the waiting updates of a lost channel (the broker delivers them again) and return them."""
        self._lost.add(generation)
        gone: list[Update] = []
        for order_id, lane in list(self._lanes.items()):
            gone += [u for entry in lane.waiting for u in entry.updates if u.delivery.generation in self._lost]
            lane.waiting = [entry for entry in lane.waiting if self._prune(entry)]
            if not lane.waiting:
                self._ready.pop(order_id, None)
                if not lane.out:
                    del self._lanes[order_id]
        self._oldest = None
        abandoned = self._urgent.drop_dead(self.alive)
        for entry in abandoned:
            self._free(entry.order_id)
        return gone + [update for entry in abandoned for update in entry.updates]

    def _prune(self, entry: Entry) -> bool:
        """Drop updates of lost channels from ``entry``; False when nothing is left of it."""
        if any(update.delivery.generation in self._lost for update in entry.updates):
            entry.keep([update for update in entry.updates if update.delivery.generation not in self._lost])
        return bool(entry.updates)

    def alive(self, entry: Entry) -> bool:
        """Whether any update of an entry that is out can still be settled."""
        return any(update.delivery.generation not in self._lost for update in entry.updates)

    def drain(self) -> None:
        """From now on nothing lingers."""
        self._draining = True

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered and nothing is out."""
        return not self._lanes and not self._urgent

    @property
    def full(self) -> bool:
        """Whether a batch could leave without lingering."""
        return len(self._ready) >= self._max_batch or self._ready_bytes >= self._max_bytes

    @property
    def buffered(self) -> int:
        """Entries that wait for a call."""
        return len(self._ready)
