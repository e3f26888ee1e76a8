"""What the index says of letters that were found in the queue."""

from datetime import UTC, datetime
from typing import Any

from tests.builders import NOW_US, make_delivery, make_update
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.decode import EventSchema
from worker.core.headers import dead_copy
from worker.core.history import IndexedLetter
from worker.core.letterindex import decoded, indexed
from worker.core.model import Dead, Delivery, Properties, Reason, Settlement, Update, Version
from worker.core.times import format_time

SCHEMA = EventSchema({}, [])
HOUR = 3_600_000_000


def ours() -> tuple[DeadLetter, Update]:
    """A dead letter as the worker makes it, from an update."""
    update = make_update(7, status=4, at=NOW_US / 1_000_000 - 60, sequence=3, message_id="m-7", attempt=2)
    settlement = Settlement(
        delivery=update.delivery, update=update, disposition=Dead(reason=Reason.REJECTED, detail="no"), batch_id="b-1"
    )
    copy = dead_copy(settlement, now_us=NOW_US, worker="1.0")
    properties = Properties(headers=copy.properties.headers, message_id="copy-7")
    return read_dead_letter(Delivery(generation=0, tag=1, body=copy.body, properties=properties)), update


def the_brokers(body: Any, **headers: Any) -> DeadLetter:
    """One that the broker moved at ``NOW_US``."""
    death = {
        "reason": "maxlen", "queue": "work", "exchange": "order-updates", "routing-keys": ["7"],
        "time": datetime(2026, 11, 21, 10, tzinfo=UTC),
    }  # fmt: skip
    return read_dead_letter(make_delivery(body, message_id="m-9", headers={"x-death": [death], **headers}))


def row(letter: DeadLetter, now_us: int = NOW_US + HOUR) -> IndexedLetter:
    """As sync puts it in."""
    return indexed(letter, queue="dead", update=decoded(letter, SCHEMA, now_us=now_us), now_us=now_us)


def test_a_letter_of_the_worker_is_indexed_with_all_it_says() -> None:
    """Order, fields and version as they were decoded then."""
    letter, update = ours()

    assert row(letter) == IndexedLetter(
        copy_id="copy-7",
        queue="dead",
        reason="rejected",
        detail="no",
        failed_us=NOW_US,
        order_id=7,
        message_id="m-7",
        fields={"status": 4},
        version=update.version,
        attempt=2,
        exchange="order-updates",
        routing_key="7",
        batch_id="b-1",
        worker="1.0",
    )


def test_a_letter_of_the_broker_can_be_judged() -> None:
    """Its event is read, its time is that of its death."""
    found = row(the_brokers({"id": 8, "status": 4, "occurred_at": format_time(NOW_US - HOUR)}))

    assert (found.reason, found.failed_us, found.copy_id) == ("broker:maxlen", NOW_US, "m-9")
    assert (found.order_id, found.fields, found.exchange) == (8, {"status": 4}, "order-updates")
    assert found.version == Version(NOW_US - HOUR, -1, NOW_US + HOUR, "m-9")


def test_an_event_without_a_stamp_is_not_newer_than_its_failure() -> None:
    """Else it would win against everything that happened since."""
    found = row(the_brokers({"id": 8, "status": 4}))

    assert found.version is not None
    assert found.version.time_us == NOW_US


def test_a_letter_that_cannot_be_read_has_what_its_headers_say() -> None:
    """The order by its routing key; no fields, no version."""
    found = row(the_brokers(b"no json", **{"x-delivery-count": 2}))

    assert (found.order_id, found.fields, found.version) == (7, {}, None)


def test_a_letter_without_a_time_failed_when_it_was_found() -> None:
    """Nobody knows better."""
    letter = read_dead_letter(make_delivery(message_id=None))
    found = row(letter)

    assert (found.failed_us, found.reason) == (NOW_US + HOUR, "unknown")
    assert found.copy_id.startswith("sha256:")
