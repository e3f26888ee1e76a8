"""The control rule: who counts as a witness, what a refused control call means, when it is an outage."""

import pytest

from tests.builders import make_update
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.outage import OutageKind
from worker.core.suspects import TROUBLED_ORDERS, Suspects
from worker.core.verdict import Call, Judgement


class Court:
    """Suspects with their coalescer; every order that is asked for is out already."""

    def __init__(self) -> None:
        self.coalescer = Coalescer(max_batch=100, max_bytes=1 << 20, linger_s=0.0)
        self.suspects = Suspects(self.coalescer)

    def refused(self, order_id: int, generation: int = 1) -> Entry:
        """An entry that was called alone and refused; held now."""
        self.coalescer.add(make_update(order_id, tag=order_id, generation=generation), 0.0)
        batch = self.start()
        while not batch.entries or batch.entries[0].order_id != order_id:
            batch = self.start()
        self.suspects.hold(batch.entries[0])
        return batch.entries[0]

    def start(self) -> Batch:
        batch = self.coalescer.pop_ready(0.0)
        assert batch is not None
        return batch

    def witness(self) -> int:
        """The number of another call that starts now."""
        return self.coalescer.batch((), FlushReason.SIZE).seq


def denied(status: int = 400) -> Judgement:
    return Judgement(call=Call.REFUSED, status=status, detail="no")


def test_a_suspect_waits_for_a_witness_and_is_then_sent_alone() -> None:
    """The control call is asked for at once; when it is accepted, the suspect goes out again."""
    court = Court()
    entry = court.refused(1)
    control = court.start()

    assert control.reason is FlushReason.CONTROL
    assert not court.suspects.guilty(entry)
    assert court.coalescer.pop_ready(0.0) is None
    court.suspects.control_accepted(control.seq)
    assert court.suspects.guilty(entry)
    assert court.start().entries == (entry,)


def test_another_order_is_a_witness_too() -> None:
    """If its call started after the refusal."""
    court = Court()
    early = court.witness()
    entry = court.refused(1)
    court.start()
    court.suspects.applied(early)

    assert not court.suspects.guilty(entry)
    court.suspects.applied(court.witness())
    assert court.suspects.guilty(entry)


def test_a_control_call_that_started_before_the_refusal_is_no_witness() -> None:
    """So another one is asked for: nobody may be forgotten."""
    court = Court()
    court.refused(1)
    control = court.start()
    late = court.refused(2)
    court.suspects.control_accepted(control.seq)

    again = court.start()
    assert again.reason is FlushReason.CONTROL
    assert [entry.order_id for entry in court.start().entries] == [1]
    assert not court.suspects.guilty(late)
    court.suspects.control_accepted(again.seq)
    assert court.start().entries == (late,)
    assert court.coalescer.pop_ready(0.0) is None


def test_one_control_call_at_a_time() -> None:
    """Many suspects need only one."""
    court = Court()
    court.refused(1)
    court.start()
    court.refused(2)

    assert court.coalescer.pop_ready(0.0) is None


@pytest.mark.parametrize(("status", "kind"), [(403, OutageKind.AUTH), (400, OutageKind.CONFIGURATION)])
def test_what_is_refused_of_the_control_call_is_not_the_message(status: int, kind: OutageKind) -> None:
    """A right is missing, or the configuration is wrong."""
    court = Court()
    court.refused(1)
    outage = court.suspects.control_denied(denied(status), court.start().seq)

    assert outage is not None
    assert outage.kind is kind


def test_a_control_call_that_worked_before_is_believed() -> None:
    """Only while it is not known whether empty lists are taken an entry has to show it."""
    unknown, known = Court(), Court()
    known.suspects.control_accepted(1)
    outages = [court.suspects.control_denied(denied(), 2) for court in (unknown, known)]

    assert [outage.needs_entry for outage in outages if outage] == [True, False]


def test_a_platform_that_takes_no_empty_lists_is_learnt_and_not_asked_again() -> None:
    """An order is applied by a call that started after the control call was refused."""
    court = Court()
    court.refused(1)
    control = court.start()
    court.suspects.control_denied(denied(), control.seq)
    court.suspects.applied(court.witness())
    court.start()
    court.refused(2)

    assert court.suspects.control_usable is False
    assert court.coalescer.pop_ready(0.0) is None


def test_a_control_call_that_was_asked_for_before_is_no_outage_when_it_is_refused_after_all() -> None:
    """It was queued when nothing was known; a probe that is refused now still says what would prove something."""
    court = Court()
    court.refused(1)
    court.suspects.control_denied(denied(), court.start().seq)
    court.refused(2)
    court.suspects.applied(court.witness())
    assert court.suspects.control_denied(denied(), court.witness()) is None

    outage = court.suspects.control_denied(denied(), court.witness())
    assert outage is not None
    assert outage.needs_entry


def test_an_order_that_was_called_before_the_control_call_teaches_nothing() -> None:
    """The platform may have gone wrong in between."""
    court = Court()
    court.suspects.control_accepted(1)
    early = court.witness()
    court.suspects.control_denied(denied(), court.witness())
    court.suspects.applied(early)

    assert court.suspects.control_usable is True


def test_a_lost_control_call_is_asked_for_again_after_the_outage() -> None:
    """By whoever is still held; with nobody held there is no need."""
    court = Court()
    court.suspects.recovered()
    assert court.coalescer.idle
    court.refused(1)
    court.start()
    court.suspects.control_lost()
    court.suspects.recovered()

    assert court.start().reason is FlushReason.CONTROL


def test_five_different_orders_in_trouble_are_an_outage() -> None:
    """Four are not, nor is one order five times; an applied order clears it."""
    court = Court()
    for order_id in (1, 2, 3, 4, 4, 4):
        court.suspects.busy(order_id)
    assert court.suspects.outage("why") is None
    court.refused(5)

    outage = court.suspects.outage("why")
    assert outage is not None
    assert (outage.kind, outage.needs_entry) == (OutageKind.UNAVAILABLE, True)
    court.suspects.applied(court.witness())
    assert court.suspects.outage("why") is None


def test_an_accepted_control_call_explains_refusals_away_but_not_busy_orders() -> None:
    """Refusals speak for an outage only as long as nothing at all was accepted."""
    refused, busy = Court(), Court()
    for order_id in range(1, TROUBLED_ORDERS + 1):
        refused.refused(order_id)
        busy.suspects.busy(order_id)
    outage = refused.suspects.outage("why")
    for court in (refused, busy):
        court.suspects.control_accepted(court.witness())

    assert outage is not None
    assert not outage.needs_entry
    assert refused.suspects.outage("why") is None
    assert busy.suspects.outage("why") is not None


def test_a_settled_order_no_longer_speaks_for_an_outage() -> None:
    """Nor does one that was never in trouble."""
    court = Court()
    for order_id in range(1, TROUBLED_ORDERS + 1):
        court.suspects.busy(order_id)
    court.suspects.settled(1)
    court.suspects.settled(99)

    assert court.suspects.outage("why") is None


def test_suspects_of_a_lost_channel_are_let_go() -> None:
    """Their orders are free for what is delivered again; others stay held."""
    court = Court()
    gone, stays = court.refused(1, generation=1), court.refused(2, generation=2)
    court.coalescer.lost(1)

    assert court.suspects.lost() == [gone]
    court.suspects.applied(court.witness())
    assert court.start().entries == (stays,)
    court.coalescer.add(make_update(1, tag=9, generation=2), 0.0)
    assert [entry.order_id for entry in court.start().entries] == [1]


def test_applied_since_counts_orders_only() -> None:
    """An accepted control call shows that the platform is there, not that it takes orders."""
    court = Court()
    before = court.witness()
    court.suspects.control_accepted(court.witness())
    assert not court.suspects.applied_since(before)
    court.suspects.applied(court.witness())

    assert court.suspects.applied_since(before)
