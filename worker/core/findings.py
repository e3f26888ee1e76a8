"""What the doctor (``order-worker check``) found, and its judgement of settings, clock, token and platform.

Pure tables: what was seen goes in, a finding comes out. A finding names what was looked at, what was seen, and what to
do; nothing in it is secret. What only the broker is asked for is in ``brokerfindings.py``.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from worker.core.partition import share
from worker.core.report import CallReport, Reply
from worker.core.verdict import Call, Judgement

QUORUM_CAP: Final = 2000
"""More unsettled messages than this RabbitMQ does not promise for a consumer of a quorum queue."""
BROKER_TIMEOUT_S: Final = 1800.0
"""RabbitMQ's default consumer_timeout: a delivery that is unsettled for so long costs the channel."""
SKEW_WORTH_TELLING_S: Final = 30.0
EDIT_SCOPE: Final = "order-it.order-manager.edit"
"""What the platform documents for updateOrders; a refusal that names it is about it, whatever its status."""


class Level(StrEnum):
    """How bad it is. ``broken``: a promise does not hold, or the worker would not work at all."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was looked at. ``advice`` is empty where nothing is to be done."""

    level: Level
    subject: str
    seen: str
    advice: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where anything is broken, else 0."""
    return int(any(finding.level is Level.BROKEN for finding in findings))


def judge_journal_file(path: str, *, writable: bool) -> Finding:
    """An SQLite file that is not there yet; ``writable`` is its folder."""
    if writable:
        return Finding(Level.OK, "journal", f"{path} is not there yet: the worker makes it when it starts")
    advice = "let JOURNAL_URL name a file where this user may write, or a PostgreSQL"
    return Finding(Level.BROKEN, "journal", f"{path} cannot be made: its folder is missing or not writable", advice)


def judge_journal(url: str) -> Finding:
    """Versions in memory are forgotten with the process, and promise 2 with them."""
    if url != "memory":
        return Finding(Level.OK, "journal", "applied versions are kept; the tables are those of this version")
    return Finding(
        Level.WARNING,
        "journal",
        "JOURNAL_URL=memory: 'no order goes backwards' lasts one process life",
        "after a restart an old event that arrives late counts as news; set JOURNAL_URL=sqlite:///order-worker.db, or "
        "to a PostgreSQL where several workers share a queue",
    )


def judge_prefetch(prefetch: int) -> Finding:
    """Against the most that quorum queues promise."""
    if prefetch <= QUORUM_CAP:
        return Finding(Level.OK, "prefetch", f"{prefetch}, the cap of quorum queues is {QUORUM_CAP}")
    advice = f"set PREFETCH to {QUORUM_CAP} or less"
    return Finding(Level.WARNING, "prefetch", f"{prefetch} is above the cap of quorum queues, {QUORUM_CAP}", advice)


def judge_partitions(partitions: int, prefetch: int, journal_url: str) -> Finding:
    """A share of the prefetch for each, and a journal that all workers see: an SQLite file serves one worker only."""
    seen = f"{partitions}, each with a prefetch of {share(prefetch, partitions)}"
    if not journal_url.startswith("sqlite"):
        return Finding(Level.OK, "partitions", seen)
    advice = (
        "with more than one worker let JOURNAL_URL name a PostgreSQL: each would have a file of its own, and none "
        "would know what the others applied"
    )
    return Finding(Level.WARNING, "partitions", f"{seen}; JOURNAL_URL is an SQLite file, good for one worker", advice)


def judge_unsettled(max_unsettled_s: float, timeout_s: float | None, source: str = "") -> Finding:
    """``MAX_UNSETTLED_S`` against the consumer timeout; None: not told, then RabbitMQ's default is assumed.

    Queues and policies may set a timeout of their own; that of the whole server (rabbitmq.conf) can be read neither
    over AMQP nor over HTTP.
    """
    subject = "consumer timeout"
    limit = BROKER_TIMEOUT_S if timeout_s is None else timeout_s
    if max_unsettled_s >= limit:
        return Finding(
            Level.BROKEN,
            subject,
            f"MAX_UNSETTLED_S is {max_unsettled_s:g}, the broker takes messages away after {limit:g} s"
            + (f" ({source})" if source else ""),
            f"lower MAX_UNSETTLED_S well below {limit:g}, or raise the timeout",
        )
    if timeout_s is None:
        return Finding(
            Level.NOTE,
            subject,
            f"MAX_UNSETTLED_S is {max_unsettled_s:g}; the timeout of the server cannot be read, its default is "
            f"{limit:g} s",
            f"where rabbitmq.conf sets consumer_timeout, keep it above {max_unsettled_s:g} s "
            "(`rabbitmq-diagnostics environment` prints it)",
        )
    return Finding(Level.OK, subject, f"{limit:g} s ({source}), MAX_UNSETTLED_S is {max_unsettled_s:g}")


def judge_clock(skew_s: float | None, max_clock_skew_s: float) -> Finding:
    """``skew_s``: our clock minus that of the token endpoint, to the second; None: it told no time."""
    if skew_s is None:
        return Finding(Level.NOTE, "clock", "the token endpoint told no time", "compare the clock with NTP by hand")
    seen = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the token endpoint"
    advice = "let NTP set the clock of this machine (or tell the platform's support that theirs is wrong)"
    if skew_s < -max_clock_skew_s:
        harm = f"; events stamped now look more than MAX_CLOCK_SKEW_S ({max_clock_skew_s:g}) ahead: dead letters"
        return Finding(Level.BROKEN, "clock", seen + harm, advice)
    if abs(skew_s) > SKEW_WORTH_TELLING_S:
        return Finding(Level.WARNING, "clock", seen, advice)
    return Finding(Level.OK, "clock", f"within {SKEW_WORTH_TELLING_S:g} s of the token endpoint's")


def judge_scope(wanted: str, granted: str | None) -> Finding:
    """The scope of a token. RFC 6749 section 5.1: an answer that names none grants what was asked for."""
    if granted is None:
        asked = f"asked for {wanted!r}" if wanted else "asked for no scope"
        return Finding(Level.OK, "oauth token", f"obtained; {asked}, the answer names none")
    missing = sorted(set(wanted.split()) - set(granted.split()))
    if not missing:
        return Finding(Level.OK, "oauth token", f"obtained with the scope {granted!r}")
    return Finding(
        Level.BROKEN,
        "oauth token",
        f"obtained, but without the scope {' '.join(missing)!r}",
        "let the platform's support grant it to this OAuth user, or correct OAUTH_SCOPE",
    )


_SCOPE_ADVICE: Final = (
    f"the token does not allow updateOrders: put {EDIT_SCOPE} into OAUTH_SCOPE and let the platform's support grant it "
    "to this OAuth user; the worker pauses until then"
)
_CONTROL: Final[dict[Call, tuple[Level, str]]] = {
    Call.ANSWERED: (Level.OK, ""),
    Call.AUTH: (Level.BROKEN, _SCOPE_ADVICE),
    Call.THROTTLED: (Level.WARNING, "the rate limit is used up: whether the scope allows the mutation is not known"),
    Call.CONFIGURATION: (Level.BROKEN, "check GRAPHQL_URL, its certificate, and what stands between (proxy, firewall)"),
    Call.UNAVAILABLE: (Level.BROKEN, "check GRAPHQL_URL and the network; a platform that is down is waited for"),
    Call.UNKNOWN: (Level.BROKEN, "no usable answer: check GRAPHQL_URL; a platform that is down is waited for"),
}


def judge_control(report: CallReport, judgement: Judgement) -> Finding:
    """The control call: the worker's own mutation with an empty list, which changes no order."""
    subject = "graphql mutation"
    if judgement.call is Call.ANSWERED:
        return Finding(Level.OK, subject, "updateOrders is allowed: it accepted an empty list")
    seen = judgement.detail or judgement.call.value
    if judgement.call is not Call.REFUSED:
        level, advice = _CONTROL[judgement.call]
        return Finding(level, subject, seen, advice)
    if judgement.status == 403 or EDIT_SCOPE in seen:
        return Finding(Level.BROKEN, subject, seen, _SCOPE_ADVICE)
    if _was_executed(report):
        return Finding(
            Level.WARNING,
            subject,
            f"updateOrders exists and refuses an empty list: {seen}",
            "if that speaks of a permission, the scope is missing; else it is a habit of the platform, and the worker "
            "probes with single orders instead",
        )
    return Finding(
        Level.BROKEN,
        subject,
        seen,
        "the platform does not accept our document: check GRAPHQL_URL and EXTRA_FIELDS; its schema may have changed",
    )


def _was_executed(report: CallReport) -> bool:
    """GraphQL: errors of a document that was executed have a path, those of one that was refused do not."""
    payload: Any = report.payload if isinstance(report, Reply) else None
    errors = payload.get("errors") if isinstance(payload, dict) else None
    return bool(errors) and isinstance(errors, list) and all(isinstance(e, dict) and e.get("path") for e in errors)


def by_level(findings: Collection[Finding]) -> dict[Level, int]:
    """How many there are of each level."""
    return {level: sum(finding.level is level for finding in findings) for level in Level}
