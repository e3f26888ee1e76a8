"""What follows from a verdict: who is settled, who is sent again, and when it is the platform that is in trouble.

Theory of operation
-------------------
``complete`` takes a judged batch apart. Every entry leaves it by exactly one door:

    applied       all its deliveries are acknowledged
    refused       the batch is searched by halves for the order that gets it refused; nobody is condemned in company
    alone         blamed, unconfirmed or found by the search: it goes out in a batch of its own
    unmerged      refused alone, but made of several updates: they go out one by one, oldest first, the rest merges anew
    suspect       refused alone as a single update: held until something else was accepted by a call that started later
                  (another order, or the control call, an empty list), then sent alone once more; refused again: Dead
    busy          the platform's own trouble with this one order: its deliveries go to a delay tier; after the last
                  attempt only what was sent in vain is given up, the rest merges anew
    in doubt      no answer: the same values again after a backoff, in smaller batches, in the end alone
    put back      the call never counted (unavailable, throttled, auth, configuration): it waits and goes on merging

How the search and the unmerging go is in ``resending.py``. Whether the platform itself is away is decided here as well
(``Outage``): call verdicts that say so, too many orders in trouble (``suspects.py``), five calls in a row without an
answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from worker.core.backoff import full_jitter
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.model import (
    Dead,
    Fields,
    Reason,
    Retry,
    Update,
)
from worker.core.outage import Outage, OutageKind, outage_of
from worker.core.resending import Resending
from worker.core.suspects import Suspects
from worker.core.tiers import Tiers
from worker.core.turn import Effects, Turn
from worker.core.verdict import Call, Item, ItemVerdict, Judgement
from worker.core.versions import by_version

SILENT_CALLS = 5
UNKNOWNS_ALONE = 3
UNKNOWNS_TOGETHER = 2
DOUBTS_KEPT = 100_000


class Outcomes:
    """Decides dispositions. Remembers doubts, suspects and who waits in a delay tier; the coalescer has the rest.

    ``delays_s`` are the retry tiers; an update is tried ``max_attempts`` times before it is given up.
    """

    def __init__(self, coalescer: Coalescer, *, max_attempts: int, delays_s: Sequence[float]) -> None:
        self._coalescer = coalescer
        self._resending = Resending(coalescer)
        self._tiers = Tiers(delays_s, max_attempts=max_attempts)
        self.suspects = Suspects(coalescer)
        self._doubts: dict[int, None] = {}
        self._silent = 0

    def complete(
        self, batch: Batch, judgement: Judgement, *, sent: Mapping[int, Fields], now: float, jitter: float
    ) -> Effects:
        """Decide everything that follows from one call. ``sent`` holds the fields that went out, by order id.

        ``now`` is monotonic seconds, ``jitter`` is drawn from [0, 1). What was applied must be journalled before the
        settlements are carried out.
        """
        turn = Turn(batch, sent, now, Effects())
        if judgement.call is not Call.UNKNOWN:
            self._silent = 0
        if batch.reason is FlushReason.CONTROL:
            self._control(turn, judgement)
        else:
            self._decide(turn, judgement, jitter)
        if turn.effects.outage is not None and self.suspects.control_usable is False:
            # A probe with the control call would never be accepted.
            turn.effects.outage = replace(turn.effects.outage, needs_entry=True)
        return turn.effects

    def _decide(self, turn: Turn, judgement: Judgement, jitter: float) -> None:
        match judgement.call:
            case Call.ANSWERED if judgement.all_applied:
                self._all_applied(turn)
            case Call.ANSWERED:
                self._answered(turn, judgement.items)
            case Call.REFUSED:
                self._refused(turn, judgement)
            case Call.UNKNOWN:
                self._unknown(turn, judgement.detail, jitter)
            case _:
                self._resending.uncounted(turn.batch)
                turn.effects.outage = outage_of(judgement)

    def _control(self, turn: Turn, judgement: Judgement) -> None:
        match judgement.call:
            case Call.ANSWERED:
                turn.effects.accepted = True
                self.suspects.control_accepted(turn.batch.seq)
            case Call.REFUSED:
                turn.effects.outage = self.suspects.control_denied(judgement, turn.batch.seq)
            case _:
                self.suspects.control_lost()
                turn.effects.outage = outage_of(judgement)

    # -- answered -------------------------------------------------------------------------------------------------

    def _all_applied(self, turn: Turn) -> None:
        batch = turn.batch
        if not batch.entries:
            return
        self._applied(turn, batch.entries)
        self._coalescer.finish_all(batch.entries)
        self.suspects.applied(batch.seq)
        self._resending.search_on(batch, clean=True)

    def _applied(self, turn: Turn, entries: Sequence[Entry]) -> None:
        turn.effects.accepted = True
        turn.apply(entries)
        if self._doubts:
            for entry in entries:
                self._doubts.pop(entry.order_id, None)

    def _answered(self, turn: Turn, items: Mapping[int, ItemVerdict]) -> None:
        batch, innocent = turn.batch, []
        alone = len(batch.entries) == 1
        for entry in batch.entries:
            verdict = items[entry.order_id]
            if verdict.item is Item.UNCONFIRMED and verdict.silent:
                self._doubt(entry)  # not a word of what became of it: it may have been done
            match verdict.item:
                case Item.APPLIED | Item.REMAPPED:
                    turn.effects.remapped += verdict.item is Item.REMAPPED
                    self._applied(turn, (entry,))
                    self._coalescer.finish(entry)
                case Item.TERMINAL:
                    self._terminal(turn, entry, verdict.detail)
                case Item.INNOCENT:
                    innocent.append(entry)
                case Item.BLAMED if alone:
                    self._refused_alone(turn, verdict)
                case Item.UNCONFIRMED if alone:
                    self._retry_all(turn, entry, Reason.UNCONFIRMED, verdict.detail)
                case _:
                    self._resending.alone(entry)
        self._resending.innocent(innocent)
        if turn.effects.accepted:
            self.suspects.applied(batch.seq)
        self._resending.search_on(
            batch, clean=all(items[entry.order_id].item is not Item.BLAMED for entry in batch.entries)
        )

    def _terminal(self, turn: Turn, entry: Entry, detail: str) -> None:
        dead = [update for update in entry.updates if "status" in update.fields]
        for update in by_version(dead):
            turn.settle(update, Dead(reason=Reason.TERMINAL_ORDER, detail=detail))
        self._resending.without(entry, dead)

    # -- refused --------------------------------------------------------------------------------------------------

    def _refused(self, turn: Turn, judgement: Judgement) -> None:
        batch = turn.batch
        if len(batch.entries) > 1:
            self._resending.search(batch.entries, (*batch.rest, *batch.other))
            return
        self._resending.end_search(batch)
        verdict = ItemVerdict(item=Item.BLAMED, detail=judgement.detail, transient=judgement.transient)
        self._refused_alone(turn, verdict)

    def _refused_alone(self, turn: Turn, verdict: ItemVerdict) -> None:
        entry = turn.batch.entries[0]
        if verdict.transient:
            self._busy(turn, entry, verdict.detail)
            return
        contributors = turn.contributors(entry)
        if len(contributors) > 1:
            self._resending.unmerged(entry, contributors)
        elif not self._coalescer.alive(entry):
            # It comes again, perhaps to another worker: nobody here is to wait for a witness, who may never come.
            self.suspects.settled(entry.order_id)
            self._coalescer.finish(entry)
        elif self.suspects.guilty(entry):
            self._condemn(turn, entry, contributors[0], verdict.detail)
        else:
            self.suspects.hold(entry)
            turn.effects.suspected.append(entry.order_id)
            turn.effects.outage = self.suspects.outage(verdict.detail)

    def _condemn(self, turn: Turn, entry: Entry, update: Update, detail: str) -> None:
        reason = Reason.REJECTED_IN_DOUBT if entry.order_id in self._doubts else Reason.REJECTED
        if self._tiers.earlier_waits(update, turn.now):
            self._again(turn, (update,), reason, detail)
        else:
            turn.settle(update, Dead(reason=reason, detail=detail))
        self.suspects.settled(entry.order_id)
        self._resending.without(entry, (update,))

    # -- busy -----------------------------------------------------------------------------------------------------

    def _busy(self, turn: Turn, entry: Entry, detail: str) -> None:
        self.suspects.busy(entry.order_id)
        turn.effects.outage = self.suspects.outage(detail)
        if turn.effects.outage is not None:
            self._resending.put_back((entry,))
        else:
            self._retry_all(turn, entry, Reason.BUSY, detail)

    def _retry_all(self, turn: Turn, entry: Entry, reason: Reason, detail: str) -> None:
        """Later, for the whole entry. But only what was itself sent in vain, and alone, is ever given up (promise
        4)."""
        contributors = turn.contributors(entry)
        exhausted = [update for update in entry.updates if self._tiers.exhausted(update)]
        if len(contributors) > 1 and not set(contributors).isdisjoint(exhausted):
            self._resending.unmerged(entry, contributors)
            return
        spared = set(exhausted).difference(contributors)
        decided = [update for update in entry.updates if update not in spared]
        self._again(turn, decided, reason, detail)
        self._resending.without(entry, decided)

    def _again(self, turn: Turn, updates: Sequence[Update], reason: Reason, detail: str) -> None:
        """Send these updates of one order to their delay tiers, or give them up after their last attempt."""
        again: list[Update] = []
        for update in by_version(updates):
            if self._tiers.exhausted(update):
                final = Reason.RETRIES_EXHAUSTED if reason is Reason.BUSY else reason
                turn.settle(update, Dead(reason=final, detail=detail))
            else:
                turn.settle(update, Retry(tier=self._tiers.tier_of(update), reason=reason, detail=detail))
                again.append(update)
        self._tiers.send(updates[0].order_id, again, turn.now)

    # -- no answer ------------------------------------------------------------------------------------------------

    def _unknown(self, turn: Turn, detail: str, jitter: float) -> None:
        batch = turn.batch
        self._silent += 1
        if self._silent >= SILENT_CALLS:
            turn.effects.outage = Outage(kind=OutageKind.UNAVAILABLE, detail=detail)
        self._resending.end_search(batch)
        for entry in batch.entries:
            self._doubt(entry)
        batch.unknowns += 1
        not_before = turn.now + full_jitter(batch.unknowns + 1, first_s=0.25, cap_s=5.0, jitter=jitter)
        if len(batch.entries) == 1:
            self._unknown_alone(turn, detail, not_before)
        elif batch.unknowns < UNKNOWNS_TOGETHER:
            self._coalescer.urge(batch, not_before)
        else:
            self._resending.halves(batch, not_before)

    def _doubt(self, entry: Entry) -> None:
        self._doubts[entry.order_id] = None
        while len(self._doubts) > DOUBTS_KEPT:
            del self._doubts[next(iter(self._doubts))]

    def _unknown_alone(self, turn: Turn, detail: str, not_before: float) -> None:
        entry = turn.batch.entries[0]
        if entry.unknowns == 0:
            entry.unknown_at = self._coalescer.seq
        entry.unknowns += 1
        if entry.unknowns >= UNKNOWNS_ALONE and self.suspects.applied_since(entry.unknown_at):
            self._retry_all(turn, entry, Reason.OUTCOME_UNKNOWN, detail)
        else:
            self._coalescer.urge(turn.batch, not_before)
