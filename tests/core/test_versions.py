"""Versions: which value wins, who is covered, and when a redelivery was first seen."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.builders import make_delivery, make_update
from worker.core.entry import Entry
from worker.core.model import AckReason, Update, Version
from worker.core.values import Stamped
from worker.core.versions import FirstSight, KnownVersions, by_version, merge_into, newest, standing, unsent

NAMES = ("status", "shipping_carrier", "shipping_method")
versions = st.builds(Version, st.integers(0, 3), st.integers(-1, 1), st.integers(0, 2), st.sampled_from("ab"))
updates = st.builds(
    lambda names, at, sequence: make_update(
        1, fields=dict.fromkeys(names, f"{at}-{sequence}"), at=at, sequence=sequence
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    st.integers(0, 5),
    st.integers(-1, 2),
)


@given(st.lists(updates, max_size=8))
def test_merging_equals_applying_in_version_order(events: list[Update]) -> None:
    """Per field the value of the greatest version stays, whatever order they came in."""
    applied: dict[str, object] = {}
    for event in by_version(events):
        applied.update(event.fields)

    assert {name: winner.fields[name] for name, winner in newest(events).items()} == applied


@given(st.lists(versions, min_size=2, max_size=6))
def test_versions_are_ordered_by_time_then_sequence_then_first_seen_then_id(several: list[Version]) -> None:
    """No sequence (-1) is older than any."""
    assert sorted(several) == sorted(several, key=lambda v: (v.time_us, v.sequence, v.first_seen_us, v.message_id))


def test_of_equal_versions_the_first_stays() -> None:
    """A second delivery of the same message changes nothing."""
    first, second = make_update(1, at=1, message_id="m"), make_update(1, at=1, message_id="m", tag=2)
    winners = newest([first])
    merge_into(winners, second)

    assert winners == newest([first, second]) == {"status": first}


@given(st.lists(updates, max_size=8), st.booleans())
def test_what_is_told_of_many_is_what_merging_one_by_one_gives(events: list[Update], twice: bool) -> None:
    """The very same updates win, whether the newest has all the fields or not, and whatever came twice."""
    events = [*events, *(replace(event) for event in events)] if twice else events
    winners: dict[str, Update] = {}
    for event in events:
        merge_into(winners, event)

    assert newest(events) == winners


@given(st.lists(updates, min_size=1, max_size=8))
def test_the_sole_winner_is_the_one_that_has_every_field(events: list[Update]) -> None:
    """None where several have a share; with every update that is merged in it may be another one."""
    entry = Entry(1, events[:1], 0.0)
    for event in events[1:]:
        assert entry.sole in {*entry.winners.values(), None}
        entry.merge(event)

    winners = set(entry.winners.values())
    assert entry.sole is (winners.pop() if len(winners) == 1 else None)


def test_only_what_is_newer_than_applied_is_sent() -> None:
    """Older and equal versions are left out, field by field."""
    update = make_update(1, status=4, carrier="DPD", method="Next day", at=5)
    older, newer = make_update(1, at=4).version, make_update(1, at=6).version
    winners = newest([update])

    assert unsent(winners, {}) == update.fields
    known = {"status": (newer, None), "shipping_carrier": (update.version, None), "shipping_method": (older, None)}
    assert unsent(winners, known) == {"shipping_method": "Next day"}


def test_an_update_stands_while_one_of_its_fields_is_news() -> None:
    """Covered by later versions: superseded. By its own: a duplicate."""
    update = make_update(1, status=4, carrier="DPD", at=5)
    versions_of = (update.version, make_update(1, at=4).version, make_update(1, at=6).version)
    own, older, newer = ((version, None) for version in versions_of)

    assert standing(update, {}) is None
    assert standing(update, {"status": newer}) is None
    assert standing(update, {"status": newer, "shipping_carrier": older}) is None
    assert standing(update, {"status": newer, "shipping_carrier": newer}) is AckReason.SUPERSEDED
    assert standing(update, {"status": own, "shipping_carrier": newer}) is AckReason.DUPLICATE
    assert standing(update, {"status": newer, "shipping_carrier": own}) is AckReason.DUPLICATE


@given(st.lists(updates, min_size=1, max_size=6), st.dictionaries(st.sampled_from(NAMES), versions))
def test_whoever_stands_has_something_to_send_and_the_others_have_not(
    events: list[Update], applied: dict[str, Version]
) -> None:
    """The two rules never leave a delivery without a fate."""
    known = {name: (version, None) for name, version in applied.items()}
    covered = [event for event in events if standing(event, known) is not None]

    assert unsent(newest(covered), known) == {}
    assert bool(unsent(newest(events), known)) == (len(covered) < len(events))


stamped = st.builds(Stamped, versions, st.dictionaries(st.sampled_from(NAMES), st.just("x"), min_size=1))


@given(
    st.lists(updates, max_size=6), st.none() | stamped | st.dictionaries(st.sampled_from(NAMES), versions, min_size=1)
)
def test_what_is_known_covers_what_has_nothing_left_to_do(
    events: list[Update], applied: Stamped | dict[str, Version] | None
) -> None:
    """Each of them as ``standing`` has it, whether the values came together or one by one."""
    values = applied if isinstance(applied, Stamped) else {n: (v, None) for n, v in (applied or {}).items()}
    known = KnownVersions(10)
    if values:
        known.learn({1: values})
    reasons = {event: standing(event, values) for event in events}

    assert known.covered(events) == {event: reason for event, reason in reasons.items() if reason is not None}


# -- first sight ----------------------------------------------------------------------------------------------------


def seen_at(moment: int) -> Version:
    """Some version."""
    return Version(moment, -1, moment, "m")


def test_a_redelivery_keeps_its_first_version_once() -> None:
    """Equal messages are told apart by their order; each memory serves one delivery."""
    seen = FirstSight(10)
    delivery, again = make_delivery(message_id="m"), make_delivery(message_id="m", redelivered=True, tag=7)
    seen.remember(delivery, seen_at(100))
    seen.remember(delivery, seen_at(200))

    assert [seen.recall(again) for _ in range(3)] == [seen_at(100), seen_at(200), None]


def test_only_redeliveries_are_recalled() -> None:
    """A new message with the same id and body was not seen before; neither was an unknown redelivery."""
    seen = FirstSight(10)
    seen.remember(make_delivery(message_id="m"), seen_at(100))

    assert seen.recall(make_delivery(message_id="m")) is None
    assert seen.recall(make_delivery(message_id="other", redelivered=True)) is None
    assert seen.recall(make_delivery({"id": 2, "status": 4}, message_id="m", redelivered=True)) is None
    assert seen.recall(make_delivery(message_id="m", redelivered=True)) == seen_at(100)


def test_the_memory_is_bounded() -> None:
    """Beyond the limit the oldest messages are forgotten."""
    seen = FirstSight(2)
    for number in range(4):
        seen.remember(make_delivery(message_id=f"m{number}"), seen_at(number))

    recalled = [seen.recall(make_delivery(message_id=f"m{number}", redelivered=True)) for number in range(4)]
    assert recalled == [None, None, seen_at(2), seen_at(3)]
