"""In which company an entry is sent again that is not decided yet.

    alone       in a batch of its own
    innocent    together with the others that a reply did not blame; after some rounds of that the search goes on
    search      one half of a group that is known to hold a refused order
    unmerged    its contributors one by one, oldest first, and behind them the rest merged anew
    halves      of a batch that gets no answer: perhaps it is too much at a time
    as it is    a try with a meaning, whose call never counted
    put back    it waits and goes on merging

The search sends one half of a group that is known to hold a refused order. Accepted: the other half holds it. Refused:
this half does, and the other one joins ``rest``, which goes out again when the search is over. So one bad order among n
costs about log2(n) calls.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.model import Update

INNOCENT_ROUNDS: Final = 2


class Resending:
    """Puts entries that are out back into the hands of the coalescer, each once."""

    def __init__(self, coalescer: Coalescer) -> None:
        self._coalescer = coalescer

    def alone(self, entry: Entry) -> None:
        """In a batch of its own."""
        self._coalescer.urge(self._coalescer.batch((entry,), FlushReason.RESEND))

    def put_back(self, entries: Iterable[Entry]) -> None:
        """They wait and go on merging."""
        for entry in entries:
            self._coalescer.put_back(entry)

    def innocent(self, entries: Sequence[Entry]) -> None:
        """Others were blamed: these go without them, until it has taken too many rounds."""
        for entry in entries:
            entry.rounds += 1
        patient = [entry for entry in entries if entry.rounds <= INNOCENT_ROUNDS]
        weary = [entry for entry in entries if entry.rounds > INNOCENT_ROUNDS]
        if patient:
            self._coalescer.urge(self._coalescer.batch(patient, FlushReason.RESEND))
        if weary:
            self.search(weary, ())

    def search(self, guilty: Sequence[Entry], rest: Sequence[Entry]) -> None:
        """Send half of a group that is known to hold a refused order."""
        if len(guilty) == 1:
            self.alone(guilty[0])
            self.put_back(rest)
            return
        half = len(guilty) // 2
        batch = self._coalescer.batch(guilty[:half], FlushReason.RESEND)
        batch.other, batch.rest = guilty[half:], rest
        self._coalescer.urge(batch)

    def search_on(self, batch: Batch, *, clean: bool) -> None:
        """After one half was answered: a clean one means that the other half is guilty."""
        if batch.other and clean:
            self.search(batch.other, batch.rest)
        else:
            self.end_search(batch)

    def end_search(self, batch: Batch) -> None:
        """Whatever this batch was sent for: the entries that only travel with it wait again."""
        self.put_back((*batch.other, *batch.rest))
        batch.other = batch.rest = ()

    def unmerged(self, entry: Entry, contributors: Sequence[Update]) -> None:
        """Its contributors one by one, in their order, the rest of its updates behind them."""
        entries = [Entry(entry.order_id, [update], entry.since) for update in contributors]
        for single in entries:
            single.alone = True
        merged_away = [update for update in entry.updates if update not in contributors]
        if merged_away:
            entries.append(Entry(entry.order_id, merged_away, entry.since))
        self._coalescer.put_first(entry.order_id, entries)

    def without(self, entry: Entry, gone: Sequence[Update]) -> None:
        """These of its updates are decided; what is left of it, if anything, merges anew."""
        settled = set(gone)
        left = [update for update in entry.updates if update not in settled]
        if left:
            self._coalescer.put_first(entry.order_id, (Entry(entry.order_id, left, entry.since),))
        else:
            self._coalescer.finish(entry)

    def halves(self, batch: Batch, not_before: float) -> None:
        """Two batches instead of this one, not before this time."""
        half = len(batch.entries) // 2
        for entries in (batch.entries[:half], batch.entries[half:]):
            self._coalescer.urge(self._coalescer.batch(entries, FlushReason.RESEND), not_before)

    def uncounted(self, batch: Batch) -> None:
        """The call counts for nobody. What merely waited goes on merging; tries with a meaning are repeated as they
        are."""
        if batch.unknowns or batch.other or batch.rest or any(entry.refused_at is not None for entry in batch.entries):
            self._coalescer.urge(batch)
        else:
            self.put_back(batch.entries)
