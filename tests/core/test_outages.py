"""The platform's own trouble harms nobody: outages are seen as such, and end by themselves."""

from collections.abc import Mapping

import pytest

from tests.builders import make_update
from tests.support.driver import Driver, values_of
from tests.support.modelplatform import ModelPlatform, reply, rest_error
from tests.support.orders import BAD, MASKED, assert_only_dead, orders, refuses_bad
from worker.core.entry import FlushReason
from worker.core.model import Fields, Reason, Retry
from worker.core.outage import OutageKind
from worker.core.report import CallReport, NotSent, Reply

# -- the platform's own trouble -----------------------------------------------------------------------------------


def masked_200(_requested: Mapping[int, Fields]) -> CallReport:
    return reply(None, [{"message": MASKED}])


ALWAYS: Mapping[str, tuple[CallReport, OutageKind]] = {
    "400": (rest_error("Bad request"), OutageKind.CONFIGURATION),
    "403": (rest_error("Permission denied", 403), OutageKind.AUTH),
    "masked 200": (reply(None, [{"message": MASKED}]), OutageKind.UNAVAILABLE),
    "masked 500": (reply(None, [{"message": MASKED}], 500), OutageKind.UNAVAILABLE),
    "unknown field": (reply(None, [{"message": 'Cannot query field "id"'}]), OutageKind.CONFIGURATION),
    "302": (Reply(status=302), OutageKind.CONFIGURATION),
    "503": (Reply(status=503), OutageKind.UNAVAILABLE),
    "429": (Reply(status=429), OutageKind.THROTTLED),
    "not sent": (NotSent(cause="connection refused"), OutageKind.UNAVAILABLE),
}


@pytest.mark.parametrize("everything", ALWAYS)
@pytest.mark.parametrize("count", [1, 4, 100, 250])
def test_a_platform_that_refuses_everything_kills_nothing(everything: str, count: int) -> None:
    """An outage is reported within a bounded number of calls, and stays one however often we probe."""
    report, kind = ALWAYS[everything]
    driver = Driver(lambda _requested: report)
    driver.add(*orders(count))
    driver.run(calls=60)

    assert driver.dead == {}
    if count >= 5 or not everything.startswith("masked 200"):
        assert {outage.kind for outage in driver.outages} == {kind}
        attempts_used = len(driver.retried)
        for _ in range(30):
            assert not driver.probe()
        assert driver.dead == {}
        assert len(driver.retried) == attempts_used
    if not everything.startswith("masked 200"):
        assert driver.settled == {}


@pytest.mark.parametrize("everything", ALWAYS)
@pytest.mark.parametrize("known", [True, False], ids=["control known to work", "control never tried"])
def test_work_goes_on_by_itself_after_an_outage(everything: str, known: bool) -> None:
    """When the platform is well again a probe is accepted, and every delivery is acknowledged."""
    platform = ModelPlatform()
    driver = Driver(platform)
    driver.outcomes.suspects.control_usable = True if known else None
    driver.answer = lambda _requested: ALWAYS[everything][0]
    updates = orders(100)
    driver.add(*updates)
    driver.run(calls=60)
    for _ in range(20):
        driver.probe()
    driver.answer = platform
    driver.probe()
    driver.run()
    retried = [update for update in updates if isinstance(driver.fate(update), Retry)]
    driver.return_copies(1000)
    driver.run()

    driver.assert_all_acked(*retried)
    assert platform.values == values_of(updates)


def test_five_busy_orders_are_an_outage_and_the_fifth_keeps_its_attempt() -> None:
    """From the fifth on nobody's attempts are used up for what is the platform's trouble."""
    driver = Driver(masked_200)
    driver.add(*orders(20))
    driver.run()

    assert len(driver.retried) == 4
    assert driver.outage is not None
    assert driver.outage.needs_entry


def test_probes_take_a_different_order_each_time() -> None:
    """One order that is always busy must not keep all others waiting."""
    driver = Driver(masked_200)
    updates = orders(20)
    driver.add(*updates)
    driver.run()
    first = len(driver.calls)
    for _ in range(16):
        driver.probe()

    assert sorted(order_id for call in driver.calls[first:] for order_id in call) == sorted(
        update.order_id for update in updates if driver.fate(update) is None
    )


# -- platforms that refuse empty lists ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
def test_a_platform_that_refuses_empty_lists_is_learnt(status: int) -> None:
    """The control call is refused, an order is applied: from then on only other orders are witnesses."""
    platform = ModelPlatform(refuses_bad)

    def answer(requested: Mapping[int, Fields]) -> CallReport:
        return platform(requested) if requested else rest_error("Nothing to update", status)

    driver = Driver(answer)
    bad = make_update(1, status=BAD, at=0, tag=1)
    driver.add(bad)
    driver.run()

    assert driver.outage is not None
    assert driver.outage.needs_entry
    driver.add(make_update(2, at=1, tag=2))
    assert driver.probe()
    driver.run()
    assert driver.outcomes.suspects.control_usable is False
    assert_only_dead(driver, Reason.REJECTED, bad)
    assert driver.outage is None


@pytest.mark.parametrize("position", [0, 17, 50, 99])
def test_a_bad_order_is_found_without_the_control_call(position: int) -> None:
    """Where empty lists are refused, the orders accepted during the search and after it are the witnesses."""
    driver = Driver(ModelPlatform(refuses_bad, takes_empty=False))
    driver.add(make_update(500, tag=500))
    driver.coalescer.urge(driver.coalescer.batch((), FlushReason.CONTROL))
    driver.run()
    driver.probe()
    driver.run()
    updates = orders(100, [position])
    driver.add(*updates)
    driver.run()
    driver.add(make_update(501, tag=501))
    driver.run()

    assert_only_dead(driver, Reason.REJECTED, updates[position])
    assert sum(not call for call in driver.calls) == 1


@pytest.mark.parametrize("everything", ["503", "429", "masked 500", "403"])
def test_where_empty_lists_are_refused_every_outage_is_probed_with_an_entry(everything: str) -> None:
    """The control call would never be accepted, so the outage would never end."""
    platform = ModelPlatform(takes_empty=False)
    driver = Driver(lambda _requested: ALWAYS[everything][0])
    driver.outcomes.suspects.control_usable = False
    driver.add(*orders(20))
    driver.run()
    driver.answer = platform

    assert driver.outage is not None
    assert driver.outage.needs_entry
    assert driver.probe()
    driver.run()
    driver.assert_all_acked()


def test_without_any_witness_a_suspect_is_held() -> None:
    """Nothing else is accepted, so it cannot be told whose fault it is."""
    driver = Driver(ModelPlatform(refuses_bad, takes_empty=False))
    driver.outcomes.suspects.control_usable = False
    bad = make_update(1, status=BAD)
    driver.add(bad)
    driver.run()

    assert driver.fate(bad) is None
    assert not driver.coalescer.idle
