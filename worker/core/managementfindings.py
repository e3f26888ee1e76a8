"""The doctor's judgement of what RabbitMQ's management API tells: arguments as they are, policies, bindings, consumers.

The values are decoded JSON as RabbitMQ 3.10 to 4.3 answers it; what is absent was not told and is not judged.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.core.findings import Finding, Level, judge_unsettled

_LOSING: Final = ("message-ttl", "expires")
_LENGTHS: Final = ("max-length", "max-length-bytes")
_MISSING: Final = "run the worker with TOPOLOGY=declare, or create it as `order-worker topology` prints it"

Json = Mapping[str, Any]


def judge_queue(name: str, wanted: Json, told: Json, *, dead_queue: str) -> Iterator[Finding]:
    """Arguments and policies of a queue against the wanted arguments."""
    arguments = told.get("arguments") or {}
    subject = f"queue {name} (management)"
    different = [key for key in sorted({*wanted, *arguments}) if wanted.get(key) != arguments.get(key)]
    for key in different:
        yield Finding(
            Level.BROKEN,
            subject,
            f"{key} is {_shown(arguments.get(key))}, wanted is {_shown(wanted.get(key))}",
            "make the setting match, or drain and delete the queue and let it be declared anew",
        )
    problems = list(_policy_problems(subject, wanted, told, is_dead=name == dead_queue))
    yield from problems
    if "effective_policy_definition" not in told:
        # The API has it from the queue's statistics, which come some seconds after the queue was declared.
        advice = "check again in a minute, or look at `rabbitmqctl list_policies`"
        yield Finding(Level.NOTE, subject, "the API does not tell yet whether a policy applies", advice)
    elif not different and not problems:
        yield Finding(Level.OK, subject, "arguments as wanted, no policy in the way")


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def _policy_problems(subject: str, wanted: Json, told: Json, *, is_dead: bool) -> Iterator[Finding]:
    """What a policy does on top of the arguments: of two limits RabbitMQ takes the lower, of two names the argument."""
    policy: Json = told.get("effective_policy_definition") or {}
    named = told.get("operator_policy") or told.get("policy") or "?"
    advice = f"take the queue out of policy {named!r} (its pattern), or take the key out of the policy"
    limit = policy.get("delivery-limit")
    if isinstance(limit, int) and limit < wanted.get("x-delivery-limit", 0):
        yield Finding(Level.BROKEN, subject, f"policy {named!r} lowers the delivery limit to {limit}", advice)
    for key in _LOSING:
        if key in policy and f"x-{key}" not in wanted:
            yield Finding(Level.BROKEN, subject, f"policy {named!r} sets {key}: messages run out by themselves", advice)
    for key in _LENGTHS:
        if key in policy:
            drops = is_dead and policy.get("overflow", "drop-head") == "drop-head"
            seen = f"policy {named!r} sets {key}: {'the oldest are dropped' if drops else 'publishing is refused then'}"
            yield Finding(Level.BROKEN if drops else Level.WARNING, subject, seen, advice)


def judge_timeout(told: Json, *, max_unsettled_s: float) -> Finding:
    """The consumer timeout of the work queue, in milliseconds in its argument or policy; the lower one holds."""
    policy = told.get("effective_policy_definition") or {}
    named = {
        "argument x-consumer-timeout": (told.get("arguments") or {}).get("x-consumer-timeout"),
        f"policy {told.get('operator_policy') or told.get('policy')!r}": policy.get("consumer-timeout"),
    }
    known = {source: value for source, value in named.items() if isinstance(value, int)}
    if not known:
        return judge_unsettled(max_unsettled_s, None)
    source = min(known, key=lambda name: known[name])
    return judge_unsettled(max_unsettled_s, known[source] / 1000, source)


def judge_consumers(told: Json, *, prefetch: int) -> Iterator[Finding]:
    """Consumers of the work queue, and what they may hold."""
    details = [each for each in told.get("consumer_details") or () if isinstance(each, dict)]
    if "messages" in told:
        waiting, held = told.get("messages_ready"), told.get("messages_unacknowledged")
        yield Finding(Level.OK, "work queue (management)", f"{waiting} messages ready, {held} in hand")
    if len(details) > 1 and not (told.get("arguments") or {}).get("x-single-active-consumer"):
        yield Finding(
            Level.BROKEN,
            "consumers (management)",
            f"{len(details)} consumers without single active consumer",
            "stop all but one, and declare the queue anew with x-single-active-consumer",
        )
    for each in details:
        if each.get("prefetch_count") == 0:
            tag = each.get("consumer_tag")
            advice = f"that is no worker of ours (ours take 1 to {prefetch}): stop it"
            yield Finding(Level.WARNING, "consumers (management)", f"{tag} has no prefetch limit", advice)


def judge_binding(source: str, target: str, routing_key: str, *, exists: bool) -> Finding:
    """A binding that has to be there: without it messages are returned to whoever publishes, or lost."""
    subject = f"binding {source} -> {target} (management)"
    key = f"key {routing_key!r}" if routing_key else "no key"
    if exists:
        return Finding(Level.OK, subject, f"exists, {key}")
    return Finding(Level.BROKEN, subject, f"is missing ({key}): nothing gets from one to the other", _MISSING)


def judge_written(user: str, permissions: Json, needs: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    """Permissions as written: ``needs`` has the names that each of configure, write and read has to match."""
    for verb, names in needs.items():
        pattern = str(permissions.get(verb, ""))
        subject = f"{verb} permission of {user} (management)"
        try:
            lacking = sorted(name for name in names if not re.search(pattern, name)) if pattern else sorted(names)
        except re.error:  # Erlang's patterns are PCRE, which knows more than Python's
            yield Finding(Level.NOTE, subject, f"the pattern {pattern!r} could not be read", "compare it by hand")
            continue
        if lacking:
            advice = "let the broker's administrator widen the pattern (`rabbitmqctl set_permissions`)"
            yield Finding(Level.BROKEN, subject, f"{pattern!r} does not match {', '.join(lacking)}", advice)
        else:
            yield Finding(Level.OK, subject, f"{pattern!r} covers what is needed")


def untold(what: str, status: int, cause: str) -> Finding:
    """The management API did not tell something. Not being allowed to look breaks no promise."""
    advice = {
        0: "check host and port of MANAGEMENT_URL, and that the plugin rabbitmq_management is enabled",
        401: "check user and password in MANAGEMENT_URL, and that the user has the tag `monitoring`",
        403: "give the user of MANAGEMENT_URL the tag `monitoring` (permissions: `administrator`)",
        404: "it is not there, or MANAGEMENT_URL is not the address of a management API",
    }.get(status, "look at the broker's log")
    return Finding(Level.WARNING, f"management API: {what}", cause or f"HTTP {status}", advice)
