"""What the index learns of a dead letter: the same that its copy says, and what only the body says."""

from typing import Any

from tests.builders import NOW_US, make_delivery, make_update
from worker.core.headers import body_only, dead_copy
from worker.core.history import IndexedLetter, LetterState
from worker.core.letterindex import placed
from worker.core.model import Dead, Reason, Settlement, Update

REFUSED = Dead(reason=Reason.REJECTED, detail="no such status")


def indexed(settlement: Settlement, *, reduced: bool = False) -> IndexedLetter:
    """Its row, after its copy was made as the settler makes it."""
    copy = dead_copy(settlement, now_us=NOW_US, worker="1.2")
    stored = body_only(copy) if reduced else copy
    return placed(settlement, stored, "c-1", queue="dead", now_us=NOW_US)


def refused(**made: Any) -> tuple[Update, Settlement]:
    update = make_update(17, status=8, at=5.0, message_id="m-1", **made)
    return update, Settlement(delivery=update.delivery, disposition=REFUSED, update=update, batch_id="b-1")


def test_an_update_is_indexed_with_all_that_is_known_of_it() -> None:
    """Why, when, which event, which version of which fields, which attempt, where it came from."""
    headers = {"ow-replay-id": "r-1"}
    update, settlement = refused(attempt=3, headers=headers)
    update.event_id = "e-1"

    assert indexed(settlement) == IndexedLetter(
        copy_id="c-1",
        queue="dead",
        reason="rejected",
        detail="no such status",
        failed_us=NOW_US,
        order_id=17,
        message_id="m-1",
        event_id="e-1",
        fields={"status": 8},
        version=update.version,
        attempt=3,
        exchange="order-updates",
        routing_key="17",
        batch_id="b-1",
        replay_id="r-1",
        worker="1.2",
        state=LetterState.DEAD,
    )


def test_a_body_that_cannot_be_read_is_indexed_by_its_routing_key() -> None:
    """Producers publish with the order id as key: that finds it, and nothing else is made up."""
    dead = Dead(reason=Reason.INVALID_EVENT, detail="body: not JSON")
    letter = indexed(Settlement(delivery=make_delivery(b"poison", routing_key="46140199"), disposition=dead))

    assert (letter.order_id, letter.reason, letter.message_id) == (46140199, "invalid-event", "m-1")
    assert (letter.fields, letter.version, letter.event_id, letter.batch_id) == ({}, None, None, "")


def test_a_key_that_is_no_order_is_no_order() -> None:
    """The letter is in the index all the same."""
    dead = Dead(reason=Reason.INVALID_EVENT, detail="body: not JSON")
    letter = indexed(Settlement(delivery=make_delivery(b"poison", routing_key="all"), disposition=dead))

    assert (letter.order_id, letter.routing_key) == (None, "all")


def test_a_copy_that_lost_its_properties_is_indexed_with_the_note() -> None:
    """The index says what the copy in the queue says."""
    _, settlement = refused()
    letter = indexed(settlement, reduced=True)

    assert (letter.order_id, letter.message_id, letter.reason) == (17, "m-1", "rejected")
    assert letter.detail.startswith("no such status (copied without")


def test_a_copy_of_a_copy_is_the_producers_message() -> None:
    """After retries, message id, exchange and key are still those of the first sight."""
    headers = {"ow-message-id": "first", "ow-exchange": "orders", "ow-routing-key": "17.x"}
    update = make_update(17, status=8, headers=headers, message_id="first")
    letter = indexed(Settlement(delivery=update.delivery, disposition=REFUSED, update=update))

    assert (letter.message_id, letter.exchange, letter.routing_key) == ("first", "orders", "17.x")
