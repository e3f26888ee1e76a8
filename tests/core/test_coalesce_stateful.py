"""Coalescer and outcomes together, against a model platform, under everything that can happen in any order.

The machine delivers updates (late, double, as milestones), starts calls and ends them in any order with any verdict,
loses channels, returns copies from retry tiers, has outages and probes. In the end everything heals: then every
delivery must have been settled exactly once, nothing may be stuck, and the platform must hold what the versions say.
"""

from collections.abc import Mapping

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.builders import make_update
from tests.support.driver import Driver, redelivered
from tests.support.modelplatform import ModelPlatform
from worker.core.entry import Batch, FlushReason
from worker.core.model import Dead, Fields, Scalar, Update, Version
from worker.core.verdict import Call, Item, ItemVerdict, Judgement

MAX_BATCH, MAX_BYTES, LINGER_S = 3, 420, 1.0
MILESTONE = 8
CALLS = [*[Call.ANSWERED] * 6, *[Call.REFUSED] * 6, *[Call.UNKNOWN] * 3, *Call]
ITEMS = [*Item, Item.APPLIED, Item.APPLIED]

order_ids = st.integers(1, 6)
fields = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([1, 4, MILESTONE]),
        "shipping_carrier": st.sampled_from(["a", "bb", "x" * 200]),
        "shipping_method": st.sampled_from(["m", "n"]),
    },
).filter(bool)
Flight = tuple[Batch, Mapping[int, Fields]]


class Coalescing(RuleBasedStateMachine):
    """The world around the core. ``self.driver`` keeps the books and asserts the promises about single steps."""

    @initialize(max_attempts=st.integers(1, 4), takes_empty=st.booleans())
    def start_worker(self, max_attempts: int, takes_empty: bool) -> None:
        """A worker with small bounds, so that all of them are met."""
        self.platform = ModelPlatform()
        self.takes_empty = takes_empty
        self.driver = Driver(
            self.platform,
            max_batch=MAX_BATCH,
            max_bytes=MAX_BYTES,
            linger_s=LINGER_S,
            milestones=(MILESTONE,),
            max_attempts=max_attempts,
            delays_s=(5.0, 30.0),
        )
        self.flights: list[Flight] = []
        self.to_redeliver: list[Update] = []
        self.generation, self.tag = 1, 0
        self.admitted: list[Update] = []
        self.versions: dict[tuple[int, str], Version] = {}
        self.executed: dict[tuple[int, str], list[tuple[Version, Scalar]]] = {}

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def _next_tag(self) -> int:
        self.tag += 1
        return self.tag

    @precondition(lambda self: len(self.driver.unsettled) < 20)
    @rule(events=st.lists(st.tuples(order_ids, fields, st.integers(0, 12), st.integers(-1, 1)), min_size=1, max_size=5))
    def deliver(self, events: list[tuple[int, Fields, int, int]]) -> None:
        """New events, as old as they like."""
        for order_id, change, at, sequence in events:
            tag = self._next_tag()
            update = make_update(
                order_id, fields=change, at=at, sequence=sequence, tag=tag, generation=self.generation, first_seen=tag
            )
            self.admitted.append(update)
            self.driver.add(update)

    @precondition(lambda self: 0 < len(self.driver.unsettled) < 20)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """A duplicate of any earlier one."""
        update = data.draw(st.sampled_from(self.admitted), "duplicate")
        self.driver.add(redelivered(update, self._next_tag(), self.generation))

    @precondition(lambda self: self.driver.copies)
    @rule()
    def copies_return(self) -> None:
        """The retry tiers give back what they hold."""
        self._return_copies()

    def _return_copies(self) -> None:
        count = len(self.driver.copies)
        self.driver.return_copies(self.tag + 1, self.generation)
        self.tag += count

    # Bounded by the calls so far: rules that may always run would crowd out all others.
    @precondition(lambda self: self.driver.unsettled and self.generation <= len(self.driver.verdicts) / 6)
    @rule()
    def lose_channel(self) -> None:
        """All unsettled deliveries are going to come again on a new channel."""
        self.to_redeliver += self.driver.lose(self.generation)
        self.generation += 1

    @precondition(lambda self: self.to_redeliver)
    @rule(data=st.data())
    def broker_redelivers(self, data: st.DataObject) -> None:
        """In any order, with the attempt count that they had."""
        for update in data.draw(st.permutations(self.to_redeliver), "order"):
            self.driver.add(redelivered(update, self._next_tag(), self.generation))
        self.to_redeliver = []

    # -- calls --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.driver.outage is None and self.driver.coalescer.next_deadline() is not None)
    @rule(share=st.sampled_from([1.0, 1.0, 0.5, 20.0]))
    def start_calls(self, share: float) -> None:
        """Before, at or after the deadline all that may leave leaves; what stays has a deadline that lies ahead."""
        deadline = self.driver.coalescer.next_deadline()
        if deadline is not None:
            self.driver.now = max(self.driver.now, self.driver.now + share * (deadline - self.driver.now))
        while (batch := self.driver.pop()) is not None:
            self._check_bounds(batch)
            self._launch(batch)
        deadline = self.driver.coalescer.next_deadline()

        assert deadline is None or deadline > self.driver.now
        # Looks inside: from outside nobody sees which orders are ready and which are out in a search.
        for lane in self.driver.coalescer._ready.values():
            assert lane.waiting[0].since + LINGER_S > self.driver.now
            assert not lane.out

    def _check_bounds(self, batch: Batch) -> None:
        assert len(batch.entries) <= MAX_BATCH
        assert len(batch.entries) <= 1 or sum(entry.size for entry in batch.entries) <= MAX_BYTES
        assert all(entry.updates for entry in batch.entries)

    def _launch(self, batch: Batch) -> None:
        self.flights.append((batch, self.driver.requested(batch)))

    @precondition(lambda self: self.driver.outage is not None)
    @rule()
    def probe(self) -> None:
        """Like the shell: one entry where only that proves something, else the control call."""
        assert self.driver.outage is not None
        batch = self.driver.coalescer.pop_probe() if self.driver.outage.needs_entry else None
        batch = batch or self.driver.coalescer.batch((), FlushReason.CONTROL)
        self.driver.launch(batch)
        self._launch(batch)

    @precondition(lambda self: self.flights)
    @rule(
        data=st.data(),
        call=st.sampled_from(CALLS),
        transient=st.sampled_from([False, False, True]),
        executes=st.booleans(),
        jitter=st.sampled_from([0.0, 0.9]),
    )
    def end_call(self, data: st.DataObject, call: Call, transient: bool, executes: bool, jitter: float) -> None:
        """Any verdict, in any order; a call without an answer may have been executed."""
        place = data.draw(st.integers(0, len(self.flights) - 1), "flight")
        batch, sent = self.flights.pop(place)
        verdicts: dict[int, ItemVerdict] = {}
        if not sent and batch.entries == []:
            call = Call.ANSWERED  # everything was covered: there was no call
        if batch.reason is FlushReason.CONTROL and call is Call.ANSWERED and not self.takes_empty:
            call = Call.REFUSED
        if call is Call.ANSWERED:
            drawn = data.draw(st.fixed_dictionaries({order_id: st.sampled_from(ITEMS) for order_id in sent}), "items")
            verdicts = {
                order_id: ItemVerdict(item=self._possible(item, sent), transient=transient)
                for order_id, item in drawn.items()
            }
        self._end(
            batch, sent, Judgement(call=call, items=verdicts, transient=transient), executes=executes, jitter=jitter
        )

    def _possible(self, item: Item, sent: Mapping[int, Fields]) -> Item:
        """A lone order cannot be innocent, and only a status makes an order terminal."""
        if item is Item.INNOCENT and len(sent) == 1:
            return Item.BLAMED
        if item is Item.TERMINAL and not all("status" in fields for fields in sent.values()):
            return Item.UNCONFIRMED
        return item

    def _end(
        self,
        batch: Batch,
        sent: Mapping[int, Fields],
        judgement: Judgement,
        *,
        executes: bool = False,
        jitter: float = 0.0,
    ) -> None:
        for entry in batch.entries:
            item = judgement.items.get(entry.order_id)
            applied = item is not None and item.item in (Item.APPLIED, Item.REMAPPED)
            if applied or (executes and judgement.call is Call.UNKNOWN):
                for name, value in sent[entry.order_id].items():
                    version = entry.winners[name].version
                    self.executed.setdefault((entry.order_id, name), []).append((version, value))
        effects = self.driver.finish(batch, sent, judgement, jitter=jitter)
        if effects.accepted and self.driver.outage is not None:
            self.driver.recover()

    @precondition(lambda self: self.driver.outage is not None)
    @rule()
    def outage_ends(self) -> None:
        """A probe is accepted at once."""
        self.probe()
        self._end_well(*self.flights.pop())

    @precondition(lambda self: len(self.driver.verdicts) > 15)
    @rule()
    def drain(self) -> None:
        """Harmless at any time."""
        self.driver.coalescer.drain()

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def attempts_rise_only_by_retries(self) -> None:
        """Release, loss and redelivery leave them alone."""
        if hasattr(self, "driver"):
            assert all(update.attempt == 1 for update in self.admitted)
            assert len(self.driver.in_flight) == sum(len(batch.entries) for batch, _ in self.flights)

    # -- healing ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """From now on the platform answers everything: all is settled in bounded time, and the values are right."""
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        for _ in range(200):
            self._heal_a_little()
            if self._at_rest():
                break
            if driver.outage is not None or (not self.flights and driver.coalescer.next_deadline() is None):
                self._bring_witness()

        assert driver.unsettled == {}
        assert driver.coalescer.idle
        assert driver.coalescer.buffered == 0
        self._check_values()

    def _bring_witness(self) -> None:
        """Only where empty lists are refused another order may be needed, to end an outage or a suspicion."""
        if not self.takes_empty:
            tag = self._next_tag()
            self.driver.add(make_update(1000 + tag, tag=tag, generation=self.generation))

    def _at_rest(self) -> bool:
        waiting = self.flights or self.to_redeliver or self.driver.copies or self.driver.unsettled
        return not waiting and self.driver.coalescer.idle and self.driver.outage is None

    def _heal_a_little(self) -> None:
        if self.to_redeliver:
            for update in self.to_redeliver:
                self.driver.add(redelivered(update, self._next_tag(), self.generation))
            self.to_redeliver = []
        self._return_copies()
        for batch, sent in self.flights:
            self._end_well(batch, sent)
        self.flights = []
        if self.driver.outage is not None:
            self.probe()
        else:
            self.start_calls(20.0)

    def _end_well(self, batch: Batch, sent: Mapping[int, Fields]) -> None:
        if batch.reason is FlushReason.CONTROL and not self.takes_empty:
            self._end(batch, sent, Judgement(call=Call.REFUSED, status=400))
        else:
            items = {order_id: ItemVerdict(item=Item.APPLIED) for order_id in sent}
            self._end(batch, sent, Judgement(call=Call.ANSWERED, items=items))

    def _check_values(self) -> None:
        """Per order and field the last value that the platform executed is that of the greatest version it executed.

        Excepted where a call without an answer was executed and its update was given up later.
        """
        given_up = {
            (update.order_id, name)
            for update in self.admitted
            for name in update.fields
            if any(
                isinstance(fate, Dead) and delivery.properties.message_id == update.delivery.properties.message_id
                for delivery, fate in self.driver.settled.items()
            )
        }
        for key, values in self.executed.items():
            if key not in given_up:
                assert values[-1] == max(values), key
        for update in self.admitted:
            for name in update.fields:
                if (update.order_id, name) not in given_up:
                    assert max(self.executed[update.order_id, name])[0] >= update.version


def test_every_delivery_is_settled_once_and_no_order_goes_backwards() -> None:
    """Bounded, and the same examples each time."""
    run_state_machine_as_test(
        Coalescing,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
