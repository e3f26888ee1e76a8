"""Isolation end to end in the core: one bad event harms only itself, and the platform's trouble harms nobody."""

from collections.abc import Mapping, Sequence

import pytest

from tests.builders import make_update
from tests.support.driver import Driver, values_of
from tests.support.modelplatform import ModelPlatform, Refusal, reply, rest_error, shown
from worker.core.entry import FlushReason
from worker.core.model import Ack, Fields, Reason, Retry, Scalar, Update
from worker.core.outage import OutageKind
from worker.core.report import CallReport, NoAnswer, NotSent, Reply
from worker.core.verdict import Call

BAD = 99
"""The status that the model platform refuses."""
MASKED = "Internal server error"
WHOLE_CALL = [Refusal.HTTP_400, Refusal.NO_PATH]


def refuses_bad(_order_id: int, fields: Fields) -> bool:
    return fields.get("status") == BAD


def orders(count: int, bad: Sequence[int] = ()) -> list[Update]:
    """One update each for the orders 1 to ``count``; those at the positions ``bad`` are refused."""
    return [make_update(n + 1, status=BAD if n in bad else 4, at=n, tag=n + 1) for n in range(count)]


def assert_only_dead(driver: Driver, reason: Reason, *bad: Update) -> None:
    """Exactly these are dead-lettered, for this reason, and all others are acknowledged."""
    assert {delivery: dead.reason for delivery, dead in driver.dead.items()} == {u.delivery: reason for u in bad}
    driver.assert_all_acked(*bad)


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


def test_without_any_witness_a_suspect_is_held() -> None:
    """Nothing else is accepted, so it cannot be told whose fault it is."""
    driver = Driver(ModelPlatform(refuses_bad, takes_empty=False))
    driver.outcomes.suspects.control_usable = False
    bad = make_update(1, status=BAD)
    driver.add(bad)
    driver.run()

    assert driver.fate(bad) is None
    assert not driver.coalescer.idle


# -- no answer ----------------------------------------------------------------------------------------------------


def silent_for(platform: ModelPlatform, *silent: int) -> "Silent":
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
