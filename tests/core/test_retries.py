"""What is neither applied nor refused: no answer, and orders that the platform is too busy for."""

from collections.abc import Mapping, Sequence

import pytest

from tests.builders import make_update
from tests.support.driver import Driver, values_of
from tests.support.modelplatform import ModelPlatform, Refusal
from tests.support.orders import BAD, MASKED, assert_only_dead, orders, refuses_bad
from worker.core.model import Fields, Reason, Retry
from worker.core.outage import OutageKind
from worker.core.report import CallReport, NoAnswer

# -- no answer ----------------------------------------------------------------------------------------------------


def silent_for(platform: ModelPlatform, *silent: int) -> "Silent":
    """A platform that never answers for these orders."""
    return Silent(platform, silent)


class Silent:
    """No answer for calls that hold one of these orders; ``executes`` says whether they are done all the same."""

    def __init__(self, platform: ModelPlatform, silent: Sequence[int], *, executes: bool = False) -> None:
        self.platform = platform
        self.silent = silent
        self.executes = executes

    def __call__(self, requested: Mapping[int, Fields]) -> CallReport:
        if not set(self.silent) & set(requested):
            return self.platform(requested)
        if self.executes:
            self.platform(requested)
        return NoAnswer(cause="timeout")


def test_no_answer_sends_the_same_values_again_then_halves() -> None:
    """Twice the whole batch with a backoff in between, then each half."""
    driver = Driver(silent_for(ModelPlatform(), *range(1, 9)))
    driver.add(*orders(8))
    driver.run()

    assert [len(call) for call in driver.calls[:4]] == [8, 8, 4, 4]
    assert driver.calls[0] == driver.calls[1]


def test_five_calls_without_an_answer_are_an_outage() -> None:
    """And nothing is settled by it."""
    driver = Driver(silent_for(ModelPlatform(), *range(1, 9)))
    driver.add(*orders(8))
    driver.run()

    assert len(driver.calls) == 5
    assert [outage.kind for outage in driver.outages] == [OutageKind.UNAVAILABLE]
    assert driver.settled == {}


def test_an_order_that_gets_no_answer_is_retried_while_others_succeed() -> None:
    """Alone and unanswered three times: it goes to a tier, and after the last attempt it is Dead."""
    driver = Driver(silent_for(ModelPlatform(), 3), max_attempts=2)
    updates = orders(8)
    driver.add(*updates)
    driver.run()
    while driver.outage is not None:
        driver.probe()
        driver.run()
    witness = make_update(100, tag=100)
    driver.add(witness)
    driver.run()

    fate = driver.fate(updates[2])
    assert isinstance(fate, Retry)
    assert fate.reason is Reason.OUTCOME_UNKNOWN
    driver.return_copies(200)
    driver.add(make_update(101, tag=101))
    for _ in range(12):
        driver.run()
        driver.recover()
        driver.add(make_update(102, at=driver.now, tag=1000 + len(driver.calls)))
    assert [dead.reason for dead in driver.dead.values()] == [Reason.OUTCOME_UNKNOWN]


def test_an_order_without_an_answer_never_dies_while_nothing_else_succeeds() -> None:
    """An accepted control call shows that the platform is there, not that it takes orders."""
    driver = Driver(silent_for(ModelPlatform(), *range(1, 9)), max_attempts=1)
    driver.add(*orders(8))
    for _ in range(20):
        driver.run(calls=1000)
        assert driver.outage is not None
        assert driver.probe()

    assert driver.settled == {}


@pytest.mark.parametrize("executes", [True, False])
def test_a_platform_that_answers_again_settles_what_was_in_doubt(executes: bool) -> None:
    """Whether the unanswered calls were executed or not: the same values again, then Ack."""
    platform = ModelPlatform()
    silent = Silent(platform, range(1, 9), executes=executes)
    driver = Driver(silent)
    updates = orders(8)
    driver.add(*updates)
    driver.run()
    silent.silent = ()
    driver.probe()
    driver.run()

    driver.assert_all_acked()
    assert platform.values == values_of(updates)


def test_a_rejection_after_an_unanswered_call_reads_in_doubt() -> None:
    """Perhaps the first try was executed and the refusal only says that it cannot be done twice."""
    platform = ModelPlatform(refuses_bad)
    answers: list[CallReport] = [NoAnswer(cause="reset")]
    driver = Driver(lambda requested: answers.pop() if answers else platform(requested))
    bad = make_update(1, status=BAD)
    driver.add(bad)
    driver.run()

    assert_only_dead(driver, Reason.REJECTED_IN_DOUBT, bad)


# -- busy -----------------------------------------------------------------------------------------------------------


def test_a_busy_order_goes_through_the_tiers_and_then_dies() -> None:
    """Longer and longer delays, one attempt each, then Dead(retries-exhausted)."""
    driver = Driver(ModelPlatform(refuses_bad, Refusal.NO_PATH, text=MASKED), delays_s=(5.0, 30.0, 120.0))
    busy = make_update(1, status=BAD)
    driver.add(busy)
    for tag in range(10, 60, 10):
        driver.run()
        driver.return_copies(tag)
        driver.add(make_update(2, at=tag, tag=tag + 1))
    driver.run()

    assert [retry.tier for retry in driver.retried] == [0, 1, 2, 2]
    assert [dead.reason for dead in driver.dead.values()] == [Reason.RETRIES_EXHAUSTED]
    assert driver.unsettled == {}


def test_a_busy_order_in_a_batch_is_found_and_only_it_is_delayed() -> None:
    """A masked internal error on the whole batch is searched like a refusal."""
    driver = Driver(ModelPlatform(refuses_bad, Refusal.NO_PATH, text=MASKED))
    updates = orders(100, [61])
    driver.add(*updates)
    driver.run()

    assert isinstance(driver.fate(updates[61]), Retry)
    driver.assert_all_acked(updates[61])


def test_a_rejection_while_an_earlier_update_waits_in_a_tier_is_a_retry() -> None:
    """It may be refused only because the earlier one is missing; and what is refused behind it waits as well."""
    healthy = ModelPlatform(lambda _order, fields: fields.get("status") == 8)
    driver = Driver(ModelPlatform(refuses_bad, Refusal.NO_PATH, text=MASKED), linger_s=0.0)
    first, second, third = [make_update(1, status=s, at=n, tag=n) for n, s in enumerate((BAD, 8, 8), 1)]
    driver.add(first)
    driver.run()
    driver.answer, driver.now = healthy, 1.0
    driver.add(second)
    driver.run()

    assert isinstance(driver.fate(first), Retry)
    fate = driver.fate(second)
    assert isinstance(fate, Retry)
    assert fate.reason is Reason.REJECTED
    driver.now = 11.5  # the first one is back by now, the second one was sent away a second later
    driver.add(third)
    driver.run()
    assert isinstance(driver.fate(third), Retry)


def test_an_update_never_waits_for_itself() -> None:
    """What comes back from a tier and is refused now, with nothing earlier in a tier, is Dead."""
    driver = Driver(ModelPlatform(refuses_bad, Refusal.NO_PATH, text=MASKED))
    driver.add(make_update(1, status=BAD))
    driver.run()
    driver.answer = ModelPlatform(refuses_bad)
    driver.return_copies(2)
    driver.run()

    assert [dead.reason for dead in driver.dead.values()] == [Reason.REJECTED]


def test_later_updates_of_a_busy_order_go_on() -> None:
    """Versions keep the copy that comes back from undoing them."""
    platform = ModelPlatform(refuses_bad, Refusal.NO_PATH, text=MASKED)
    driver = Driver(platform)
    busy = make_update(1, status=BAD, carrier="Royal Mail", at=1, tag=1)
    driver.add(busy)
    driver.run()
    driver.add(make_update(1, status=8, at=2, tag=2))
    driver.run()
    driver.return_copies(3)
    driver.run()

    driver.assert_all_acked(busy)
    assert platform.values == {1: {"status": 8, "shipping_carrier": "Royal Mail"}}


@pytest.mark.parametrize(
    ("how", "reason"), [(Refusal.OMIT, Reason.UNCONFIRMED), (Refusal.NO_PATH, Reason.RETRIES_EXHAUSTED)]
)
def test_good_updates_merged_with_one_that_is_given_up_are_applied(how: Refusal, reason: Reason) -> None:
    """What was merged away, and what other fields contributed, does not share the end of the bad one."""
    platform = ModelPlatform(refuses_bad, how, text=MASKED)
    driver = Driver(platform)
    driver.add(make_update(1, status=1, at=1, tag=1), make_update(1, status=8, at=2, tag=2))
    driver.add(make_update(1, status=BAD, at=3, tag=3), make_update(1, carrier="Royal Mail", at=4, tag=4))
    for tag in range(10, 70, 10):
        driver.run()
        driver.return_copies(tag)
        driver.add(make_update(2, at=tag, tag=tag + 9))
    driver.run()

    assert [dead.reason for dead in driver.dead.values()] == [reason]
    assert platform.values[1] == {"status": 8, "shipping_carrier": "Royal Mail"}
    assert driver.unsettled == {}
