"""The doctor's judgement of what it saw of the broker over AMQP: version, objects, rights.

AMQP tells of a queue only whether it exists, and of a refused declaration the first argument that differs; bindings,
policies and timeouts it does not tell at all (``managementfindings.py``).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.core.findings import Finding, Level
from worker.core.partition import heeds_priorities

OLDEST: Final = (3, 10)
NEWEST: Final = (4, 3)

_HARM: Final[Mapping[str, str]] = {
    "x-queue-type": "only quorum queues survive the loss of a node and count deliveries",
    "x-single-active-consumer": "two workers would hold events of one order at once",
    "x-delivery-limit": "a message that kills workers is dead-lettered too early, too late or never",
    "x-dead-letter-exchange": "what the broker gives up is lost or goes astray",
    "x-dead-letter-strategy": "dead-lettering is at most once: messages are lost silently",
    "x-overflow": "at-least-once dead-lettering needs reject-publish",
    "x-message-ttl": "retries come back at another time, or messages run out",
}
_DECLARE: Final = "run the worker with TOPOLOGY=declare, or create it as `order-worker topology` prints it"


@dataclass(slots=True, frozen=True, kw_only=True)
class Difference:
    """An argument that is not as the settings want it; values as text."""

    argument: str
    wanted: str
    found: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Found:
    """An exchange or queue as AMQP shows it. ``verified`` False: it exists, its arguments could not be compared.

    ``hidden``: the broker does not even say whether it exists; then ``verified`` is False too.

    ``problem`` is a refusal of another kind. The counts are None for exchanges.
    """

    kind: str
    name: str
    exists: bool = True
    verified: bool = True
    hidden: bool = False
    differences: tuple[Difference, ...] = ()
    problem: str = ""
    messages: int | None = None
    consumers: int | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class Right:
    """Whether our user may ``read`` a queue or ``write`` to an exchange; None: it could not be tried."""

    verb: str
    kind: str
    name: str
    granted: bool | None


def judge_version(product: str, version: str) -> Finding:
    """Inside or outside of what this project is tested with."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    supported = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    seen = f"{product} {version}".strip() or "unknown"
    if product != "RabbitMQ" or numbers is None:
        return Finding(Level.WARNING, "broker version", seen, f"only RabbitMQ {supported} is tested")
    found = (int(numbers[1]), int(numbers[2]))
    if found < OLDEST:
        advice = f"upgrade to RabbitMQ {supported}: before 3.10 quorum queues have no TTL and lose dead letters"
        return Finding(Level.BROKEN, "broker version", seen, advice)
    if found > NEWEST:
        return Finding(Level.NOTE, "broker version", seen, f"newer than what is tested, {supported}")
    return Finding(Level.OK, "broker version", f"{seen}, supported are {supported}")


def judge_spread(version: str, *, index: int | None) -> Iterator[Finding]:
    """Partitions on a broker that does not heed priorities need numbered workers; ``index`` is ours, if it has one."""
    if not heeds_priorities(version) and index is None:
        yield Finding(
            Level.WARNING,
            "partitions",
            f"RabbitMQ {version} makes the first worker to register the active one on every partition",
            "set WORKERS and WORKER_INDEX, so that each registers on its own partitions first; or upgrade to 4.0",
        )


def judge_object(found: Found) -> Iterator[Finding]:
    """An exchange or queue: missing, different in each of these arguments, not comparable, or as wanted."""
    subject = f"{found.kind} {found.name}"
    if not found.exists:
        yield Finding(Level.BROKEN, subject, "is missing", _DECLARE)
        return
    for each in found.differences:
        yield _different(subject, each.argument, each.wanted, each.found)
    if found.problem:
        yield Finding(Level.BROKEN, subject, found.problem, "look at it with the broker's own tools")
    elif not found.verified:
        seen = (
            "could not be looked at without any permission on it"
            if found.hidden
            else "exists; its arguments could not be compared without configure permission"
        )
        yield Finding(Level.NOTE, subject, seen, "compare it with `order-worker topology`, or set MANAGEMENT_URL")
    elif not found.differences:
        yield Finding(Level.OK, subject, "exists; the broker accepts our arguments as equal")


def _different(subject: str, argument: str, wanted: str, found: str) -> Finding:
    harm = f": {_HARM[argument]}" if argument in _HARM else ""
    advice = f"make the setting match, or drain and delete the {subject.split()[0]} and let it be declared anew{harm}"
    return Finding(Level.BROKEN, subject, f"{argument} is {found}, wanted is {wanted}", advice)


def judge_rights(rights: Collection[Right], *, needed: Collection[str]) -> Iterator[Finding]:
    """Rights on the objects in ``needed`` are a must for ``run``; the others only serve people and producers."""
    for right in rights:
        subject = f"may {right.verb} {right.kind} {right.name}"
        if right.granted:
            yield Finding(Level.OK, subject, "yes")
        elif right.granted is None:
            yield Finding(Level.NOTE, subject, "could not be tried, it is missing", _DECLARE)
        else:
            must = right.name in needed
            yield Finding(
                Level.BROKEN if must else Level.NOTE,
                subject,
                "no",
                f"let the broker's administrator grant our user {right.verb} permission (`rabbitmqctl set_permissions`)"
                + ("" if must else "; `run` does not need it"),
            )


def judge_configure(found: Collection[Found], *, declaring: bool) -> Finding:
    """Whether our user may declare: tried on everything that exists. With TOPOLOGY=passive it need not."""
    existing = [each for each in found if each.exists]
    refused = [each.name for each in existing if not each.verified]
    if not existing:
        return Finding(Level.NOTE, "may declare", "could not be tried, nothing exists yet")
    if not refused:
        return Finding(Level.OK, "may declare", "yes")
    seen = f"no: {', '.join(refused)}"
    if not declaring:
        return Finding(Level.OK, "may declare", f"{seen}; TOPOLOGY=passive does not need it")
    advice = "grant configure permission, or set TOPOLOGY=passive and create everything with `order-worker topology`"
    return Finding(Level.BROKEN, "may declare", seen, advice)


def judge_counts(found: Collection[Found], *, work_queues: Collection[str], dead_queue: str) -> Iterator[Finding]:
    """Who consumes the work queues, and what waits in them and among the dead letters."""
    queues = {each.name: each for each in found if each.exists and each.messages is not None}
    for name in work_queues:
        if work := queues.get(name):
            seen = f"{work.messages} messages ready, {work.consumers} consumers"
            idle = not work.consumers
            subject = "work queue" if len(work_queues) == 1 else f"work queue {name}"
            yield Finding(
                Level.NOTE if idle else Level.OK, subject, seen, "no worker consumes: start one" if idle else ""
            )
    if (dead := queues.get(dead_queue)) and dead.messages:
        advice = "see why with `order-worker dead list`"
        yield Finding(Level.NOTE, "dead letters", f"{dead.messages} wait in {dead_queue}", advice)


def judge_leftovers(found: Collection[Found]) -> Iterator[Finding]:
    """Work queues of another number of PARTITIONS: no worker with these settings consumes them."""
    for each in found:
        subject = f"queue {each.name}"
        if each.messages:
            advice = "run `order-worker topology --migrate`: it moves them, and may be run again at any time"
            seen = f"{each.messages} messages wait in it, and it is not among the PARTITIONS of these settings"
            yield Finding(Level.BROKEN, subject, seen, advice)
        else:
            seen = f"empty, {each.consumers} consumers; it is of another number of PARTITIONS"
            advice = (
                "workers with other settings consume it: give all of them the same PARTITIONS"
                if each.consumers
                else "delete it once no worker needs it any more"
            )
            yield Finding(Level.WARNING if each.consumers else Level.NOTE, subject, seen, advice)


def unseen_without_management() -> Finding:
    """What AMQP does not tell, and how a person can look."""
    return Finding(
        Level.NOTE,
        "management API",
        "MANAGEMENT_URL is not set: bindings, policies, consumer timeouts and written permissions were not checked",
        "set MANAGEMENT_URL, or compare by hand: `rabbitmqctl list_bindings`, `list_policies`, `list_permissions`",
    )
