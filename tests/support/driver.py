"""The pipeline without I/O: coalescer, outcomes and judge around a model platform, in fake time.

``Driver`` does in the same order what the asyncio shell does (read versions, send, record, decide, settle), keeps the
books that tests compare (who was settled how, what the platform holds), and fails at once where a delivery would be
settled twice or an order sent in two calls at a time.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from tests.builders import make_delivery
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.model import Ack, Dead, Delivery, Disposition, Fields, Retry, Scalar, Settlement, Update, Version
from worker.core.outage import Outage
from worker.core.outcome import Outcomes
from worker.core.report import CallReport
from worker.core.turn import Effects
from worker.core.verdict import Call, Item, Judgement, Rules, judge
from worker.core.versions import by_version, standing, unsent

Answer = Callable[[Mapping[int, Fields]], CallReport]


class Driver:
    """One worker, one call at a time. ``calls`` holds what was sent, ``settled`` what became of each delivery."""

    def __init__(
        self,
        answer: Answer,
        *,
        max_batch: int = 100,
        max_bytes: int = 1 << 20,
        linger_s: float = 0.02,
        milestones: Sequence[int] = (),
        max_attempts: int = 5,
        delays_s: Sequence[float] = (5.0, 30.0, 120.0, 600.0),
    ) -> None:
        self.answer = answer
        self.coalescer = Coalescer(
            max_batch=max_batch, max_bytes=max_bytes, linger_s=linger_s, milestones=milestones, name="t"
        )
        self.outcomes = Outcomes(self.coalescer, max_attempts=max_attempts, delays_s=delays_s)
        self.now = 0.0
        self.calls: list[Mapping[int, Fields]] = []
        self.batches: list[Batch] = []
        self.verdicts: list[Judgement] = []
        self.applied: dict[int, dict[str, Version]] = {}
        self.settled: dict[Delivery, Disposition] = {}
        self.unsettled: dict[Delivery, Update] = {}
        self.in_flight: dict[int, Batch] = {}
        self.outages: list[Outage] = []
        self.outage: Outage | None = None
        self.copies: list[Update] = []
        self.lost_generation = 0

    # -- the world ------------------------------------------------------------------------------------------------

    def add(self, *updates: Update) -> None:
        """The broker delivers these."""
        for update in updates:
            assert update.delivery not in self.unsettled
            self.unsettled[update.delivery] = update
            self.coalescer.add(update, self.now)

    def lose(self, generation: int) -> list[Update]:
        """The channel is lost: its unsettled updates, which the broker is going to deliver again."""
        self.lost_generation = max(self.lost_generation, generation)
        gone = [update for delivery, update in self.unsettled.items() if delivery.generation <= generation]
        for update in gone:
            del self.unsettled[update.delivery]
        self.coalescer.lost(generation)
        self.outcomes.suspects.lost()
        return gone

    def return_copies(self, first_tag: int, generation: int = 1) -> None:
        """Deliver the copies that wait in retry tiers, as messages of their own, with tags from ``first_tag`` on."""
        copies, self.copies = self.copies, []
        for tag, update in enumerate(copies, first_tag):
            self.add(redelivered(update, tag, generation, attempt=update.attempt + 1))

    # -- one call -------------------------------------------------------------------------------------------------

    def pop(self) -> Batch | None:
        """Start the next batch, if one is due now."""
        batch = self.coalescer.pop_ready(self.now)
        if batch is not None:
            self.launch(batch)
        return batch

    def launch(self, batch: Batch) -> None:
        """Note that a batch is out."""
        self.batches.append(batch)
        for entry in batch.entries:
            assert entry.order_id not in self.in_flight, "an order in two calls at once"
            self.in_flight[entry.order_id] = batch

    def requested(self, batch: Batch) -> dict[int, Fields]:
        """What of a batch is news; the rest leaves it and is acknowledged."""
        fields = {entry.order_id: unsent(entry.winners, self._known(entry.order_id)) for entry in batch.entries}
        for entry in batch.entries:
            if not fields[entry.order_id]:
                self._cover(batch, entry.updates)
                del self.in_flight[entry.order_id]
                self.coalescer.finish(entry)
        batch.entries = [entry for entry in batch.entries if fields[entry.order_id]]
        return {order_id: news for order_id, news in fields.items() if news}

    def _known(self, order_id: int) -> dict[str, tuple[Version, Scalar]]:
        return {name: (version, None) for name, version in self.applied.get(order_id, {}).items()}

    def _cover(self, batch: Batch, updates: Sequence[Update]) -> None:
        for update in by_version(updates):
            reason = standing(update, self._known(update.order_id))
            assert reason is not None
            self._settle(
                Settlement(delivery=update.delivery, disposition=Ack(reason), update=update, batch_id=batch.id)
            )

    def finish(self, batch: Batch, sent: Mapping[int, Fields], judgement: Judgement, *, jitter: float = 0.5) -> Effects:
        """Decide what follows from a call, record what was applied, settle."""
        self.verdicts.append(judgement)
        for entry in batch.entries:
            del self.in_flight[entry.order_id]
            item = judgement.items.get(entry.order_id)
            if item is not None and item.item in (Item.APPLIED, Item.REMAPPED):
                versions = {name: entry.winners[name].version for name in sent[entry.order_id]}
                self.applied.setdefault(entry.order_id, {}).update(versions)
        effects = self.outcomes.complete(batch, judgement, sent=sent, now=self.now, jitter=jitter)
        for settlement in effects.settlements:
            self._settle(settlement)
        if effects.outage is not None:
            self.outage = effects.outage
            self.outages.append(effects.outage)
        return effects

    def _settle(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        if delivery.generation <= self.lost_generation and delivery not in self.settled:
            return  # the settler skips what comes again
        assert delivery not in self.settled, "settled twice"
        update = self.unsettled.pop(delivery)
        assert settlement.update is update
        self.settled[delivery] = settlement.disposition
        if isinstance(settlement.disposition, Retry):
            self.copies.append(update)

    def call(self, batch: Batch) -> Effects:
        """Send a batch to the model platform and carry out what follows."""
        sent = self.requested(batch)
        judgement = Judgement(call=Call.ANSWERED)
        if sent or batch.reason is FlushReason.CONTROL:
            self.calls.append(sent)
            judgement = judge(self.answer(sent), sent, Rules())
        return self.finish(batch, sent, judgement)

    # -- many calls -----------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Send the next batch, waiting for it if need be; False when nothing is going to happen by itself."""
        batch = self.pop()
        if batch is None:
            deadline = self.coalescer.next_deadline()
            if deadline is None:
                return False
            assert deadline > self.now, "a deadline in the past, and nothing to send"
            self.now = deadline
            return True
        self.call(batch)
        return True

    def run(self, calls: int = 300) -> None:
        """Work until everything is decided, an outage is reported, or only the world can change something."""
        first = len(self.calls)
        while self.outage is None and self.step():
            assert len(self.calls) - first <= calls, "too many calls"

    def probe(self) -> bool:
        """What the shell does in an outage: the control call, or one entry where that proves nothing."""
        assert self.outage is not None
        batch = self.coalescer.pop_probe() if self.outage.needs_entry else None
        if batch is None:
            batch = self.coalescer.batch((), FlushReason.CONTROL)
        self.launch(batch)
        if self.call(batch).accepted:
            self.recover()
        return self.outage is None

    def recover(self) -> None:
        """The outage is over."""
        self.outage = None
        self.outcomes.suspects.recovered()

    # -- the books ------------------------------------------------------------------------------------------------

    def fate(self, update: Update) -> Disposition | None:
        """What was decided about an update, None while it is held."""
        return self.settled.get(update.delivery)

    @property
    def dead(self) -> dict[Delivery, Dead]:
        """The deliveries that were given up."""
        return {delivery: fate for delivery, fate in self.settled.items() if isinstance(fate, Dead)}

    @property
    def retried(self) -> list[Retry]:
        """The delayed copies that were made."""
        return [fate for fate in self.settled.values() if isinstance(fate, Retry)]

    def assert_all_acked(self, *except_for: Update) -> None:
        """Every delivery but these is acknowledged, and nothing is left over."""
        others = {update.delivery for update in except_for}
        wrong = {d.tag: fate for d, fate in self.settled.items() if d not in others and not isinstance(fate, Ack)}

        assert wrong == {}
        assert self.unsettled == {}
        assert self.coalescer.idle


def redelivered(update: Update, tag: int, generation: int, *, attempt: int | None = None) -> Update:
    """The same update, handed over again: same version, another delivery."""
    delivery = make_delivery(
        update.delivery.body, tag, generation, message_id=update.delivery.properties.message_id, redelivered=True
    )
    return replace(update, delivery=delivery, attempt=update.attempt if attempt is None else attempt)


def values_of(updates: Sequence[Update]) -> dict[int, dict[str, Scalar]]:
    """What a platform holds that took these updates in the order of their versions."""
    values: dict[int, dict[str, Scalar]] = {}
    for update in by_version(updates):
        values.setdefault(update.order_id, {}).update(update.fields)
    return values
