"""The copy of a replay: the event as it was, its version, its attempts anew, and what happened before."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pamqp import decode as amqp_decode
from pamqp import encode as amqp_encode

from tests.builders import EVENT, NOW_US, make_delivery, make_update
from tests.core.event_cases import accepted
from tests.core.test_headers import LONG, NAMES, TEXT, VALUES
from worker.core.bookkeeping import History
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.edits import NO_EDITS, Edits
from worker.core.failures import Failure
from worker.core.headers import MAX_OURS, Copy, body_only, dead_copy, read_history, retry_copy
from worker.core.model import Ack, AckReason, Dead, Delivery, Properties, Reason, Retry, Settlement, Update
from worker.core.original import MAX_KEPT
from worker.core.replaycopy import Ticket, knows_where, replay_copy
from worker.core.times import format_time

TICKET: Final = Ticket(replay_id="r-20261122-031500-x7k2", place=17, seen_us=NOW_US + 10_000_000)
DEAD: Final = Dead(reason=Reason.REJECTED, detail="no such carrier")


def handed_over(copy: Copy) -> Delivery:
    """A copy as the broker hands it over: through the wire format, under the id that the publisher gave it."""
    _, headers = amqp_decode.field_table(amqp_encode.field_table(dict(copy.properties.headers)))
    properties = structs.replace(copy.properties, headers=headers, message_id="copy-id")
    delivery = make_delivery(copy.body, exchange="order-updates.work", routing_key="other")
    return structs.replace(delivery, properties=properties, arrived_us=NOW_US + 20_000_000)


def dead_letter(delivery: Delivery, *, attempt: int = 1, update: Update | None = None) -> DeadLetter:
    """The dead letter that the worker makes of a delivery."""
    known = update if update is not None else structs.replace(accepted(delivery), attempt=attempt)
    settlement = Settlement(delivery=delivery, disposition=DEAD, update=known, batch_id="b-7")
    return read_dead_letter(handed_over(dead_copy(settlement, now_us=NOW_US + 1, worker="order-worker/1")))


def died_by_the_broker(properties: Properties, *, body: bytes = b'{"id":7,"status":4}', **death: Any) -> DeadLetter:
    """A message that the broker dead-lettered by itself."""
    entry = {"reason": "delivery_limit", "queue": "work", "exchange": "order-updates", "routing-keys": ["7"], **death}
    headers = {**properties.headers, "x-death": [entry]}
    return read_dead_letter(
        structs.replace(make_delivery(body), properties=structs.replace(properties, headers=headers))
    )


def test_a_replay_starts_anew_and_keeps_the_version_and_the_story() -> None:
    """All our headers of a usual copy."""
    letter = dead_letter(make_delivery({**EVENT, "sequence": 3}, message_id="m-9"), attempt=4)
    copy = replay_copy(letter, TICKET)

    assert copy.body == letter.delivery.body
    assert copy.properties.message_id is None
    headers = dict(copy.properties.headers)
    assert json.loads(headers.pop("ow-failures")) == [
        {
            "reason": "rejected", "detail": "no such carrier", "failed_at": format_time(NOW_US + 1), "attempt": 4,
            "replay_id": "",
        }
    ]  # fmt: skip
    assert headers == {
        "ow-first-seen": format_time(NOW_US),
        "ow-occurred-at": format_time(NOW_US),
        "ow-sequence": 3,
        "ow-order-id": 46140199,
        "ow-message-id": "m-9",
        "ow-exchange": "order-updates",
        "ow-routing-key": "46140199",
        "ow-replay-id": "r-20261122-031500-x7k2",
        "ow-replay-place": 17,
    }


def test_the_worker_reads_the_same_event_with_the_same_version() -> None:
    """That is what makes a replay, and a second copy of it, harmless."""
    first = accepted(make_delivery({**EVENT, "sequence": 3}))
    copy = replay_copy(dead_letter(first.delivery), TICKET)
    again = accepted(handed_over(copy))

    assert (again.version, again.fields, again.attempt) == (first.version, first.fields, 1)


def test_originals_come_back_except_user_id_and_x_headers() -> None:
    """Expiration and the keys of CC and BCC are the producer's."""
    delivery = make_delivery(
        headers={"CC": ["elsewhere"], "BCC": ["b"], "x-source": "line 4", "tenant": "t"},
        expiration="60000", user_id="guest", priority=3, app_id="press", correlation_id="c",
    )  # fmt: skip
    copy = replay_copy(dead_letter(delivery), TICKET)
    given = copy.properties

    assert (given.expiration, given.user_id, given.delivery_mode) == ("60000", None, 2)
    assert (given.priority, given.app_id, given.correlation_id) == (3, "press", "c")
    assert {name: value for name, value in given.headers.items() if not name.startswith("ow-")} == {
        "CC": ["elsewhere"], "BCC": ["b"], "tenant": "t",
    }  # fmt: skip
    assert json.loads(given.headers["ow-original"]) == {"user_id": "guest", "headers.x-source": "line 4"}


@pytest.mark.parametrize(
    "original",
    [
        {"expiration": "soon"},
        {"expiration": str(2**32)},
        {"expiration": "-1"},
        {"headers.CC": {"base64": "eA=="}},
        {"headers.CC": [{"base64": "eA=="}]},
        {"headers.CC": ["x" * 300]},
        {"headers.tenant": {"base64": "eA=="}},
        {"content_type": "text\\udcff"},
        {"headers.weight": 1.1},
    ],
)
def test_what_could_not_be_sent_stays_told_only(original: dict[str, Any]) -> None:
    """What is shown of it is not what it was; and a bad expiration would cost the channel."""
    letter = dead_letter(make_delivery())
    headers = {**letter.delivery.properties.headers, "ow-original": json.dumps(original)}
    delivery = structs.replace(letter.delivery, properties=structs.replace(letter.delivery.properties, headers=headers))
    copy = replay_copy(read_dead_letter(delivery), TICKET)

    assert json.loads(copy.properties.headers["ow-original"]) == original
    assert copy.properties.expiration is None


def test_the_brokers_own_dead_letter_is_as_old_as_its_first_death() -> None:
    """It has no version of ours: a copy must not be newer than what came after it."""
    died = datetime(2026, 11, 21, 9, tzinfo=UTC)
    letter = died_by_the_broker(Properties(message_id="m-7", content_type="application/json"), time=died)
    copy = replay_copy(letter, TICKET)
    update = accepted(handed_over(copy))

    assert update.version.time_us == update.version.first_seen_us == NOW_US - 3_600_000_000
    assert update.version.message_id == "m-7"
    headers = copy.properties.headers
    assert (headers["ow-exchange"], headers["ow-routing-key"]) == ("order-updates", "7")
    assert json.loads(headers["ow-failures"])[0]["reason"] == "broker:delivery_limit"
    assert knows_where(letter)
    assert "headers.x-death" in json.loads(headers["ow-original"])


def test_what_nobody_dated_is_as_old_as_the_replay() -> None:
    """So both copies of a replay that was killed in between have one version."""
    letter = read_dead_letter(make_delivery({"id": 7, "status": 4}))
    copies = [handed_over(replay_copy(letter, TICKET)) for _ in range(2)]
    one, two = (
        accepted(structs.replace(copy, arrived_us=NOW_US + late))
        for copy, late in zip(copies, (0, 10**12), strict=True)
    )

    assert one.version == two.version
    assert one.version.time_us == TICKET.seen_us
    assert not knows_where(letter)


def test_earlier_failures_are_kept_through_replays_retries_and_deaths() -> None:
    """Each death adds one; in between nothing of it is lost."""
    letter = dead_letter(make_delivery())
    for number in range(3):
        delivery = handed_over(replay_copy(letter, replace(TICKET, replay_id=f"r-{number}", place=number)))
        update = accepted(delivery)
        retry = Settlement(
            delivery=delivery, disposition=Retry(tier=0, reason=Reason.BUSY, detail="locked"), update=update
        )
        retried = handed_over(retry_copy(retry, now_us=NOW_US, worker="w"))
        assert read_history(retried.properties.headers).replay_place == number
        letter = dead_letter(retried, attempt=2)
        assert (letter.history.replay_id, letter.history.replay_place) == (f"r-{number}", number)

    reasons = [(failure.reason, failure.attempt, failure.replay_id) for failure in letter.history.failures]
    assert reasons == [("rejected", 1, ""), ("rejected", 2, "r-0"), ("rejected", 2, "r-1")]


def test_setting_the_time_takes_the_old_one_off() -> None:
    """Our headers outrank the body."""
    letter = dead_letter(make_delivery({**EVENT, "sequence": 3}))
    later = Edits({"occurred_at": "2026-11-21T11:00:00Z"})
    body = b'{"id":46140199,"status":4,"sequence":9,"occurred_at":"2026-11-21T09:00:00Z"}'

    assert accepted(handed_over(replay_copy(letter, TICKET, body=body, edits=later))).version.when == (
        NOW_US - 3_600_000_000,
        3,
    )
    sequence = replay_copy(letter, TICKET, body=body, edits=Edits({"sequence": 9}))
    assert accepted(handed_over(sequence)).version.when == (NOW_US, 9)
    assert accepted(handed_over(replay_copy(letter, TICKET, body=body))).version.when == (NOW_US, 3)


def test_only_an_allowed_replay_says_so() -> None:
    """``--allow-terminal`` is a header for the worker."""
    letter = dead_letter(make_delivery(headers={"ow-allow-terminal": True}))

    assert "ow-allow-terminal" not in replay_copy(letter, TICKET).properties.headers
    allowed = replay_copy(letter, replace(TICKET, allow_terminal=True))
    assert allowed.properties.headers["ow-allow-terminal"] is True


@pytest.mark.parametrize(("place", "expected"), [(17, 17), (True, None), (-1, None), ("17", None), (2**70, None)])
def test_the_history_a_copy_has_its_place_in_the_replay(place: object, expected: int | None) -> None:
    """That is how the replay finds what became of each message; nonsense is no place."""
    update = make_update(headers={"ow-replay-id": "r-1", "ow-replay-place": place})
    settlement = Settlement(delivery=update.delivery, disposition=Ack(AckReason.APPLIED), update=update)
    [row] = History([settlement], wall_us=1, worker="w")

    assert (row.replay_id, row.replay_place) == ("r-1", expected)


def test_a_place_without_a_replay_is_none() -> None:
    """It would be counted for no replay."""
    update = make_update(headers={"ow-replay-place": 3})
    settlement = Settlement(delivery=update.delivery, disposition=Ack(AckReason.APPLIED), update=update)

    assert History([settlement], wall_us=1, worker="w")[0].replay_place is None


DEATH = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("reason", "queue", "exchange", "routing-keys", "time", "original-expiration"), VALUES | LONG
    ),
)


@given(
    headers=st.dictionaries(NAMES | st.sampled_from(["ow-failures", "ow-replay-id", "BCC"]), VALUES | LONG, max_size=8),
    deaths=st.none() | st.lists(DEATH, max_size=3) | VALUES,
    failures=st.lists(st.builds(Failure, reason=TEXT, detail=TEXT | LONG), max_size=6),
    texts=st.fixed_dictionaries(
        {name: st.none() | TEXT | LONG for name in ("content_type", "message_id", "expiration", "user_id", "exchange")}
    ),
)
def test_every_copy_of_anything_can_be_sent_and_is_bounded(
    headers: dict[str, Any], deaths: object, failures: list[Failure], texts: dict[str, Any]
) -> None:
    """Whatever is in the queue: the client's own encoder takes its copy, ours stay within 8 KiB."""
    given = headers if deaths is None else {**headers, "x-death": deaths}
    letter = read_dead_letter(make_delivery(headers=given, **{**texts, "exchange": texts["exchange"] or ""}))
    letter = replace(letter, history=replace(letter.history, failures=tuple(failures)))
    copy = replay_copy(letter, replace(TICKET, allow_terminal=True), edits=NO_EDITS)

    for made in (copy, body_only(copy)):
        sent = dict(made.properties.headers)
        ours = {name: value for name, value in sent.items() if name.startswith("ow-") and name not in headers}
        assert len(amqp_encode.field_table(ours)) <= MAX_OURS
        assert len(amqp_encode.field_table(sent)) <= MAX_OURS + MAX_KEPT + 4096
        assert sent["ow-replay-place"] == 17
        assert made.properties.expiration is None or made.properties.expiration.isdigit()
        assert made.properties.user_id is None
