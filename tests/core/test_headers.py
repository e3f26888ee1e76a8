"""Our headers and the copies that carry them: what stays, what is left out and shown, and that all can be sent."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pamqp import decode as amqp_decode
from pamqp import encode as amqp_encode

from tests.builders import EVENT, NOW_US, make_delivery, make_update
from tests.core.event_cases import accepted
from worker.core.headers import (
    MAX_OURS,
    Copy,
    History,
    body_only,
    dead_copy,
    message_id_of,
    read_history,
    retry_copy,
)
from worker.core.model import Ack, AckReason, Dead, Delivery, Properties, Reason, Retry, Settlement
from worker.core.original import MAX_KEPT
from worker.core.times import format_time

RETRY: Final = Retry(tier=0, reason=Reason.BUSY, detail="locked")
DEAD: Final = Dead(reason=Reason.REJECTED, detail="no such carrier")
INVALID: Final = Dead(reason=Reason.INVALID_EVENT, detail="id: missing")


def dead(delivery: Delivery, disposition: Dead = INVALID, **settled: Any) -> Copy:
    """The dead copy of a delivery."""
    settlement = Settlement(delivery=delivery, disposition=disposition, **settled)
    return dead_copy(settlement, now_us=NOW_US + 1, worker="order-worker/1")


def retried(delivery: Delivery) -> Copy:
    """The retry copy of a delivery that decodes."""
    settlement = Settlement(delivery=delivery, disposition=RETRY, update=accepted(delivery), batch_id="b-7")
    return retry_copy(settlement, now_us=NOW_US + 1, worker="order-worker/1")


def again(copy: Copy, **changes: Any) -> Delivery:
    """A copy as the broker hands it over: through the wire format, under the id that the publisher gave it."""
    encoded = amqp_encode.field_table(dict(copy.properties.headers))
    _, headers = amqp_decode.field_table(encoded)
    properties = replace(copy.properties, headers=headers, message_id="copy-id")
    delivery = make_delivery(copy.body, exchange="order-updates.work", routing_key="other", redelivered=True)
    return replace(delivery, properties=properties, arrived_us=NOW_US + 9_000_000, **changes)


def test_retry_copy_carries_the_version_and_one_attempt_more() -> None:
    """Everything that the next hand-over needs, readable for people."""
    delivery = make_delivery({**EVENT, "occurred_at": format_time(NOW_US - 5), "sequence": 17}, message_id="m-9")
    headers = retried(delivery).properties.headers

    assert headers == {
        "ow-attempt": 2,
        "ow-reason": "busy",
        "ow-detail": "locked",
        "ow-first-seen": "2026-11-21T10:00:00.000000Z",
        "ow-failed-at": "2026-11-21T10:00:00.000001Z",
        "ow-occurred-at": "2026-11-21T09:59:59.999995Z",
        "ow-sequence": 17,
        "ow-message-id": "m-9",
        "ow-exchange": "order-updates",
        "ow-routing-key": "46140199",
        "ow-order-id": 46140199,
        "ow-batch-id": "b-7",
        "ow-worker": "order-worker/1",
    }


@pytest.mark.parametrize("message_id", ["m-1", "", None, "ü", "\udcff"])
@pytest.mark.parametrize("event", [EVENT, {**EVENT, "occurred_at": "2026-11-21T09:00:00.000001Z", "sequence": -7}])
@pytest.mark.parametrize("redelivered", [True, False])
def test_copies_keep_the_version_exactly(event: dict[str, Any], message_id: str | None, *, redelivered: bool) -> None:
    """Whatever it was made of, also on a copy of a copy: an equal version is a duplicate, a changed one is not."""
    delivery = make_delivery(event, message_id=message_id, redelivered=redelivered)
    update = accepted(delivery)
    second = again(retried(delivery))
    third = again(retried(second))

    assert accepted(second).version == accepted(third).version == update.version
    assert (update.attempt, accepted(second).attempt, accepted(third).attempt) == (1, 2, 3)


def test_dead_copy_counts_the_attempts_made() -> None:
    """Nothing is added: the attempt that failed was the last one."""
    update = make_update(attempt=5)

    assert dead(update.delivery, DEAD, update=update).properties.headers["ow-attempt"] == 5


def test_a_dead_letter_that_another_tool_moved_back_begins_anew() -> None:
    """It was tried three times; with its old version it is at attempt 1 again, and a retry counts on from there."""
    third = again(retried(again(retried(make_delivery()))))
    letter = dead(third, DEAD, update=accepted(third))
    moved = again(letter)
    once_more = again(retried(moved))

    assert read_history(letter.properties.headers).attempt == accepted(third).attempt == 3
    assert [accepted(each).attempt for each in (moved, once_more, again(retried(once_more)))] == [1, 2, 3]
    assert accepted(moved).version == accepted(once_more).version == accepted(third).version


def test_a_moved_letter_that_dies_again_says_how_often_it_was_tried_since() -> None:
    """Also one that cannot be decoded, and one that has been replayed before."""
    moved = again(dead(make_delivery(headers={"ow-attempt": 4, "ow-replay-id": "r"}), DEAD))
    invalid = again(dead(make_delivery(b"{", headers={"ow-attempt": 4}), DEAD))

    assert dead(moved, DEAD, update=accepted(moved)).properties.headers["ow-attempt"] == 1
    assert dead(invalid).properties.headers["ow-attempt"] == 1


@pytest.mark.parametrize(
    ("deaths", "attempt"),
    [
        ([{"reason": "expired", "queue": "retry"}], 4),
        ([{"reason": "delivery_limit", "queue": "work"}], 1),
        ([{"reason": "delivery_limit", "queue": "work"}, {"reason": "expired", "queue": "retry"}], 1),
        ([{"queue": "retry"}, "odd"], 4),
        ("odd", 4),
    ],
)
def test_what_the_broker_dead_lettered_and_somebody_moved_back_begins_anew_too(deaths: object, attempt: int) -> None:
    """Of a retry copy the broker only says that it expired in its tier: that one goes on counting."""
    assert accepted(make_delivery(headers={"ow-attempt": 4, "x-death": deaths})).attempt == attempt


def test_only_dead_copies_are_marked() -> None:
    """The mark ends where the message is retried; anything else than our own is none."""
    moved = again(dead(make_delivery(), DEAD))

    assert "ow-dead" not in retried(moved).properties.headers
    assert accepted(make_delivery(headers={"ow-attempt": 4, "ow-dead": "yes"})).attempt == 4


def test_first_origin_stays_on_copies_of_copies() -> None:
    """Message id, exchange, routing key, first sight and replay are those of the producer's message."""
    first = make_delivery(headers={"ow-replay-id": "r-1"}, routing_key="46140199", message_id="m-9")
    history = read_history(dead(again(retried(first)), DEAD).properties.headers)

    assert (history.message_id, history.exchange, history.routing_key) == ("m-9", "order-updates", "46140199")
    assert (history.first_seen_us, history.replay_id) == (NOW_US, "r-1")


def test_an_event_that_could_not_be_decoded_keeps_its_first_sight() -> None:
    """There is no version yet; once repaired and replayed it is as old as it was."""
    copy = dead(make_delivery(b"{", headers={"ow-replay-id": "r-1"}))
    headers = copy.properties.headers

    assert copy.body == b"{"
    assert (headers["ow-attempt"], headers["ow-reason"], headers["ow-detail"]) == (1, "invalid-event", "id: missing")
    assert headers["ow-first-seen"] == format_time(NOW_US)
    assert headers.keys().isdisjoint({"ow-occurred-at", "ow-sequence", "ow-order-id", "ow-batch-id"})


def test_properties_stay_but_for_what_would_lose_or_reroute_the_copy() -> None:
    """The rest goes to ow-original; the copy is persistent and gets its id from the publisher."""
    stamp = datetime(2026, 11, 21, tzinfo=UTC)
    headers = {"tenant": "a", "CC": ["elsewhere"], "BCC": ["b"], "x-death": [{"count": 1}], "x-delivery-count": 2}
    delivery = make_delivery(
        headers=headers, expiration="60000", user_id="guest", priority=3, correlation_id="c", reply_to="r",
        timestamp=stamp, message_type="t", app_id="a", content_encoding="utf-8", delivery_mode=1,
    )  # fmt: skip
    properties = retried(delivery).properties

    assert replace(properties, headers={}).__repr__() == repr(
        Properties(
            content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=3, correlation_id="c",
            reply_to="r", timestamp=stamp, message_type="t", app_id="a",
        )
    )  # fmt: skip
    assert {name for name in properties.headers if not name.startswith("ow-")} == {"tenant"}
    assert json.loads(properties.headers["ow-original"]) == {
        "expiration": "60000",
        "user_id": "guest",
        "headers.CC": ["elsewhere"],
        "headers.BCC": ["b"],
        "headers.x-death": [{"count": 1}],
        "headers.x-delivery-count": 2,
    }


def test_what_was_left_out_first_stays_in_ow_original() -> None:
    """The broker adds x- headers to a copy that comes out of a retry tier; the first ones are the producer's."""
    copy = retried(make_delivery(expiration="1", headers={"x-death": "first"}))
    delivery = again(copy)
    tier = {**delivery.properties.headers, "x-death": "tier", "x-other": 1}
    history = read_history(dead(replace(delivery, properties=Properties(headers=tier))).properties.headers)

    assert history.original == {"expiration": "1", "headers.x-death": "first", "headers.x-other": 1}


def test_body_only_keeps_the_body_our_short_headers_and_a_note() -> None:
    """The last resort: what remains is enough to find the message and to read it again."""
    update = make_update(message_id="m-9")
    copy = dead(
        replace(update.delivery, properties=replace(update.delivery.properties, headers={"a": 1})), update=update
    )
    bare = body_only(copy)
    headers = bare.properties.headers

    assert bare.body == copy.body
    assert repr(replace(bare.properties, headers={})) == repr(
        Properties(content_type="application/json", delivery_mode=2)
    )
    assert headers["ow-detail"] == "id: missing (copied without its properties, they could not be sent)"
    assert json.loads(headers["ow-dropped"]) == ["(all properties)", "a"]
    assert read_history(headers).message_id == "m-9"
    assert read_history(headers).occurred_us == update.version.time_us


def test_details_are_cut_between_characters() -> None:
    """500 bytes of UTF-8, no torn character."""
    detail = dead(make_delivery(), Dead(reason=Reason.REJECTED, detail="a" + "ü" * 400)).properties.headers["ow-detail"]

    assert detail == "a" + "ü" * 249


@pytest.mark.parametrize("value", [None, 1.5, True, [], {}, b"\xff", "x" * 600, 2**70, -(2**70), "\udcff", ""])
def test_garbage_in_our_headers_is_ignored(value: object) -> None:
    """Anybody can write them; what we would not have written counts as absent."""
    names = "attempt first-seen occurred-at sequence order-id failed-at original dropped"
    history = read_history({f"ow-{name}": value for name in names.split()})

    assert history == History()


@pytest.mark.parametrize("attempt", [0, -1, 1_000_001, "3"])
def test_attempts_out_of_bounds_count_as_the_first(attempt: object) -> None:
    """An attempt counter from elsewhere must not dead-letter or overflow."""
    assert read_history({"ow-attempt": attempt}).attempt == 1


def test_only_retry_and_dead_have_copies() -> None:
    """Asking for another one is a mistake in the program."""
    settlement = Settlement(delivery=make_delivery(), disposition=Ack(AckReason.APPLIED))

    for make in (retry_copy, dead_copy):
        with pytest.raises(TypeError):
            make(settlement, now_us=NOW_US, worker="w")


TEXT: Final = st.text(st.characters(codec=None, categories=["Lu", "Ll", "Cs", "Cc", "So"]))
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | st.datetimes() | st.decimals()
    | st.datetimes(timezones=st.just(UTC)) | st.binary().map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
NAMES: Final = TEXT | st.sampled_from(
    ["CC", "x-death", "tenant", "ow-original", "ow-dropped", "ow-exchange", "ow-attempt"]
)
LONG: Final = st.sampled_from(["x" * 50_000, "ü" * 30_000, '"' * 5_000, "y" * 300, "{}", '["a"]'])


@given(
    headers=st.dictionaries(NAMES, VALUES | LONG, max_size=8),
    texts=st.fixed_dictionaries(
        {
            name: st.none() | TEXT | LONG
            for name in ("content_type", "message_id", "exchange", "routing_key", "reply_to")
        }
    ),
    detail=TEXT | LONG,
    priority=st.none() | st.integers(),
    timestamp=st.none() | st.datetimes() | st.integers(0, 2**64 - 1),
)
def test_every_copy_can_be_sent_and_is_bounded(
    headers: dict[str, Any], texts: dict[str, Any], detail: str, **rest: Any
) -> None:
    """Whatever came: the client's own encoder takes it, ours stay within 8 KiB, theirs within 100 KiB."""
    delivery = make_delivery(headers=headers, **{**texts, "exchange": texts["exchange"] or ""}, **rest)
    settlement = Settlement(
        delivery=delivery,
        disposition=Retry(tier=0, reason=Reason.BUSY, detail=detail),
        update=replace(make_update(), delivery=delivery, attempt=10**9),
        batch_id=detail,
    )
    copy = retry_copy(settlement, now_us=NOW_US, worker=detail)

    for made in (copy, body_only(copy)):
        sent = dict(made.properties.headers)
        ours = {name: value for name, value in sent.items() if name.startswith("ow-") and name not in headers}
        assert len(amqp_encode.field_table(ours)) <= MAX_OURS
        assert len(amqp_encode.field_table(sent)) <= MAX_OURS + MAX_KEPT
        at = made.properties.timestamp
        assert at is None or (isinstance(at, datetime) and amqp_encode.timestamp(at))
        for text in (made.properties.content_type, made.properties.reply_to, made.properties.correlation_id):
            assert text is None or amqp_encode.short_string(text)
    second = again(copy)
    assert message_id_of(second.properties, read_history(second.properties.headers)) == "m-1-1"
