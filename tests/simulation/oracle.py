"""The oracle: knows every event, sees what broker, platform and journal see, and says which promise was broken.

What a message may be acknowledged for is checked at the moment when the broker gets the ack; calls when they begin,
dead letters when they are stored; the ends of all events and the final values when everything is at rest.

Versions are (time, sequence). Between equal ones the moment decides at which the worker saw them, so here any of them
may win. Events without a stamp are as old as their first sight.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.simulation.scenario import Event, Kind, Scenario, event_number
from tests.simulation.trace import Trace
from worker.core.model import Fields, Reason, Scalar, Version
from worker.core.values import Values

Age = tuple[int, int]
IN_DOUBT = frozenset({Reason.OUTCOME_UNKNOWN, Reason.REJECTED_IN_DOUBT, Reason.UNCONFIRMED})
"""Dead letters of these reasons may have been applied, and say so."""
EXHAUSTED = frozenset({Reason.RETRIES_EXHAUSTED, Reason.OUTCOME_UNKNOWN, Reason.UNCONFIRMED})
MAX_ATTEMPTS = 4


@dataclass(slots=True)
class Fate:
    """The books of one event."""

    acked: int = 0
    dead: set[Reason] = field(default_factory=set)
    copies: int = 0
    copies_acked: int = 0
    retries: int = 0
    published: int = 0
    first_sight_us: int | None = None
    renewed: bool = False
    in_vain_alone: int = 0
    refused_alone: list[tuple[float, float]] = field(default_factory=list)
    sent_by: set[str] = field(default_factory=set)

    @property
    def forked(self) -> bool:
        """Whether a copy and its original (or a duplicate) may both be on their way, or with two workers: one may send
        what is left of it while the other one finds it guilty."""
        return self.published > 1 or self.copies > self.copies_acked or len(self.sent_by) > 1


class Oracle:
    """One per run; survives the worker."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self.scenario = scenario
        self.trace = trace
        self.by_body = {event.body: event for event in scenario.events.values()}
        self.fates = {number: Fate() for number in scenario.events}
        self.values: dict[int, dict[str, Scalar]] = {}
        self._claimed: dict[tuple[str, int], Values] = {}
        self._echoed: set[int] = set()
        self.journal: dict[int, dict[str, tuple[Version, Scalar]]] = {}
        self._witnesses = iter(scenario.witnesses)
        self._applied: dict[tuple[int, str], set[int]] = {}
        self._in_vain: Counter[int] = Counter()
        self._accepted: list[tuple[float, float, int]] = []

    def next_witness(self) -> Event | None:
        """One more event of the order that is always good."""
        return next(self._witnesses, None)

    def age(self, event: Event) -> Age:
        """Its version, as far as the event says."""
        if event.occurred_us is not None:
            return event.occurred_us, event.sequence
        return self.fates[event.number].first_sight_us or 0, event.sequence

    def _age_of(self, value: Scalar) -> Age:
        return self.age(self._event_of(value))

    def _event_of(self, value: Scalar) -> Event:
        return self.scenario.events[event_number(value)]

    # -- the broker -----------------------------------------------------------------------------------------------

    def seen(self, event: Event, first_seen_us: int) -> None:
        """The worker gets a delivery."""
        fate = self.fates[event.number]
        if fate.first_sight_us is None:
            fate.first_sight_us = first_seen_us

    def forgotten(self, events: Iterable[Event]) -> None:
        """The worker no longer remembers these: what the broker delivers again counts as seen later."""
        for event in events:
            self.fates[event.number].renewed = True

    def copied(self, event: Event, reason: Reason, attempt: int, *, dead: bool) -> None:
        """A copy was stored. Only what went through a retry tier has an attempt more."""
        fate = self.fates[event.number]
        if attempt - (not dead) > 1 + fate.retries:
            self.trace.violation(f"event {event.number} is at attempt {attempt} after {fate.retries} retries")
        fate.retries += not dead
        fate.copies += 1
        if dead:
            fate.dead.add(reason)
            self._check_deserved(event, reason)

    def acked(self, event: Event) -> None:
        """The broker forgets a message: only what is done or copied may go."""
        fate = self.fates[event.number]
        if fate.copies > fate.copies_acked and not (self._covered(event) and self._journalled(event)):
            fate.copies_acked += 1
        elif event.kind is Kind.INVALID:
            self.trace.violation(f"event {event.number} was acked and neither done nor copied")
        else:
            fate.acked += 1
            self._check_ack(event)

    def _check_ack(self, event: Event) -> None:
        if not self._covered(event):
            self.trace.violation(f"event {event.number} was acked before it was applied, superseded or copied")
        elif not self._journalled(event):
            self.trace.violation(f"event {event.number} was acked before the journal had it")

    def _covered(self, event: Event) -> bool:
        applied = [self._applied.get((event.order_id, name), set()) for name in event.fields]
        age = self.age(event)
        return bool(applied) and all(
            any(self.age(self.scenario.events[number]) >= age for number in numbers) for numbers in applied
        )

    def _journalled(self, event: Event) -> bool:
        row = self.journal.get(event.order_id, {})
        age = self.age(event)
        return all(name in row and self._age_of(row[name][1]) >= age for name in event.fields)

    # -- dead letters ---------------------------------------------------------------------------------------------

    def _check_deserved(self, event: Event, reason: Reason) -> None:
        """Only what is bad, for the reason that it is bad for."""
        fate = self.fates[event.number]
        if reason is Reason.INVALID_EVENT:
            fair = event.kind is Kind.INVALID
        elif reason in (Reason.REJECTED, Reason.REJECTED_IN_DOUBT):
            fair = event.kind is Kind.BAD and self._convicted(event, fate)
        elif reason in EXHAUSTED:
            fair = self._in_vain[event.order_id] >= MAX_ATTEMPTS and fate.in_vain_alone > 0
        else:
            fair = False
        if not fair:
            self.trace.violation(f"event {event.number} ({event.kind}) was dead-lettered as {reason} without a cause")

    def _convicted(self, event: Event, fate: Fate) -> bool:
        """The control rule: refused alone, then something else was accepted, then refused alone again."""
        alone = fate.refused_alone
        return len(alone) > 1 and any(
            alone[0][1] <= began and ended <= alone[-1][0]
            for began, ended, order_id in self._accepted
            if order_id != event.order_id
        )

    # -- calls ----------------------------------------------------------------------------------------------------

    def claimed(self, worker: str, order_id: int, values: Values, *, echoes: bool) -> None:
        """What a worker got to know before its call. ``echoes``: the call may hold what is journalled already."""
        self._claimed[worker, order_id] = values
        if echoes or self.scenario.workers > 1:
            self._echoed.add(order_id)
        else:
            self._echoed.discard(order_id)

    def recorded(self, applied: Mapping[int, Values]) -> None:
        """What a call has applied is journalled."""
        for order_id, fields in applied.items():
            row = self.journal.setdefault(order_id, {})
            for name, (version, value) in fields.items():
                if name not in row or row[name][0] < version:
                    row[name] = version, value

    def sent(self, worker: str, orders: Mapping[int, Fields]) -> None:
        """A call begins: nothing in it may be older than the journal says, or there already.

        Of two workers each knows what it was told: the other one may have journalled more meanwhile.
        """
        for order_id, fields in orders.items():
            row: Values = self.journal.get(order_id, {})
            if self.scenario.workers > 1:
                row = self._claimed.get((worker, order_id), {})
            for name, value in fields.items():
                if self.scenario.workers > 1:
                    self.fates[event_number(value)].sent_by.add(worker)
                if name not in row:
                    continue
                if row[name][1] == value and order_id in self._echoed:
                    continue  # an echo
                if row[name][1] == value and self.fates[event_number(value)].renewed:
                    continue  # seen anew: the same value may have a later version now
                if row[name][1] == value:
                    self.trace.violation(f"order {order_id}: {name}={value} was sent again after it was journalled")
                elif self._age_of(value) < self._age_of(row[name][1]):
                    self.trace.violation(f"order {order_id}: {name}={value} is older than what is applied")

    def applied(self, order_id: int, fields: Fields) -> None:
        """The platform executes one order of a call, whether or not its answer arrives."""
        self.values.setdefault(order_id, {}).update(fields)
        for name, value in fields.items():
            self._applied.setdefault((order_id, name), set()).add(event_number(value))

    def accepted(self, began: float, ended: float, orders: Iterable[int]) -> None:
        """A call was accepted for these orders (0: the control call)."""
        self._accepted += [(began, ended, order_id) for order_id in orders]

    def refused_alone(self, began: float, ended: float, fields: Fields) -> None:
        """A call with one order was answered with no."""
        if len(numbers := {event_number(value) for value in fields.values()}) == 1:
            self.fates[numbers.pop()].refused_alone.append((began, ended))

    def in_vain(self, orders: Mapping[int, Fields], *, alone: bool) -> None:
        """A call that certainly or perhaps did nothing for these orders; ``alone``: it had no others."""
        for order_id, fields in orders.items():
            self._in_vain[order_id] += 1
            numbers = {event_number(value) for value in fields.values()}
            if alone and len(numbers) == 1:
                self.fates[numbers.pop()].in_vain_alone += 1

    # -- in the end -----------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Everything is at rest: each event has its end, and each field the right value."""
        for number, fate in self.fates.items():
            if fate.published and not fate.acked and not fate.dead:
                self.trace.violation(f"event {number} is lost")
            if fate.dead - IN_DOUBT and not fate.forked and self._was_applied(number):
                self.trace.violation(f"event {number} was applied and dead-lettered as {', '.join(fate.dead)}")
        for order_id in {event.order_id for event in self.scenario.events.values()}:
            for name in {name for event in self.scenario.events.values() for name in event.fields}:
                self._judge_value(order_id, name)

    def _was_applied(self, number: int) -> bool:
        return any(number in numbers for numbers in self._applied.values())

    def _judge_value(self, order_id: int, name: str) -> None:
        of_order = [e for e in self.scenario.events.values() if e.order_id == order_id and name in e.fields]
        done = [self.age(event) for event in of_order if self.fates[event.number].acked]
        if (journalled := self.journal.get(order_id, {}).get(name)) is not None:
            done.append(self._age_of(journalled[1]))
        if not done:
            return
        held = self.values.get(order_id, {}).get(name)
        if held is None:
            self.trace.violation(f"order {order_id} has no {name}")
        elif self._age_of(held) < max(done):
            self.trace.violation(f"order {order_id} went backwards: {name} is {held}")
