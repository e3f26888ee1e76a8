"""More deliberate bugs: in verdicts, in the isolation of bad events, and in what keeps the worker going."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tests.simulation.bugs import Patch, bug
from worker.calls import Calls
from worker.carrying import Carrier
from worker.core import verdict as verdict_module
from worker.core.entry import Entry
from worker.core.model import Dead, Fields, Reason, Retry
from worker.core.outcome import Outcomes
from worker.core.resending import Resending
from worker.core.suspects import Suspects
from worker.core.tiers import Tiers
from worker.core.verdict import Call, Item, ItemVerdict, Judgement, Rules
from worker.tasks import Tasks

# -- verdicts -----------------------------------------------------------------------------------------------------


def _judge_items_as(patch: Patch, change: Callable[[dict[int, ItemVerdict], Sequence[Any]], Any]) -> None:
    judge = verdict_module._judge_items

    def changed(items: Sequence[Any], faults: Sequence[Any], requested: Mapping[int, Fields], rules: Rules) -> Any:
        verdicts = dict(judge(items, faults, requested, rules))
        change(verdicts, items)
        return verdicts

    patch.setattr(verdict_module, "_judge_items", changed)


@bug
def trust_the_order_of_the_reply(patch: Patch) -> None:
    """Item n of the reply is order n of the request, whatever its id is."""

    def by_position(verdicts: dict[int, ItemVerdict], items: Sequence[Any]) -> None:
        for place, order_id in enumerate(verdicts):
            if place < len(items):
                verdicts[order_id] = ItemVerdict(item=Item.APPLIED if items[place] else Item.BLAMED)

    _judge_items_as(patch, by_position)


@bug
def a_missing_item_is_applied(patch: Patch) -> None:
    """Nothing was said against it."""

    def trusting(verdicts: dict[int, ItemVerdict], _items: Sequence[Any]) -> None:
        for order_id, verdict in verdicts.items():
            if verdict.item is Item.UNCONFIRMED:
                verdicts[order_id] = ItemVerdict(item=Item.APPLIED)

    _judge_items_as(patch, trusting)


@bug
def no_answer_is_applied(patch: Patch) -> None:
    """It was sent, so it will have worked."""
    _judge_unknown_as(patch, Item.APPLIED)


def _judge_unknown_as(patch: Patch, item: Item) -> None:
    decide = Carrier._send

    async def hopeful(self: Carrier, batch: Any, request: Any) -> Judgement:
        judgement = await decide(self, batch, request)
        if judgement.call is not Call.UNKNOWN:
            return judgement
        return Judgement(call=Call.ANSWERED, items={number: ItemVerdict(item=item) for number in request.fields})

    patch.setattr(Carrier, "_send", hopeful)


@bug
def no_answer_is_a_failure(patch: Patch) -> None:
    """Without an answer everything is dead-lettered at once."""

    def unknown(self: Outcomes, turn: Any, detail: str, _jitter: float) -> None:
        for entry in turn.batch.everything:
            for update in entry.updates:
                turn.settle(update, Dead(reason=Reason.OUTCOME_UNKNOWN, detail=detail))
            self._coalescer.finish(entry)

    patch.setattr(Outcomes, "_unknown", unknown)


@bug
def an_outage_is_the_fault_of_the_messages(patch: Patch) -> None:
    """A call that never counted costs an attempt, and in the end the message."""
    decide = Outcomes._decide

    def blaming(self: Outcomes, turn: Any, judgement: Judgement, jitter: float) -> None:
        if judgement.call is Call.UNAVAILABLE and len(turn.batch.entries) == 1 and not turn.batch.other:
            self._retry_all(turn, turn.batch.entries[0], Reason.BUSY, judgement.detail)
            return
        decide(self, turn, judgement, jitter)

    patch.setattr(Outcomes, "_decide", blaming)
    patch.setattr(Tiers, "exhausted", lambda _self, update: update.attempt >= 2)


# -- isolation ----------------------------------------------------------------------------------------------------


@bug
def drop_the_unmerge(patch: Patch) -> None:
    """A merged entry that is refused alone is condemned as a whole."""

    def refused(self: Outcomes, turn: Any, verdict: ItemVerdict) -> None:
        entry = turn.batch.entries[0]
        if verdict.transient:
            self._busy(turn, entry, verdict.detail)
        elif self.suspects.guilty(entry):
            for update in entry.updates:
                turn.settle(update, Dead(reason=Reason.REJECTED, detail=verdict.detail))
            self.suspects.settled(entry.order_id)
            self._coalescer.finish(entry)
        else:
            self.suspects.hold(entry)

    patch.setattr(Outcomes, "_refused_alone", refused)


@bug
def blame_condemns(patch: Patch) -> None:
    """Whom an error path points at is dead-lettered, in company and at once."""
    answered = Outcomes._answered

    def hasty(self: Outcomes, turn: Any, items: Mapping[int, ItemVerdict]) -> None:
        for entry in list(turn.batch.entries):
            if items[entry.order_id].item is Item.BLAMED and len(turn.batch.entries) > 1:
                turn.batch.entries.remove(entry)
                for update in entry.updates:
                    turn.settle(update, Dead(reason=Reason.REJECTED, detail="blamed"))
                self._coalescer.finish(entry)
        answered(self, turn, items)

    patch.setattr(Outcomes, "_answered", hasty)


@bug
def condemn_without_a_witness(patch: Patch) -> None:
    """The first refusal is enough."""
    patch.setattr(Suspects, "guilty", lambda _self, _entry: True)


@bug
def give_up_merged_entries_whole(patch: Patch) -> None:
    """After the last attempt whatever is in the entry is dead, sent or not, alone or not."""

    def retry_all(self: Outcomes, turn: Any, entry: Entry, reason: Reason, detail: str) -> None:
        final = Reason.RETRIES_EXHAUSTED if reason is Reason.BUSY else reason
        worn = any(self._tiers.exhausted(update) for update in entry.updates)
        for update in entry.updates:
            again = Retry(tier=self._tiers.tier_of(update), reason=reason, detail=detail)
            turn.settle(update, Dead(reason=final, detail=detail) if worn else again)
        self._coalescer.finish(entry)

    patch.setattr(Outcomes, "_retry_all", retry_all)


@bug
def lose_the_other_half(patch: Patch) -> None:
    """The search for a refused order forgets who is in neither half."""
    search = Resending.search
    patch.setattr(Resending, "search", lambda self, guilty, _rest: search(self, guilty, ()))


# -- liveness -----------------------------------------------------------------------------------------------------


@bug
def no_wake_after_a_call(patch: Patch) -> None:
    """Nobody looks for work when a slot becomes free."""
    patch.setattr(Tasks, "_forget", lambda self, task: self.passing.discard(task))

    async def process(self: Calls, batch: Any) -> None:
        try:
            settlements = await self._carrier.carry(batch, partial(self._decide, batch))
        finally:
            self._slots.give_back()
        await self._unsettled.settle(settlements)

    patch.setattr(Calls, "_process", process)


@bug
def spin_while_paused(patch: Patch) -> None:
    """The loop's timer is for a call that cannot start."""
    patch.setattr(Calls, "next_start", lambda self: self._coalescer.next_deadline(self._slots.in_flight))
