"""The parts of the demo that judge: a demo that cannot fail proves nothing."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.builders import NOW_US, make_delivery
from worker.core.decode import EventSchema
from worker.core.errors import UsageError
from worker.core.model import Dead, Update
from worker.demo import broker as broker_choice
from worker.demo.broker import choose_broker
from worker.demo.load import SEED_FIELDS, SEED_ORDER, UNKNOWN_CARRIER, Event, Fate, Load, make_load
from worker.demo.oracle import UNTOUCHED, expected_dead, final_states, wrong_orders
from worker.demo.platform import DOCUMENTED_REPLY
from worker.demo.poison import POISON
from worker.demo.queues import CHUNK, Depths, chunks
from worker.demo.report import Report, Result, make_report

LOAD = make_load(1000, now_us=NOW_US)


def event(order_id: int, at: int, *, sequence: int = -1, fate: Fate = Fate.ACCEPTED, **fields: Any) -> Event:
    """An event of the load, ``at`` microseconds."""
    return Event(message_id=f"m{at}", body=b"", order_id=order_id, fate=fate, fields=fields, when=(at, sequence))


def result_of(load: Load, **changes: Any) -> Result:
    """A demo in which all went well, except for ``changes``."""
    dead = expected_dead(load.events)
    good: dict[str, Any] = {
        "load": load,
        "published": len(load.events),
        "counts": {"applied": len(load.events) - dead.total(), "dead": dead.total()},
        "depths": Depths(dead=dead.total()),
        "letters": dead,
        "orders": final_states(load.events),
        "reply": DOCUMENTED_REPLY,
        "calls": 10,
        "failed_calls": 1,
        "outage_s": 5.1,
        "took_s": 20.0,
    }
    return Result(**good | changes)


# -- the load ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_load() -> None:
    """A run can be repeated, byte for byte apart from the date."""
    again = make_load(1000, now_us=NOW_US)
    other = make_load(1000, now_us=NOW_US, seed=1)

    assert again == LOAD
    assert other != LOAD


@pytest.mark.parametrize("count", [200, 1000, 5000])
def test_a_load_has_one_of_everything(count: int) -> None:
    """As many events and orders as announced, the documented example, all kinds of poison, and all kinds of trouble."""
    load = make_load(count, now_us=NOW_US)

    fates = Counter(each.fate for each in load.events)
    kinds = {each.message_id.split("-", 2)[2].replace("-", " ") for each in load.events if each.fate is Fate.INVALID}
    assert len(load.events) == count
    assert len({each.order_id for each in load.events}) == len(load.orders) == count // 10
    assert final_states(load.events)[SEED_ORDER] == SEED_FIELDS
    assert kinds == {kind.replace("-", " ") for kind in POISON}
    assert fates[Fate.REJECTED] > 2
    assert load.late > count / 50
    assert load.repeated > 0
    assert any(each.when[1] >= 0 for each in load.events) or count < 1000


def test_the_example_is_published_before_older_events_of_its_order() -> None:
    """Whoever believes in the order of arrival gets the documented order wrong."""
    own = [each for each in LOAD.events if each.order_id == SEED_ORDER and each.fate is Fate.ACCEPTED]

    assert max(own, key=lambda each: each.when).fields == SEED_FIELDS
    assert own[-1].fields != SEED_FIELDS


def test_the_worker_reads_every_event_as_the_load_means_it() -> None:
    """The plan and the bytes say the same: fields and versions of good events, and which ones cannot be understood."""
    schema = EventSchema({}, ())
    for each in LOAD.events:
        decoded = schema.decode(make_delivery(each.body))
        if each.fate is Fate.INVALID:
            assert isinstance(decoded, Dead), each
        else:
            assert isinstance(decoded, Update), each
            assert (decoded.order_id, decoded.fields, decoded.version.when) == (each.order_id, each.fields, each.when)


def test_too_few_events_are_refused() -> None:
    """Below that a load would lack some of its kinds."""
    with pytest.raises(ValueError, match="at least 200"):
        make_load(199, now_us=NOW_US)


def test_no_chunk_has_a_message_id_twice() -> None:
    """Two publishes of one id in flight could swap their confirms."""
    pieces = list(chunks(LOAD.events))

    assert [each for piece in pieces for each in piece] == list(LOAD.events)
    for piece in pieces:
        assert len({each.message_id for each in piece}) == len(piece) <= CHUNK


# -- the oracle -------------------------------------------------------------------------------------------------------


def test_the_latest_acceptable_value_of_each_field_counts() -> None:
    """Neither the order of arrival nor what was rejected matters; equal times are told apart by the sequence."""
    states = final_states(
        [
            event(1, 20, status=8),
            event(1, 10, status=4, shipping_carrier="DPD"),
            event(1, 20, sequence=1, status=64),
            event(1, 30, fate=Fate.REJECTED, shipping_carrier=UNKNOWN_CARRIER),
            event(2, 5, fate=Fate.INVALID),
        ]
    )

    assert states == {1: {"status": 64, "shipping_carrier": "DPD", "shipping_method": ""}, 2: UNTOUCHED}


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ({1: {**UNTOUCHED, "status": 4}}, {}),
        ({1: {**UNTOUCHED, "status": 8}}, {1: "status is 8, not 4"}),
        ({}, {1: "status is 1, not 4"}),
        ({1: {**UNTOUCHED, "status": 4}, 9: {**UNTOUCHED}}, {9: "was never published"}),
    ],
)
def test_every_difference_is_found(shown: Mapping[int, Mapping[str, object]], wrong: dict[int, str]) -> None:
    """A wrong value, a missing order, and an order that nobody asked for."""
    expected = {1: {**UNTOUCHED, "status": 4}, 2: {**UNTOUCHED}}

    assert wrong_orders(expected, shown) == wrong


# -- the report -------------------------------------------------------------------------------------------------------


def test_a_run_without_fault_has_no_problems() -> None:
    """Everything accounted for, everything right, and the JSON says so."""
    report = make_report(result_of(LOAD))

    shown = report.to_json()
    assert report.problems == ()
    assert (shown["ok"], shown["accounted"]["events"], shown["orders"]["right"]) == (True, 1000, 100)
    assert shown["events_per_call"] == 100.0


@pytest.mark.parametrize("reason", ["rejected", "rejected-in-doubt"])
def test_a_rejection_in_doubt_is_a_rejection(reason: str) -> None:
    """After an unknown outcome it has another name, and is counted under that."""
    letters = Counter(
        {
            (reason if why == "rejected" else why, name): times
            for (why, name), times in expected_dead(LOAD.events).items()
        }
    )

    report = make_report(result_of(LOAD, letters=letters))
    assert report.problems == ()
    assert reason in report.dead


def changed_order() -> dict[int, dict[str, object]]:
    """The final states, with one status too old."""
    states = final_states(LOAD.events)
    return states | {SEED_ORDER: states[SEED_ORDER] | {"status": 1}}


def letters_without_one() -> Counter[tuple[str, str]]:
    """The dead letters, one of them missing."""
    letters = expected_dead(LOAD.events)
    return letters - Counter([next(iter(letters))])


GOOD = expected_dead(LOAD.events).total()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"orders": changed_order()}, "order 46140199: status is 1, not 4"),
        ({"counts": {"applied": 999 - GOOD, "dead": GOOD}}, "1000 events were published, and 999 are accounted for"),
        ({"counts": {"applied": 1001 - GOOD, "dead": GOOD}}, "and 1001 are accounted for"),
        ({"published": 999}, "only 999 of 1000 events were confirmed"),
        ({"letters": letters_without_one()}, "is not dead-lettered as"),
        ({"letters": expected_dead(LOAD.events) + Counter([("rejected", "event-000077")])}, "event-000077 is dead"),
        ({"counts": {"applied": 1000 - GOOD, "dead": GOOD + 1}}, f"the worker dead-lettered {GOOD + 1}"),
        ({"reply": {"data": None}}, "not the documented one"),
    ],
)
def test_every_fault_is_told(changes: dict[str, Any], text: str) -> None:
    """The report names what is wrong, and is not ok."""
    report = make_report(result_of(LOAD, **changes))

    assert any(text in problem for problem in report.problems), report.problems
    assert report.to_json()["ok"] is False


def test_what_still_waits_is_accounted_for_but_its_order_is_wrong() -> None:
    """An event in a queue is not lost; it is not applied either."""
    waiting = next(each for each in reversed(LOAD.events) if each.fate is Fate.ACCEPTED)
    without = [each for each in LOAD.events if each != waiting]
    changes = {
        "counts": {"applied": 1000 - GOOD - 1, "dead": GOOD},
        "depths": Depths(retry=1, dead=GOOD),
        "orders": final_states(without),
    }

    report = make_report(result_of(LOAD, **changes))
    assert (report.accounted, report.queued) == (1000, 1)
    assert set(report.wrong) <= {waiting.order_id}


def test_many_wrong_orders_are_counted_and_ten_named() -> None:
    """A report that scrolls away helps nobody."""
    report = make_report(result_of(LOAD, orders={}))

    assert len(report.problems) == 11
    assert report.problems[-1] == f"and {len(report.wrong) - 10} more orders are wrong"
    assert isinstance(report, Report)


# -- the broker -------------------------------------------------------------------------------------------------------


def test_a_named_broker_gets_names_of_our_own() -> None:
    """Nothing of others is touched there, and the password is not shown."""
    url = "amqp://user:secret@broker.example:5672/shop"
    chosen = choose_broker({"ORDER_WORKER_AMQP_URL": url}, print)
    other = choose_broker({"ORDER_WORKER_AMQP_URL": url}, print)

    assert (chosen.urls, chosen.shared, chosen.pids) == ((url,), True, ())
    assert chosen.names != other.names
    assert chosen.names.queue.startswith("order-updates-demo-")
    assert "secret" not in f"{chosen.text} {chosen!r}"


def test_a_wrong_address_is_a_usage_error() -> None:
    """The message names the variable."""
    with pytest.raises(UsageError, match="ORDER_WORKER_AMQP_URL"):
        choose_broker({"ORDER_WORKER_AMQP_URL": "http://broker"}, print)


def test_without_any_broker_all_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No RabbitMQ, none to be installed, no Docker: a person has to do something."""

    def missing() -> None:
        raise UsageError("rabbitmq-server is not installed")

    monkeypatch.setattr(broker_choice, "ensure_rabbitmq", missing)
    monkeypatch.setattr(broker_choice, "_docker", lambda: None)
    with pytest.raises(UsageError, match=r"rabbitmq-server is not installed.*no Docker daemon"):
        choose_broker({}, print)


def test_a_docker_daemon_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's port is asked for, on the loopback interface only, and the container is removed in the end."""
    asked: list[tuple[str, ...]] = []

    def missing() -> None:
        raise UsageError("rabbitmq-server is not installed")

    def ask(_docker: str, *arguments: str) -> str:
        asked.append(arguments)
        return {"run": "c0ffee" * 10, "port": "127.0.0.1:32768\n"}.get(arguments[0], "")

    monkeypatch.setattr(broker_choice, "ensure_rabbitmq", missing)
    monkeypatch.setattr(broker_choice, "_docker", lambda: "docker")
    monkeypatch.setattr(broker_choice, "_ask", ask)

    chosen = choose_broker({}, lambda _: None)
    chosen.stop()
    assert chosen.urls == ("amqp://guest:guest@127.0.0.1:32768/",)
    assert "127.0.0.1::5672" in asked[0]
    assert [arguments[0] for arguments in asked] == ["run", "port", "rm"]
