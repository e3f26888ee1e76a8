"""The check that fault tests end with finds every violation that is planted."""

import random
import sys
import time
from collections.abc import Callable, Mapping

import pytest

from tests.support.accounting import Accounting
from tests.support.orderbooks import Key, body_of, fields_of
from worker.simulator.connections import Connection
from worker.simulator.exchange import Platform
from worker.simulator.options import Options
from worker.simulator.orders import Moment

MOMENT = Moment(0.0, 0.0, "client", 1)


class Story:
    """A platform, its books, and what a test lets happen."""

    def __init__(self) -> None:
        self.platform = Platform(Options(), clock=time.monotonic, wall=time.time)
        self.accounting = Accounting(self.platform)

    def make(self, order_id: int, count: int) -> list[Key]:
        """So many events of one order."""
        return [self.accounting.make(order_id) for _ in range(count)]

    def apply(self, key: Key, *, client: str = "client", **instead: object) -> None:
        """The platform takes the values of this event from this client."""
        fields: Mapping[str, object] = instead or fields_of(key.version)
        orders = self.platform.orders
        after = orders.get(key.order_id)._replace(**fields)  # type: ignore[arg-type]
        orders.write(key.order_id, after, sent=fields, moment=MOMENT._replace(client=client))

    def problems(self) -> dict[str, list[str]]:
        """What the verdict blames."""
        return self.accounting.verdict().problems


@pytest.fixture
def story() -> Story:
    """Ten events of order 1, of which all values are applied; one refused event of order 2, dead-lettered."""
    made = Story()
    for key in made.make(1, 10):
        made.apply(key)
    refused = made.accounting.make(2, refused=True)
    made.accounting.note_dead(made.accounting.body(refused))
    return made


def test_accounts_that_balance_are_good_and_add_up(story: Story) -> None:
    """Applied, superseded, dead, queued and unconfirmed: each event is counted once."""
    accounting = story.accounting
    for key in story.make(3, 20)[-5:]:
        story.apply(key)
    unsure, queued = accounting.make(3), accounting.make(4)
    accounting.unsure(unsure)
    accounting.replace_queued([accounting.body(queued)])
    verdict = accounting.verdict()

    verdict.assert_good()
    figures = verdict.figures
    places = ("applied", "superseded", "dead", "queued", "unconfirmed", "lost")
    assert {name: figures[name] for name in places} == {
        "applied": 15,
        "superseded": 15,
        "dead": 1,
        "queued": 1,
        "unconfirmed": 1,
        "lost": 0,
    }
    assert sum(figures[name] for name in places) == figures["events"] == 33


def _lost(story: Story) -> None:
    story.accounting.make(1)


def _lost_field(story: Story) -> None:
    for key in story.make(1, 10):
        others = {name: value for name, value in fields_of(key.version).items() if name != "shipping_method"}
        if others:
            story.apply(key, **others)


def _lost_refused(story: Story) -> None:
    story.accounting.make(1, refused=True)


def _lost_invalid(story: Story) -> None:
    story.accounting.make(1, invalid=True)
    story.apply(story.accounting.make(1))


def _applied_invalid(story: Story) -> None:
    key = story.accounting.make(1, invalid=True)
    story.apply(key)


def _backwards(story: Story) -> None:
    story.apply(Key(1, 5))


def _applied_and_dead(story: Story) -> None:
    story.accounting.note_dead(body_of(Key(1, 7)))


def _dead_without_cause(story: Story) -> None:
    story.accounting.note_dead(body_of(story.accounting.make(1)))


def _queued_and_dead(story: Story) -> None:
    story.accounting.replace_queued([body_of(Key(2, 1), refused=True)])


def _foreign_dead(story: Story) -> None:
    story.accounting.note_dead(b'{"id": 77, "sequence": 1}')


def _changed_dead(story: Story) -> None:
    story.accounting.note_dead(body_of(Key(2, 1), refused=True) + b" ")


def _foreign_queued(story: Story) -> None:
    story.accounting.replace_queued([b"not JSON"])


def _foreign_value(story: Story) -> None:
    story.apply(Key(1, 10), status=7)


def _future_value(story: Story) -> None:
    story.apply(Key(1, 11))


def _unwritten_value(story: Story) -> None:
    story.apply(Key(1, 9))
    story.platform.orders.history.clear()


def _double_by_broker(story: Story) -> None:
    story.accounting.note_broker("fine\nchannel error: PRECONDITION_FAILED - unknown delivery tag 5\n")


def _double_by_worker(story: Story) -> None:
    story.accounting.note_worker([{"event": "broker.channel_gone", "detail": "x: unknown delivery tag 5"}])


def _double_by_counts(story: Story) -> None:
    counts = {"delivered": 10, "applied": 8, "duplicate": 2, "dead": 1}
    story.accounting.note_worker([{"event": "worker.stopped", "counts": counts}])


def _overlap(story: Story) -> None:
    calls = story.platform.calls
    for call in [calls.start(_Present()), calls.start(_Present())]:
        calls.enter(call, "updateOrders", [1])


class _Present(Connection):
    """A client that is still there."""

    is_open = True

    def __init__(self) -> None:
        pass


PLANTED: Mapping[str, tuple[Callable[[Story], None], str, str]] = {
    "a confirmed event that is nowhere": (_lost, "lost", "order 1 version 11"),
    "one field of an event that got lost": (_lost_field, "lost", "order 1 version 14"),
    "a refused event that is nowhere": (_lost_refused, "lost", "order 1 version 11"),
    "an invalid event that is nowhere": (_lost_invalid, "lost", "order 1 version 11"),
    "an invalid event that was sent": (_applied_invalid, "invalid, yet applied", "order 1 version 11"),
    "an older value that stayed": (_backwards, "went backwards", "order 1 status shows version 5"),
    "applied and dead": (_applied_and_dead, "both applied and dead", "order 1 version 7"),
    "a good event given up": (_dead_without_cause, "dead without cause", "order 1 version 11"),
    "queued and dead": (_queued_and_dead, "both queued and dead", "order 2 version 1"),
    "a foreign dead letter": (_foreign_dead, "not one of ours", "dead letter"),
    "a dead letter with another body": (_changed_dead, "not one of ours", "dead letter"),
    "a foreign message in the queue": (_foreign_queued, "not one of ours", "queued message"),
    "a value of no event": (_foreign_value, "not one of ours", "order 1"),
    "a value of an event not made": (_future_value, "not one of ours", "order 1"),
    "a value that nobody wrote": (_unwritten_value, "not one of ours", "order 1 shows"),
    "the broker saw a second settlement": (_double_by_broker, "settled twice", "delivery tag 5"),
    "the worker lost a channel for it": (_double_by_worker, "settled twice", "delivery tag 5"),
    "more settled than delivered": (_double_by_counts, "settled twice", "11 settled of 10"),
    "an order in two calls": (_overlap, "two calls at once", "order 1"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_violation_is_found_and_named(story: Story, name: str) -> None:
    """The failure says what is wrong with which event or order."""
    plant, kind, told = PLANTED[name]
    assert story.problems() == {}
    plant(story)
    problems = story.problems()

    assert kind in problems
    assert any(told in case for case in problems[kind])
    with pytest.raises(AssertionError, match=kind):
        story.accounting.verdict().assert_good()


def test_an_unconfirmed_event_may_be_applied_dead_or_nowhere(story: Story) -> None:
    """Nobody knows whether the broker had it; but once its value was applied, that has to stay."""
    accounting = story.accounting
    first, second, third = story.make(1, 3)
    for key in (first, second, third):
        accounting.unsure(key)

    assert accounting.arrived()
    story.apply(second)
    assert story.problems() == {}
    story.apply(Key(1, 6), **fields_of(5))
    assert "went backwards" in story.problems()


def test_what_is_queued_may_still_mend_a_step_back(story: Story) -> None:
    """A redelivery that waits in the queue is no loss, and a step back that was mended is only counted."""
    accounting = story.accounting
    story.apply(Key(1, 5))
    accounting.replace_queued([body_of(Key(1, 10))])
    assert story.problems() == {}
    accounting.replace_queued([])
    assert "went backwards" in story.problems()
    story.apply(Key(1, 10))

    assert story.problems() == {}
    assert accounting.verdict().figures["stepped_back"] == 1


def test_a_refused_event_may_be_superseded_before_it_is_sent(story: Story) -> None:
    """A later value of its field was applied, so nobody needs it any more."""
    story.accounting.make(1, refused=True)
    for key in story.make(1, 2):
        story.apply(key)

    assert story.problems() == {}


def test_arrived_waits_for_values_and_dead_letters(story: Story) -> None:
    """Nothing is on its way any more once every order is right and every refused event is dead-lettered."""
    accounting = story.accounting
    good, refused = accounting.make(1), accounting.make(1, refused=True)
    assert not accounting.arrived()
    story.apply(good)
    assert not accounting.arrived()
    accounting.note_dead(accounting.body(refused))

    assert accounting.arrived()


def test_500_000_events_cost_a_few_bytes_each() -> None:
    """The campaign's size: the books stay small, the history is forgotten, and the verdict takes seconds."""
    story = Story()
    chance = random.Random(1)
    orders, rounds = 500, 1000
    for _ in range(rounds):
        for order_id in range(1, orders + 1):
            key = story.accounting.make(order_id)
            if chance.random() < 0.1:
                story.apply(key)
        story.accounting.fold()
    for order_id in range(1, orders + 1):
        for version in range(rounds - 4, rounds + 1):
            story.apply(Key(order_id, version))
    verdict = story.accounting.verdict()

    verdict.assert_good()
    assert verdict.figures["events"] == orders * rounds
    assert story.platform.orders.history == []
    assert story.accounting.resident_bytes() < 2 * orders * rounds
    assert sys.getsizeof(story.platform.orders.history) < 10_000


@pytest.mark.parametrize("older", ["first", "second"])
def test_a_step_back_is_excused_in_no_life_but_may_be_mended(older: str) -> None:
    """What another life applied is in the journal; whether it was the same life is only told."""
    story = Story()
    keys = story.make(1, 10)
    for key in keys:
        story.apply(key, client="first")
    assert not story.accounting.backwards()
    story.apply(keys[4], client=older)
    assert story.accounting.backwards()
    verdict = story.accounting.verdict()

    assert set(verdict.problems) == {"went backwards"}
    assert verdict.figures["stepped_back"] == 1
    assert verdict.figures["relapsed"] == (older == "first")
    for key in keys[-4:]:  # an echo
        story.apply(key, client="second")
    assert not story.accounting.backwards()
    story.accounting.verdict().assert_good()
