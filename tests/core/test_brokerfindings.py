"""The doctor's judgement of the broker, over AMQP and over its management API, row by row."""

from typing import Any

import pytest

from worker.core.brokerfindings import (
    Difference,
    Found,
    Right,
    judge_configure,
    judge_counts,
    judge_leftovers,
    judge_object,
    judge_rights,
    judge_spread,
    judge_version,
)
from worker.core.findings import Level
from worker.core.managementfindings import (
    judge_binding,
    judge_consumers,
    judge_queue,
    judge_timeout,
    judge_written,
    untold,
)

WANTED = {"x-queue-type": "quorum", "x-delivery-limit": 100}


def queue(name: str = "q", **more: Any) -> Found:
    """A queue that is as wanted, unless told otherwise."""
    return Found(kind="queue", name=name, **more)


def policy(**keys: Any) -> dict[str, Any]:
    """A queue with the wanted arguments under a policy."""
    definition = {key.replace("_", "-"): value for key, value in keys.items()}
    return {"arguments": WANTED, "policy": "pol", "effective_policy_definition": definition}


@pytest.mark.parametrize(
    ("product", "version", "level"),
    [
        ("RabbitMQ", "3.10.8", Level.OK), ("RabbitMQ", "4.3.6", Level.OK), ("RabbitMQ", "3.9.29", Level.BROKEN),
        ("RabbitMQ", "4.4.0", Level.NOTE), ("RabbitMQ", "3.13.0-rc.1", Level.OK), ("RabbitMQ", "", Level.WARNING),
        ("LavinMQ", "2.4.0", Level.WARNING), ("", "", Level.WARNING),
    ],
)  # fmt: skip
def test_the_version_is_held_against_what_is_tested(product: str, version: str, level: Level) -> None:
    """3.10 to 4.3, compared as numbers."""
    assert judge_version(product, version).level is level


def test_every_difference_of_a_queue_is_told() -> None:
    """Not only the first one."""
    differences = tuple(Difference(argument=name, wanted="a", found="b") for name in ("x-delivery-limit", "x-overflow"))

    found = list(judge_object(queue(differences=differences)))

    assert [each.level for each in found] == [Level.BROKEN, Level.BROKEN]
    assert [each.seen.split()[0] for each in found] == ["x-delivery-limit", "x-overflow"]


@pytest.mark.parametrize(
    ("found", "level", "word"),
    [
        (queue(), Level.OK, "equal"),
        (queue(exists=False), Level.BROKEN, "missing"),
        (queue(verified=False), Level.NOTE, "could not be compared"),
        (queue(verified=False, hidden=True), Level.NOTE, "without any permission"),
        (queue(problem="odd"), Level.BROKEN, "odd"),
    ],
)
def test_an_object_has_one_finding_where_nothing_differs(found: Found, level: Level, word: str) -> None:
    """Missing, not comparable, refused for another reason, or fine."""
    [judged] = judge_object(found)

    assert judged.level is level
    assert word in judged.seen


@pytest.mark.parametrize(
    ("granted", "needed", "level"),
    [
        (True, {"q"}, Level.OK), (False, {"q"}, Level.BROKEN), (False, set(), Level.NOTE), (None, {"q"}, Level.NOTE),
    ],
)  # fmt: skip
def test_only_rights_that_run_needs_are_broken(granted: bool | None, needed: set[str], level: Level) -> None:
    """The others serve people and producers."""
    right = Right(verb="read", kind="queue", name="q", granted=granted)

    [judged] = judge_rights([right], needed=needed)

    assert judged.level is level


@pytest.mark.parametrize(
    ("found", "declaring", "level"),
    [
        ([], True, Level.NOTE), ([queue()], True, Level.OK), ([queue(verified=False)], True, Level.BROKEN),
        ([queue(verified=False)], False, Level.OK), ([queue(exists=False)], True, Level.NOTE),
    ],
)  # fmt: skip
def test_declaring_is_a_must_only_where_the_worker_declares(found: list[Found], declaring: bool, level: Level) -> None:
    """TOPOLOGY=passive works without."""
    assert judge_configure(found, declaring=declaring).level is level


@pytest.mark.parametrize(
    ("consumers", "dead", "levels"),
    [(1, 0, [Level.OK]), (0, 0, [Level.NOTE]), (2, 7, [Level.OK, Level.NOTE])],
)
def test_idle_queues_and_dead_letters_are_notes(consumers: int, dead: int, levels: list[Level]) -> None:
    """Neither breaks a promise."""
    found = [queue("w", messages=3, consumers=consumers), queue("d", messages=dead, consumers=0)]

    assert [each.level for each in judge_counts(found, work_queues=["w"], dead_queue="d")] == levels


@pytest.mark.parametrize(
    ("told", "levels"),
    [
        (policy(), [Level.OK]),
        (policy() | {"arguments": WANTED | {"x-expires": 1}}, [Level.BROKEN]),
        (policy() | {"arguments": {"x-queue-type": "classic"}}, [Level.BROKEN, Level.BROKEN]),
        ({"arguments": WANTED}, [Level.NOTE]),
        ({}, [Level.BROKEN, Level.BROKEN, Level.NOTE]),
        (policy(delivery_limit=100), [Level.OK]),
        (policy(delivery_limit=5), [Level.BROKEN]),
        (policy(message_ttl=5, expires=6), [Level.BROKEN, Level.BROKEN]),
        (policy(max_length=5), [Level.WARNING]),
        (policy(ha_mode="all"), [Level.OK]),
    ],
)
def test_arguments_and_policies_are_held_against_what_is_wanted(told: dict[str, Any], levels: list[Level]) -> None:
    """Whatever takes messages away by itself is broken."""
    assert [each.level for each in judge_queue("q", WANTED, told, dead_queue="d")] == levels


@pytest.mark.parametrize(("overflow", "level"), [("drop-head", Level.BROKEN), ("reject-publish", Level.WARNING)])
def test_a_length_limit_on_dead_letters_drops_them(overflow: str, level: Level) -> None:
    """Without reject-publish the oldest go."""
    [found] = judge_queue("d", WANTED, policy(max_length=5, overflow=overflow), dead_queue="d")

    assert found.level is level


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({}, Level.NOTE),
        (policy(consumer_timeout=3_600_000), Level.OK),
        (policy(consumer_timeout=60_000), Level.BROKEN),
        ({"arguments": {"x-consumer-timeout": 60_000}}, Level.BROKEN),
    ],
)
def test_the_consumer_timeout_is_read_from_argument_and_policy(told: dict[str, Any], level: Level) -> None:
    """Both in milliseconds."""
    assert judge_timeout(told, max_unsettled_s=900.0).level is level


def test_foreign_consumers_are_told() -> None:
    """Several without single active consumer, and those that take everything."""
    told = {
        "messages": 1,
        "messages_ready": 1,
        "messages_unacknowledged": 0,
        "consumer_details": [{"consumer_tag": "a", "prefetch_count": 0}, {"consumer_tag": "b", "prefetch_count": 9}],
    }

    levels = [each.level for each in judge_consumers(told, prefetch=100)]

    assert levels == [Level.OK, Level.BROKEN, Level.WARNING]


@pytest.mark.parametrize(("exists", "level"), [(True, Level.OK), (False, Level.BROKEN)])
def test_a_missing_binding_is_broken(exists: bool, level: Level) -> None:
    """Nothing gets from one to the other."""
    assert judge_binding("a", "b", "#", exists=exists).level is level


@pytest.mark.parametrize(
    ("pattern", "level"),
    [(".*", Level.OK), ("^order", Level.OK), ("^$", Level.BROKEN), ("", Level.BROKEN), ("(?|", Level.NOTE)],
)
def test_written_permissions_have_to_match_what_is_needed(pattern: str, level: Level) -> None:
    """As RabbitMQ matches them: anywhere in the name; an empty pattern matches nothing."""
    [found] = judge_written("u", {"read": pattern}, {"read": frozenset({"order-updates.work"})})

    assert found.level is level


@pytest.mark.parametrize("status", [0, 401, 403, 404, 500])
def test_an_api_that_tells_nothing_breaks_no_promise(status: int) -> None:
    """It is a warning that says what to do."""
    found = untold("queue q", status, "" if status else "refused")

    assert found.level is Level.WARNING
    assert found.advice


@pytest.mark.parametrize(
    ("messages", "consumers", "level"),
    [(3, 0, Level.BROKEN), (3, 1, Level.BROKEN), (0, 1, Level.WARNING), (0, 0, Level.NOTE)],
)
def test_queues_of_another_number_of_partitions_are_told(messages: int, consumers: int, level: Level) -> None:
    """Messages in them are nobody's; consumers at them have other settings."""
    (found,) = judge_leftovers([queue("w.3", messages=messages, consumers=consumers)])

    assert (found.level, found.subject) == (level, "queue w.3")


@pytest.mark.parametrize(
    ("version", "index", "told"), [("3.10.8", None, True), ("3.10.8", 0, False), ("4.0.5", None, False)]
)
def test_workers_need_numbers_where_priorities_are_not_heeded(version: str, index: int | None, told: bool) -> None:
    """Otherwise one of them has all partitions, and nobody sees why."""
    assert bool(list(judge_spread(version, index=index))) is told


def test_every_work_queue_is_counted_by_its_name() -> None:
    """As many findings as partitions."""
    found = [queue("w.0", messages=1, consumers=1), queue("w.1", messages=1, consumers=0)]

    judged = list(judge_counts(found, work_queues=["w.0", "w.1"], dead_queue="d"))
    assert [(each.subject, each.level) for each in judged] == [
        ("work queue w.0", Level.OK),
        ("work queue w.1", Level.NOTE),
    ]
