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

The search sends one half of a group that is known to hold a refused order. Accepted: the other half holds it. Refused:
this half does, and the other one joins ``rest``, which goes out again when the search is over. So one bad order among n
costs about log2(n) calls. Whether the platform itself is away is decided here as well (``Outage``): call verdicts
that say so, too many orders in trouble (``suspects.py``), five calls in a row without an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.core.backoff import full_jitter
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.model import (
    APPLIED,
    SUPERSEDED,
    Dead,
    Disposition,
    Fields,
    Reason,
    Retry,
    Settlement,
    Update,
    Version,
)
from worker.core.outage import Outage, OutageKind, outage_of
from worker.core.suspects import Suspects
from worker.core.verdict import Call, Item, ItemVerdict, Judgement
from worker.core.versions import by_version

SILENT_CALLS = 5
UNKNOWNS_ALONE = 3
UNKNOWNS_TOGETHER = 2
INNOCENT_ROUNDS = 2
DOUBTS_KEPT = 100_000


@dataclass(slots=True, kw_only=True)
class Effects:
    """What the shell has to do after a call. ``suspected`` are the orders refused alone for the first time."""

    settlements: list[Settlement] = field(default_factory=list)
    outage: Outage | None = None
    accepted: bool = False
    remapped: int = 0
    suspected: list[int] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class _Turn:
    """One call that is being taken apart: what went out, when, and what came of it so far."""

    batch: Batch
    sent: Mapping[int, Fields]
    now: float
    effects: Effects

    def settle(self, update: Update, disposition: Disposition) -> None:
        """Decide one delivery."""
        settlement = Settlement(
            delivery=update.delivery, disposition=disposition, update=update, batch_id=self.batch.id
        )
        self.effects.settlements.append(settlement)

    def contributors(self, entry: Entry) -> list[Update]:
        """The updates whose values were really sent, oldest first."""
        sent = self.sent[entry.order_id]
        return by_version({entry.winners[name] for name in sent if name in entry.winners})


class Outcomes:
    """Decides dispositions. Remembers doubts and who waits in a delay tier; everything else is the coalescer's.

    ``delays_s`` are the retry tiers; an update is tried ``max_attempts`` times before it is given up.
    """

    def __init__(self, coalescer: Coalescer, *, max_attempts: int, delays_s: Sequence[float]) -> None:
        self._coalescer = coalescer
        self._max_attempts = max_attempts
        self._delays_s = tuple(delays_s)
        self.suspects = Suspects(coalescer)
        self._tiered: dict[int, dict[Version, float]] = {}
        self._doubts: dict[int, None] = {}
        self._silent = 0

    def complete(
        self, batch: Batch, judgement: Judgement, *, sent: Mapping[int, Fields], now: float, jitter: float
    ) -> Effects:
        """Decide everything that follows from one call. ``sent`` holds the fields that went out, by order id.

        ``now`` is monotonic seconds, ``jitter`` is drawn from [0, 1). What was applied must be journalled before the
        settlements are carried out.
        """
        turn = _Turn(batch, sent, now, Effects())
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

    def _decide(self, turn: _Turn, judgement: Judgement, jitter: float) -> None:
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
                self._unsent(turn.batch)
                turn.effects.outage = outage_of(judgement)

    def _control(self, turn: _Turn, judgement: Judgement) -> None:
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

    def _all_applied(self, turn: _Turn) -> None:
        batch = turn.batch
        if not batch.entries:
            return
        turn.effects.accepted = True
        self._settle_applied(turn, batch.entries)
        self._coalescer.finish_all(batch.entries)
        self.suspects.applied(batch.seq)
        self._search_on(batch, clean=True)

    def _settle_applied(self, turn: _Turn, entries: Sequence[Entry]) -> None:
        batch_id, doubts = turn.batch.id, self._doubts
        settled = turn.effects.settlements
        for entry in entries:
            if doubts:
                doubts.pop(entry.order_id, None)
            if len(entry.updates) == 1:
                update = entry.updates[0]
                settled.append(
                    Settlement(delivery=update.delivery, disposition=APPLIED, update=update, batch_id=batch_id)
                )
                continue
            contributors = turn.contributors(entry)
            for update in by_version(entry.updates):
                turn.settle(update, APPLIED if update in contributors else SUPERSEDED)

    def _answered(self, turn: _Turn, items: Mapping[int, ItemVerdict]) -> None:
        batch, innocent = turn.batch, []
        alone = len(batch.entries) == 1
        for entry in batch.entries:
            verdict = items[entry.order_id]
            if verdict.item is Item.UNCONFIRMED and verdict.silent:
                self._doubt(entry)  # not a word of what became of it: it may have been done
            match verdict.item:
                case Item.APPLIED | Item.REMAPPED:
                    turn.effects.remapped += verdict.item is Item.REMAPPED
                    self._applied(turn, entry)
                case Item.TERMINAL:
                    self._terminal(turn, entry, verdict.detail)
                case Item.INNOCENT:
                    innocent.append(entry)
                case Item.BLAMED if alone:
                    self._refused_alone(turn, verdict)
                case Item.UNCONFIRMED if alone:
                    self._retry_all(turn, entry, Reason.UNCONFIRMED, verdict.detail)
                case _:
                    self._send_alone(entry)
        self._send_innocent(innocent)
        if turn.effects.accepted:
            self.suspects.applied(batch.seq)
        self._search_on(batch, clean=all(items[entry.order_id].item is not Item.BLAMED for entry in batch.entries))

    def _applied(self, turn: _Turn, entry: Entry) -> None:
        turn.effects.accepted = True
        self._settle_applied(turn, (entry,))
        self._coalescer.finish(entry)

    def _terminal(self, turn: _Turn, entry: Entry, detail: str) -> None:
        dead = [update for update in entry.updates if "status" in update.fields]
        for update in by_version(dead):
            turn.settle(update, Dead(reason=Reason.TERMINAL_ORDER, detail=detail))
        self._go_on_without(entry, dead)

    def _send_innocent(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.rounds += 1
        patient = [entry for entry in entries if entry.rounds <= INNOCENT_ROUNDS]
        weary = [entry for entry in entries if entry.rounds > INNOCENT_ROUNDS]
        if patient:
            self._coalescer.urge(self._coalescer.batch(patient, FlushReason.RESEND))
        if weary:
            self._search(weary, ())

    # -- refused --------------------------------------------------------------------------------------------------

    def _refused(self, turn: _Turn, judgement: Judgement) -> None:
        batch = turn.batch
        if len(batch.entries) > 1:
            self._search(batch.entries, (*batch.rest, *batch.other))
            return
        self._put_back(*batch.other, *batch.rest)
        verdict = ItemVerdict(item=Item.BLAMED, detail=judgement.detail, transient=judgement.transient)
        self._refused_alone(turn, verdict)

    def _search(self, guilty: Sequence[Entry], rest: Sequence[Entry]) -> None:
        """Send half of a group that is known to hold a refused order."""
        if len(guilty) == 1:
            self._send_alone(guilty[0])
            self._put_back(*rest)
            return
        half = len(guilty) // 2
        batch = self._coalescer.batch(guilty[:half], FlushReason.RESEND)
        batch.other, batch.rest = guilty[half:], rest
        self._coalescer.urge(batch)

    def _search_on(self, batch: Batch, *, clean: bool) -> None:
        """After one half was answered: a clean one means that the other half is guilty."""
        if batch.other and clean:
            self._search(batch.other, batch.rest)
        else:
            self._put_back(*batch.other, *batch.rest)

    def _send_alone(self, entry: Entry) -> None:
        self._coalescer.urge(self._coalescer.batch((entry,), FlushReason.RESEND))

    def _put_back(self, *entries: Entry) -> None:
        for entry in entries:
            self._coalescer.put_back(entry)

    def _refused_alone(self, turn: _Turn, verdict: ItemVerdict) -> None:
        entry = turn.batch.entries[0]
        if verdict.transient:
            self._busy(turn, entry, verdict.detail)
            return
        contributors = turn.contributors(entry)
        if len(contributors) > 1:
            self._unmerge(entry, contributors)
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

    def _unmerge(self, entry: Entry, contributors: Sequence[Update]) -> None:
        entries = [Entry(entry.order_id, [update], entry.since) for update in contributors]
        for single in entries:
            single.alone = True
        merged_away = [update for update in entry.updates if update not in contributors]
        if merged_away:
            entries.append(Entry(entry.order_id, merged_away, entry.since))
        self._coalescer.put_first(entry.order_id, entries)

    def _condemn(self, turn: _Turn, entry: Entry, update: Update, detail: str) -> None:
        reason = Reason.REJECTED_IN_DOUBT if entry.order_id in self._doubts else Reason.REJECTED
        if self._earlier_waits(update, turn.now):
            self._again(turn, (update,), reason, detail)
        else:
            turn.settle(update, Dead(reason=reason, detail=detail))
        self.suspects.settled(entry.order_id)
        self._go_on_without(entry, (update,))

    def _go_on_without(self, entry: Entry, gone: Sequence[Update]) -> None:
        settled = set(gone)
        left = [update for update in entry.updates if update not in settled]
        if left:
            self._coalescer.put_first(entry.order_id, (Entry(entry.order_id, left, entry.since),))
        else:
            self._coalescer.finish(entry)

    # -- busy -----------------------------------------------------------------------------------------------------

    def _busy(self, turn: _Turn, entry: Entry, detail: str) -> None:
        self.suspects.busy(entry.order_id)
        turn.effects.outage = self.suspects.outage(detail)
        if turn.effects.outage is not None:
            self._put_back(entry)
        else:
            self._retry_all(turn, entry, Reason.BUSY, detail)

    def _retry_all(self, turn: _Turn, entry: Entry, reason: Reason, detail: str) -> None:
        """Later, for the whole entry. But only what was itself sent in vain, and alone, is ever given up (promise
        4)."""
        contributors = turn.contributors(entry)
        exhausted = [update for update in entry.updates if self._exhausted(update)]
        if len(contributors) > 1 and not set(contributors).isdisjoint(exhausted):
            self._unmerge(entry, contributors)
            return
        spared = set(exhausted).difference(contributors)
        decided = [update for update in entry.updates if update not in spared]
        self._again(turn, decided, reason, detail)
        self._go_on_without(entry, decided)

    def _exhausted(self, update: Update) -> bool:
        return update.attempt >= self._max_attempts

    def _again(self, turn: _Turn, updates: Sequence[Update], reason: Reason, detail: str) -> None:
        """Send these updates of one order to their delay tiers, or give them up after their last attempt."""
        order_id = updates[0].order_id
        waiting = {version: until for version, until in self._tiered.pop(order_id, {}).items() if until > turn.now}
        for update in by_version(updates):
            if self._exhausted(update):
                final = Reason.RETRIES_EXHAUSTED if reason is Reason.BUSY else reason
                turn.settle(update, Dead(reason=final, detail=detail))
                continue
            tier = min(update.attempt, len(self._delays_s)) - 1
            # The copy comes back after the tier's delay and then has to pass the queue: twice the delay is a guess.
            waiting[update.version] = turn.now + 2 * self._delays_s[tier] + 1
            turn.settle(update, Retry(tier=tier, reason=reason, detail=detail))
        if waiting:
            self._tiered[order_id] = waiting
        while len(self._tiered) > DOUBTS_KEPT:
            del self._tiered[next(iter(self._tiered))]

    def _earlier_waits(self, update: Update, now: float) -> bool:
        """Whether this update may be refused only because an earlier one of its order waits in a delay tier."""
        waiting = self._tiered.get(update.order_id, {})
        return any(version < update.version and until > now for version, until in waiting.items())

    # -- no answer ------------------------------------------------------------------------------------------------

    def _unknown(self, turn: _Turn, detail: str, jitter: float) -> None:
        batch = turn.batch
        self._silent += 1
        if self._silent >= SILENT_CALLS:
            turn.effects.outage = Outage(kind=OutageKind.UNAVAILABLE, detail=detail)
        self._put_back(*batch.other, *batch.rest)
        batch.other = batch.rest = ()
        for entry in batch.entries:
            self._doubt(entry)
        batch.unknowns += 1
        not_before = turn.now + full_jitter(batch.unknowns + 1, first_s=0.25, cap_s=5.0, jitter=jitter)
        if len(batch.entries) == 1:
            self._unknown_alone(turn, detail, not_before)
        elif batch.unknowns < UNKNOWNS_TOGETHER:
            self._coalescer.urge(batch, not_before)
        else:
            half = len(batch.entries) // 2
            for entries in (batch.entries[:half], batch.entries[half:]):
                self._coalescer.urge(self._coalescer.batch(entries, FlushReason.RESEND), not_before)

    def _doubt(self, entry: Entry) -> None:
        self._doubts[entry.order_id] = None
        while len(self._doubts) > DOUBTS_KEPT:
            del self._doubts[next(iter(self._doubts))]

    def _unknown_alone(self, turn: _Turn, detail: str, not_before: float) -> None:
        entry = turn.batch.entries[0]
        if entry.unknowns == 0:
            entry.unknown_at = self._coalescer.seq
        entry.unknowns += 1
        if entry.unknowns >= UNKNOWNS_ALONE and self.suspects.applied_since(entry.unknown_at):
            self._retry_all(turn, entry, Reason.OUTCOME_UNKNOWN, detail)
        else:
            self._coalescer.urge(turn.batch, not_before)

    # -- the platform, not the message ----------------------------------------------------------------------------

    def _unsent(self, batch: Batch) -> None:
        """The call counts for nobody. What merely waited goes on merging; tries with a meaning are repeated as they
        are."""
        if batch.unknowns or batch.other or batch.rest or any(entry.refused_at is not None for entry in batch.entries):
            self._coalescer.urge(batch)
        else:
            self._put_back(*batch.entries)
