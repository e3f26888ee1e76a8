"""What follows from one verdict: who leaves by which door. Whole searches are in ``test_isolation.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from tests.builders import make_update
from tests.support.driver import Driver
from tests.support.modelplatform import ModelPlatform
from worker.core import outcome, tiers
from worker.core.entry import Batch, FlushReason
from worker.core.model import Ack, AckReason, Dead, Fields, Reason, Retry, Update
from worker.core.outage import OutageKind
from worker.core.turn import Effects
from worker.core.verdict import Call, Item, ItemVerdict, Judgement

REFUSED = Judgement(call=Call.REFUSED, detail="HTTP 400: no", status=400)
BUSY = Judgement(call=Call.REFUSED, detail="HTTP 200: Internal server error", status=200, transient=True)
UNKNOWN = Judgement(call=Call.UNKNOWN, detail="timeout")


def worker(*updates: Update, max_attempts: int = 5, max_batch: int = 100) -> Driver:
    driver = Driver(ModelPlatform(), max_attempts=max_attempts, max_batch=max_batch, linger_s=0.0)
    driver.add(*updates)
    return driver


def started(driver: Driver) -> tuple[Batch, Mapping[int, Fields]]:
    batch = driver.pop()
    assert batch is not None
    return batch, driver.requested(batch)


def judged(driver: Driver, judgement: Judgement, *, jitter: float = 0.0) -> Effects:
    """Start the next batch and give it this verdict."""
    batch, sent = started(driver)
    return driver.finish(batch, sent, judgement, jitter=jitter)


def answered(driver: Driver, **items: ItemVerdict | Item) -> Effects:
    """Start the next batch; the orders named (``o1=...``) get these verdicts, all others are applied."""
    batch, sent = started(driver)
    verdicts = {order_id: ItemVerdict(item=Item.APPLIED) for order_id in sent}
    for name, verdict in items.items():
        verdicts[int(name[1:])] = verdict if isinstance(verdict, ItemVerdict) else ItemVerdict(item=verdict, detail="x")
    return driver.finish(batch, sent, Judgement(call=Call.ANSWERED, status=200, items=verdicts))


def next_ids(driver: Driver) -> list[list[int]]:
    """The orders of the batches that could start now, not counting control calls."""
    batches = []
    while (batch := driver.coalescer.pop_ready(driver.now)) is not None:
        if batch.entries:
            batches.append([entry.order_id for entry in batch.entries])
    return batches


def several(count: int) -> Sequence[Update]:
    return [make_update(n, tag=n) for n in range(1, count + 1)]


# -- answered -----------------------------------------------------------------------------------------------------


def test_applied_acknowledges_all_deliveries_oldest_first() -> None:
    """Who was sent is applied, who was merged away is superseded; the settlements name their batch."""
    new, old, carrier = [
        make_update(1, status=8, at=3, tag=1),
        make_update(1, status=4, at=1, tag=2),
        make_update(1, carrier="x", at=2, tag=3),
    ]
    effects = answered(worker(new, old, carrier))

    assert [(s.update, s.disposition) for s in effects.settlements] == [
        (old, Ack(AckReason.SUPERSEDED)),
        (carrier, Ack(AckReason.APPLIED)),
        (new, Ack(AckReason.APPLIED)),
    ]
    assert {s.batch_id for s in effects.settlements} == {"t-1"}
    assert effects.accepted
    assert effects.outage is None


def test_remapped_values_are_counted_and_applied() -> None:
    """Carrier and method may be mapped to equivalents."""
    effects = answered(worker(*several(2)), o1=Item.REMAPPED)

    assert effects.remapped == 1
    assert len(effects.settlements) == 2


def test_a_terminal_order_loses_only_its_status_updates() -> None:
    """And the call is no sign that orders are accepted."""
    driver = worker(make_update(1, status=8, at=1, tag=1), make_update(1, carrier="x", at=2, tag=2))
    effects = answered(driver, o1=Item.TERMINAL)

    assert [s.disposition for s in effects.settlements] == [Dead(reason=Reason.TERMINAL_ORDER, detail="x")]
    assert not effects.accepted
    assert next_ids(driver) == [[1]]


@pytest.mark.parametrize("item", [Item.BLAMED, Item.UNCONFIRMED])
def test_who_is_in_question_goes_alone(item: Item) -> None:
    """The others are settled, nothing is decided about it."""
    driver = worker(*several(3))
    effects = answered(driver, o2=item)

    assert len(effects.settlements) == 2
    assert next_ids(driver) == [[2]]


def test_innocent_orders_go_out_again_together() -> None:
    """Without the blamed, and with the attempt they had."""
    driver = worker(*several(4))
    effects = answered(driver, o1=Item.BLAMED, o2=Item.INNOCENT, o3=Item.INNOCENT)

    assert len(effects.settlements) == 1
    assert next_ids(driver) == [[1], [2, 3]]


def test_innocent_orders_are_searched_after_two_rounds() -> None:
    """Somebody must be guilty, whoever is blamed."""
    driver = worker(*several(8))
    for _ in range(3):
        innocent = {f"o{n}": Item.INNOCENT for n in range(3, 9)}
        answered(driver, **innocent)

    assert next_ids(driver) == [[3, 4, 5]]


def test_an_order_unconfirmed_alone_is_retried_with_growing_delay() -> None:
    """Until its last attempt, then it is Dead."""
    fates = []
    for attempt in (1, 2, 4, 5):
        driver = worker(make_update(1, attempt=attempt))
        fates += [s.disposition for s in answered(driver, o1=Item.UNCONFIRMED).settlements]
        assert driver.coalescer.idle

    assert fates == [
        *[Retry(tier=tier, reason=Reason.UNCONFIRMED, detail="x") for tier in (0, 1, 3)],
        Dead(reason=Reason.UNCONFIRMED, detail="x"),
    ]


# -- refused ------------------------------------------------------------------------------------------------------


def test_a_refused_batch_is_searched_by_halves() -> None:
    """A clean half means that the other one is guilty; a refused half sets the other one free."""
    driver = worker(*several(8))
    judged(driver, REFUSED)
    answered(driver)
    judged(driver, REFUSED)

    assert [fate.reason for fate in driver.settled.values() if isinstance(fate, Ack)] == [AckReason.APPLIED] * 4
    assert next_ids(driver) == [[5]]
    assert not driver.coalescer.idle


def test_the_last_one_left_by_the_search_goes_alone() -> None:
    """It was never refused alone, so nothing is decided yet; who travelled with the search waits again."""
    driver = worker(*several(3))
    judged(driver, REFUSED)
    judged(driver, REFUSED)
    effects = judged(driver, REFUSED)

    assert effects.settlements == []
    assert next_ids(driver) == [[2, 3]]
    driver = worker(*several(2))
    judged(driver, REFUSED)
    answered(driver)
    assert next_ids(driver) == [[2]]


def test_a_half_with_blame_of_its_own_ends_the_search() -> None:
    """The blamed order explains the refusal."""
    driver = worker(*several(4))
    judged(driver, REFUSED)
    answered(driver, o1=Item.BLAMED)

    assert next_ids(driver) == [[1], [3, 4]]


def test_a_suspect_is_condemned_by_its_second_refusal() -> None:
    """First refusal: suspected. Control accepted. Second refusal: Dead."""
    driver = worker(make_update(1))
    first = judged(driver, REFUSED)
    control = judged(driver, Judgement(call=Call.ANSWERED))
    second = judged(driver, REFUSED)

    assert (first.suspected, first.settlements) == ([1], [])
    assert control.accepted
    assert [s.disposition for s in second.settlements] == [Dead(reason=Reason.REJECTED, detail="HTTP 400: no")]
    assert driver.coalescer.idle


def test_what_was_merged_into_a_suspect_is_not_condemned_for_it() -> None:
    """A suspect turns out busy in an outage and waits again: newer values merge in, and start innocent."""
    driver = worker(make_update(1, at=1, tag=1))
    judged(driver, REFUSED)
    judged(driver, Judgement(call=Call.ANSWERED))
    for order_id in range(2, 7):
        driver.outcomes.suspects.busy(order_id)
    assert judged(driver, BUSY).outage is not None
    newer = make_update(1, status=8, at=2, tag=2)
    driver.add(newer)
    effects = judged(driver, REFUSED)

    assert effects.suspected == [1]
    assert driver.fate(newer) is None


def test_a_condemned_update_leaves_what_was_merged_away() -> None:
    """The older value gets its own try."""
    old, bad = make_update(1, status=4, at=1, tag=1), make_update(1, status=8, at=2, tag=2)
    driver = worker(old, bad)
    judged(driver, REFUSED)
    judged(driver, Judgement(call=Call.ANSWERED))
    judged(driver, REFUSED)

    assert isinstance(driver.fate(bad), Dead)
    batch, sent = started(driver)
    assert sent == {1: {"status": 4}}
    assert batch.entries[0].updates == [old]


def test_a_refused_merged_order_is_sent_unmerged() -> None:
    """Only the contributors, oldest first, one by one; the rest merges anew."""
    newest, oldest, away = [
        make_update(1, status=8, at=3, tag=1),
        make_update(1, carrier="x", at=2, tag=2),
        make_update(1, status=4, at=1, tag=3),
    ]
    driver = worker(newest, oldest, away)
    judged(driver, REFUSED)
    sent = []
    for _ in range(2):
        batch, fields = started(driver)
        sent.append(fields)
        driver.finish(batch, fields, Judgement(call=Call.ANSWERED, items={1: ItemVerdict(item=Item.APPLIED)}))
    driver.run()

    assert sent == [{1: {"shipping_carrier": "x"}}, {1: {"status": 8}}]
    assert driver.calls == []
    driver.assert_all_acked()


def test_an_order_refused_for_a_passing_reason_is_busy() -> None:
    """All its deliveries go to their tier; after the last attempt they are Dead."""
    first, last = make_update(1, at=1, tag=1), make_update(1, at=2, tag=2, attempt=5)
    effects = judged(worker(first, last), BUSY)

    assert [s.disposition for s in effects.settlements] == [
        Retry(tier=0, reason=Reason.BUSY, detail=BUSY.detail),
        Dead(reason=Reason.RETRIES_EXHAUSTED, detail=BUSY.detail),
    ]
    transient = ItemVerdict(item=Item.BLAMED, detail="locked", transient=True)
    effects = answered(worker(make_update(1, attempt=9, tag=3)), o1=transient)
    assert [s.disposition for s in effects.settlements] == [Dead(reason=Reason.RETRIES_EXHAUSTED, detail="locked")]


def test_the_last_tier_serves_all_later_attempts() -> None:
    """More attempts than tiers."""
    driver = worker(make_update(1, attempt=7), max_attempts=10)

    assert [s.disposition for s in judged(driver, BUSY).settlements] == [
        Retry(tier=3, reason=Reason.BUSY, detail=BUSY.detail)
    ]


def condemned(driver: Driver) -> list[tuple[int, type, Reason]]:
    """Refuse every order and accept every control call; what became of each order."""
    fates = []
    while (batch := driver.pop()) is not None:
        sent = driver.requested(batch)
        verdict = REFUSED if batch.entries else Judgement(call=Call.ANSWERED)
        for settlement in driver.finish(batch, sent, verdict).settlements:
            fate = settlement.disposition
            assert settlement.update is not None
            assert isinstance(fate, Dead | Retry)
            fates.append((settlement.update.order_id, type(fate), fate.reason))
    return fates


def test_the_memory_of_tiers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest orders are forgotten first."""
    monkeypatch.setattr(tiers, "REMEMBERED", 2)
    driver = worker()
    for order_id in range(1, 4):
        driver.add(make_update(order_id, tag=order_id))
        judged(driver, BUSY)
    driver.add(*[make_update(order_id, at=5, tag=10 + order_id) for order_id in range(1, 4)])

    assert sorted(condemned(driver)) == [
        (1, Dead, Reason.REJECTED),
        (2, Retry, Reason.REJECTED),
        (3, Retry, Reason.REJECTED),
    ]


def test_the_memory_of_doubts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest orders are forgotten first."""
    monkeypatch.setattr(outcome, "DOUBTS_KEPT", 2)
    driver = worker(*several(3))
    judged(driver, UNKNOWN)

    assert sorted(condemned(driver)) == [
        (1, Dead, Reason.REJECTED),
        (2, Dead, Reason.REJECTED_IN_DOUBT),
        (3, Dead, Reason.REJECTED_IN_DOUBT),
    ]


# -- no answer ----------------------------------------------------------------------------------------------------


def test_the_wait_after_no_answer_grows_and_is_jittered() -> None:
    """The same batch, not before the backoff is over."""
    driver = worker(*several(2))
    effects = judged(driver, UNKNOWN, jitter=0.5)

    assert effects.settlements == []
    assert driver.coalescer.next_deadline() == 0.25
    driver.now = 0.25
    batch, sent = started(driver)
    assert sorted(sent) == [1, 2]
    driver.finish(batch, sent, UNKNOWN, jitter=0.5)
    assert driver.coalescer.next_deadline() == 0.75


def test_no_answer_ends_a_search() -> None:
    """Whether the half was refused is not known: the others wait again."""
    driver = worker(*several(4))
    judged(driver, REFUSED)
    judged(driver, UNKNOWN)

    assert next_ids(driver) == [[1, 2], [3, 4]]


def test_five_calls_in_a_row_without_an_answer_are_an_outage() -> None:
    """Any other verdict in between starts the count anew."""
    driver = worker(*several(40), max_batch=1)
    outages = [judged(driver, UNKNOWN).outage for _ in range(4)]
    outages.append(answered(driver).outage)
    outages += [judged(driver, UNKNOWN).outage for _ in range(5)]

    assert [outage is not None for outage in outages] == [False] * 9 + [True]


def test_an_applied_order_is_no_longer_in_doubt() -> None:
    """A later rejection is a plain one."""
    driver = worker(make_update(1, at=1, tag=1))
    judged(driver, UNKNOWN)
    answered(driver)
    driver.add(make_update(1, at=2, tag=2))
    judged(driver, REFUSED)
    judged(driver, Judgement(call=Call.ANSWERED))

    (settlement,) = judged(driver, REFUSED).settlements
    assert settlement.disposition == Dead(reason=Reason.REJECTED, detail=REFUSED.detail)


def test_an_order_that_is_missing_in_a_reply_is_in_doubt() -> None:
    """It may have been done: a later rejection must not read as if nothing had happened."""
    driver = worker(make_update(1, at=1, tag=1))
    judged(driver, Judgement(call=Call.ANSWERED, items={1: ItemVerdict(item=Item.UNCONFIRMED, silent=True)}))
    driver.add(make_update(1, at=2, tag=2))
    judged(driver, REFUSED)
    judged(driver, Judgement(call=Call.ANSWERED))

    (settlement,) = judged(driver, REFUSED).settlements
    assert isinstance(settlement.disposition, Retry), "the first one waits in a tier"
    assert settlement.disposition.reason is Reason.REJECTED_IN_DOUBT


# -- the platform, not the message --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [Call.UNAVAILABLE, Call.THROTTLED, Call.AUTH, Call.CONFIGURATION])
def test_a_call_that_counts_for_nobody_leaves_everything_as_it_was(call: Call) -> None:
    """The orders wait and merge; no attempt is used up."""
    driver = worker(*several(2))
    effects = judged(driver, Judgement(call=call, detail="why", retry_after="9"))
    driver.add(make_update(1, status=8, at=9, tag=9))

    assert effects.settlements == []
    assert effects.outage is not None
    assert (effects.outage.detail, effects.outage.retry_after) == ("why", "9")
    assert answered(driver).accepted
    assert driver.coalescer.idle


def test_a_search_and_a_suspect_are_resumed_after_an_outage() -> None:
    """A try with a meaning is repeated as it was."""
    away = Judgement(call=Call.UNAVAILABLE)
    searching, suspecting = worker(*several(4)), worker(make_update(1))
    judged(searching, REFUSED)
    judged(searching, away)
    judged(suspecting, REFUSED)
    judged(suspecting, Judgement(call=Call.ANSWERED))
    judged(suspecting, away)

    assert next_ids(searching) == [[1, 2]]
    (settlement,) = judged(suspecting, REFUSED).settlements
    assert isinstance(settlement.disposition, Dead)


@pytest.mark.parametrize(
    ("judgement", "kind"),
    [
        (Judgement(call=Call.UNAVAILABLE), OutageKind.UNAVAILABLE),
        (UNKNOWN, OutageKind.UNAVAILABLE),
        (REFUSED, OutageKind.CONFIGURATION),
        (replace(REFUSED, status=403), OutageKind.AUTH),
    ],
)
def test_a_control_call_that_is_not_accepted_is_an_outage(judgement: Judgement, kind: OutageKind) -> None:
    """And settles nothing."""
    driver = worker()
    driver.coalescer.urge(driver.coalescer.batch((), FlushReason.CONTROL))
    effects = judged(driver, judgement)

    assert effects.outage is not None
    assert effects.outage.kind is kind
    assert (effects.accepted, effects.settlements) == (False, [])


def test_a_batch_that_is_covered_altogether_settles_nothing_more() -> None:
    """Everything in it was applied meanwhile; half of a search that is covered is clean."""
    driver = worker(*several(4))
    judged(driver, REFUSED)
    for order_id in (1, 2):
        driver.applied[order_id] = {"status": make_update(order_id, at=9).version}
    effects = judged(driver, Judgement(call=Call.ANSWERED))

    assert not effects.accepted
    assert list(driver.settled.values()) == [Ack(AckReason.SUPERSEDED)] * 2
    assert next_ids(driver) == [[3]]
