"""One bad event harms only itself: not its batch, not the other events of its own order."""

from collections.abc import Mapping, Sequence

import pytest

from tests.builders import make_update
from tests.support.driver import Driver, values_of
from tests.support.modelplatform import ModelPlatform, Refusal, reply, shown
from tests.support.orders import BAD, assert_only_dead, orders, refuses_bad
from worker.core.model import Ack, Fields, Reason, Retry, Scalar, Update
from worker.core.report import CallReport, NotSent, Reply
from worker.core.verdict import Call

WHOLE_CALL = [Refusal.HTTP_400, Refusal.NO_PATH]


# -- one bad order in a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WHOLE_CALL)
@pytest.mark.parametrize("position", range(100))
def test_one_bad_order_among_100_costs_at_most_15_further_calls(position: int, how: Refusal) -> None:
    """Wherever it stands: only its own delivery is dead-lettered, all others are applied."""
    driver = Driver(ModelPlatform(refuses_bad, how))
    updates = orders(100, [position])
    driver.add(*updates)
    driver.run()

    assert_only_dead(driver, Reason.REJECTED, updates[position])
    assert len(driver.calls) <= 1 + 15


@pytest.mark.parametrize("how", WHOLE_CALL)
@pytest.mark.parametrize(
    "positions", [(0, 1), (0, 99), (49, 50), (10, 11, 12), (3, 50, 97), (0, 1, 2, 3, 4), (5, 25, 45, 65, 85)]
)
def test_several_bad_orders_among_100_are_all_found(positions: Sequence[int], how: Refusal) -> None:
    """Also where so many are in trouble that it looks like an outage for a moment."""
    driver = Driver(ModelPlatform(refuses_bad, how))
    updates = orders(100, positions)
    driver.add(*updates)
    driver.run()
    while driver.outage is not None:
        assert driver.probe()
        driver.run()

    assert_only_dead(driver, Reason.REJECTED, *[updates[position] for position in positions])
    assert len(driver.calls) <= 1 + 15 * len(positions)


def test_an_error_with_a_path_condemns_only_the_one_it_names() -> None:
    """The others are settled by the same call; the named one still needs a witness and a second try alone."""
    driver = Driver(ModelPlatform(refuses_bad, Refusal.PATH))
    updates = orders(100, [42])
    driver.add(*updates)
    driver.now = 1.0
    driver.step()

    assert len(driver.settled) == 99
    driver.run()
    assert_only_dead(driver, Reason.REJECTED, updates[42])
    assert len(driver.calls) <= 4


def test_an_atomic_platform_that_blames_by_path_settles_the_others_next() -> None:
    """Data is null, so nothing was done: the orders are found by halves whatever the path says."""

    def answer(requested: Mapping[int, Fields]) -> CallReport:
        bad = [place for place, fields in enumerate(requested.values()) if fields["status"] == BAD]
        errors = [{"message": "no", "path": ["core", "updateOrders", place]} for place in bad]
        return reply([None] * len(requested) if bad else shown(requested), errors)

    driver = Driver(answer)
    updates = orders(100, [7])
    driver.add(*updates)
    driver.run()

    assert_only_dead(driver, Reason.REJECTED, updates[7])
    assert len(driver.calls) <= 5


def test_innocent_orders_are_searched_when_blame_does_not_help() -> None:
    """A platform that always blames the first order and does nothing: the truth comes out in bounded calls."""

    def answer(requested: Mapping[int, Fields]) -> CallReport:
        if not any(fields["status"] == BAD for fields in requested.values()):
            return reply(shown(requested))
        return reply([None] * len(requested), [{"message": "no", "path": ["core", "updateOrders", 0]}])

    driver = Driver(answer)
    updates = orders(40, [33])
    driver.add(*updates)
    driver.run()

    assert_only_dead(driver, Reason.REJECTED, updates[33])
    assert len(driver.calls) <= 40


def test_an_omitted_order_is_unconfirmed_and_tried_again_later() -> None:
    """Nobody is blamed, so it is neither applied nor refused: alone, then through the tiers, then Dead."""
    driver = Driver(ModelPlatform(refuses_bad, Refusal.OMIT), max_attempts=3)
    updates = orders(5, [2])
    driver.add(*updates)
    driver.run()

    assert driver.fate(updates[2]) == Retry(tier=0, reason=Reason.UNCONFIRMED, detail="missing in the reply")
    driver.return_copies(10)
    driver.run()
    driver.return_copies(20)
    driver.run()
    assert [retry.tier for retry in driver.retried] == [0, 1]
    assert [dead.reason for dead in driver.dead.values()] == [Reason.UNCONFIRMED]


# -- one bad event in a merged order --------------------------------------------------------------------------------


def merged(bad: int, *, all_fields: bool) -> list[Update]:
    """500 events of one order, oldest first; the one at ``bad`` is refused."""
    events = []
    for n in range(500):
        status = BAD if n == bad else n
        full: dict[str, Scalar] = {"status": 1000 + status, "shipping_carrier": f"c{n}", "shipping_method": f"m{n}"}
        names = list(full) if all_fields else [list(full)[n % 3]]
        fields = {name: full[name] for name in names}
        if n == bad:
            fields = {name: "bad" if isinstance(full[name], str) else BAD for name in names}
        events.append(make_update(1, fields=fields, at=n, tag=n + 1))
    return events


def refuses_any_bad(_order_id: int, fields: Fields) -> bool:
    return any(value in (BAD, "bad") for value in fields.values())


@pytest.mark.parametrize("how", WHOLE_CALL)
@pytest.mark.parametrize("all_fields", [True, False], ids=["all fields", "one field each"])
@pytest.mark.parametrize("bad", [499, 498, 497, 250, 0])
def test_one_bad_event_among_500_costs_at_most_6_further_calls(bad: int, all_fields: bool, how: Refusal) -> None:
    """Only the bad event dies; for each field the newest good value stays."""
    platform = ModelPlatform(refuses_any_bad, how)
    driver = Driver(platform)
    events = merged(bad, all_fields=all_fields)
    driver.add(*events)
    driver.run()
    contributed = bad == 499 or (bad >= 497 and not all_fields)

    assert_only_dead(driver, Reason.REJECTED, *[events[bad]] * contributed)
    assert len(driver.calls) <= 1 + 6
    assert platform.values == values_of([event for n, event in enumerate(events) if n != bad])


def test_a_bad_event_among_100_other_orders_harms_neither_them_nor_its_own_order() -> None:
    """Bisection first, then unmerging."""
    platform = ModelPlatform(refuses_any_bad)
    driver = Driver(platform)
    events, others = merged(498, all_fields=False), [make_update(n, at=n, tag=1000 + n) for n in range(2, 101)]
    driver.add(*events, *others)
    driver.run()

    assert_only_dead(driver, Reason.REJECTED, events[498])
    assert len(driver.calls) <= 1 + 15 + 6


# -- terminal orders and milestones -----------------------------------------------------------------------------------


def test_a_terminal_order_takes_no_status_but_keeps_its_other_fields() -> None:
    """The status update is Dead, what else was merged with it goes on."""

    def answer(requested: Mapping[int, Fields]) -> CallReport:
        return reply([{"id": order_id, **fields, "status": 128} for order_id, fields in requested.items()])

    driver = Driver(answer)
    status, carrier = make_update(1, status=8, at=1, tag=1), make_update(1, carrier="DPD", at=2, tag=2)
    driver.add(status, carrier)
    driver.run()

    assert_only_dead(driver, Reason.TERMINAL_ORDER, status)


def test_every_milestone_is_seen_by_the_platform() -> None:
    """However many updates merge around it, and in whatever order they come."""
    platform = ModelPlatform()
    driver = Driver(platform, milestones=(8, 64))
    updates = [make_update(1, status=s, at=n, tag=n + 1) for n, s in enumerate([4, 8, 4, 5, 64, 6, 7])]
    driver.add(*[updates[n] for n in (6, 1, 0, 4, 3, 5, 2)])
    driver.run()

    assert [fields["status"] for _, fields in platform.history] == [8, 64, 7]
    driver.assert_all_acked()


def test_a_milestone_that_came_late_is_sent_before_what_is_newer_and_not_applied_yet() -> None:
    """It arrives while a newer status is out; that call fails, so the pending entries are put in version order."""
    platform = ModelPlatform()
    answers: list[CallReport] = [NotSent(cause="refused")]
    driver = Driver(lambda requested: answers.pop() if answers else platform(requested), milestones=(8, 64))
    driver.add(make_update(1, status=4, at=5, tag=1), make_update(1, status=64, at=7, tag=2))
    driver.now = 1.0
    batch = driver.pop()
    assert batch is not None
    driver.add(make_update(1, status=8, at=3, tag=3))
    driver.call(batch)
    driver.recover()
    driver.run()

    assert [fields["status"] for _, fields in platform.history] == [8, 64]
    driver.assert_all_acked()


def test_a_superseded_update_is_acknowledged_without_a_call() -> None:
    """The platform already has something newer for each of its fields."""
    driver = Driver(ModelPlatform())
    driver.add(make_update(1, at=5, tag=1))
    driver.run()
    late = make_update(1, at=4, tag=2)
    driver.add(late)
    driver.run()

    assert len(driver.calls) == 1
    assert isinstance(driver.fate(late), Ack)


def test_a_throttled_call_counts_for_nobody() -> None:
    """The same orders go out again, nothing is settled, and the wait that was asked for is passed on."""
    driver = Driver(lambda _requested: Reply(status=429, retry_after="7"))
    driver.add(*orders(3))
    driver.run()

    assert driver.verdicts[0].call is Call.THROTTLED
    assert [outage.retry_after for outage in driver.outages] == ["7"]
    assert driver.settled == {}
