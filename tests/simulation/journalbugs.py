"""Deliberate bugs in the journal's rules, and in how a batch and an echo use them. Most need a second worker."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from tests.simulation.bugs import Patch, bug
from tests.simulation.journal import SimJournal
from worker.adapters.journal import memory
from worker.adapters.journal.memory import MemoryJournal
from worker.core import bookkeeping
from worker.core import journal as rules
from worker.core.journal import FAR_US, BatchRecord, Claim, OrderOutcome, OrderRow, StoredOrder
from worker.core.values import Values
from worker.steadyjournal import SteadyJournal

EARLY_US = 60_000_000


@bug
def ack_before_the_journal_write(patch: Patch) -> None:
    """The journal is written in the background, later than the ack."""
    record = SteadyJournal.record

    async def lazy(self: SteadyJournal, of: BatchRecord) -> None:
        asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(record(self, of)))

    patch.setattr(SteadyJournal, "record", lazy)


@bug
def a_journal_that_ends_with_its_process(patch: Patch) -> None:
    """Each worker has one of its own, in memory."""
    begin = SimJournal.__init__

    def forgetful(self: SimJournal, *args: Any) -> None:
        begin(self, *args)
        self._resting, self._open = {}, {}

    patch.setattr(SimJournal, "__init__", forgetful)


# -- claims -------------------------------------------------------------------------------------------------------


@bug
def read_without_a_claim(patch: Patch) -> None:
    """What is known of the orders is enough for a call."""

    async def claim(self: SteadyJournal, order_ids: Collection[int]) -> Mapping[int, OrderRow]:
        known = await self._ledger.known(list(order_ids))
        return {order_id: OrderRow(values=known.get(order_id, {}), revision=0) for order_id in order_ids}

    patch.setattr(SteadyJournal, "claim", claim)


@bug
def clear_the_claim_of_an_unknown_outcome(patch: Patch) -> None:
    """No answer counts as the end of a call."""
    outcome_of = bookkeeping.outcome_of

    def hasty(row: OrderRow, **of: Any) -> OrderOutcome:
        return outcome_of(row, **(of | {"known": True}))

    patch.setattr(bookkeeping, "outcome_of", hasty)


@bug
def clear_the_claim_of_another(patch: Patch) -> None:
    """Revisions are not compared: whoever records ends the claim that stands, whosever it is."""
    recorded = rules.recorded

    def careless(stored: StoredOrder, outcome: OrderOutcome) -> StoredOrder:
        return recorded(stored, replace(outcome, revision=stored.revision))

    patch.setattr(memory, "recorded", careless)
    patch.setattr(memory, "contested", lambda _stored, _outcome: False)


@bug
def forget_that_the_own_claim_has_expired(patch: Patch) -> None:
    """A worker that was frozen goes on as if no time had passed."""
    outcome_of = bookkeeping.outcome_of

    def timeless(row: OrderRow, **of: Any) -> OrderOutcome:
        return outcome_of(replace(row, expires_us=FAR_US), **of)

    patch.setattr(bookkeeping, "outcome_of", timeless)


# -- echoes -------------------------------------------------------------------------------------------------------


@bug
def never_owe_an_echo(patch: Patch) -> None:
    """Whoever finds a claim standing thinks nothing of it."""
    outcome_of = bookkeeping.outcome_of

    def carefree(row: OrderRow, **of: Any) -> OrderOutcome:
        return replace(outcome_of(row, **of), echo_us=None)

    patch.setattr(bookkeeping, "outcome_of", carefree)


@bug
def echo_before_the_claim_has_expired(patch: Patch) -> None:
    """What is owed is sent at once, and that is that."""
    due_echoes, is_due = MemoryJournal.due_echoes, bookkeeping._is_due

    async def hasty(self: MemoryJournal, wall_us: int, limit: int) -> Sequence[int]:
        return await due_echoes(self, wall_us + EARLY_US, limit)

    def is_due_soon(time_us: int | None, at_us: int | None) -> bool:
        return is_due(time_us, None if at_us is None else at_us + EARLY_US)

    patch.setattr(MemoryJournal, "due_echoes", hasty)
    patch.setattr(bookkeeping, "_is_due", is_due_soon)


# -- values -------------------------------------------------------------------------------------------------------


@bug
def the_last_record_wins(patch: Patch) -> None:
    """Values are not merged by version."""

    def merged(known: Values, applied: Values) -> Values:
        return {**known, **applied}

    patch.setattr(rules, "merged", merged)


@bug
def the_second_claim_takes_the_place_of_the_first(patch: Patch) -> None:
    """Nobody is told of the claim that stood before."""
    claimed = rules.claimed

    def lonely(stored: StoredOrder, by: Claim) -> tuple[StoredOrder, OrderRow]:
        after, row = claimed(stored, by)
        return after, replace(row, standing=None)

    patch.setattr(memory, "claimed", lonely)
