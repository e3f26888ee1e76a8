"""The doctor's judgement of settings, clock, token and platform, row by row."""

import pytest

from worker.core.findings import (
    Finding,
    Level,
    exit_code,
    judge_clock,
    judge_control,
    judge_journal,
    judge_partitions,
    judge_prefetch,
    judge_scope,
    judge_unsettled,
)
from worker.core.report import CallReport, Insecure, NoAnswer, NotSent, Reply
from worker.core.verdict import Rules, judge

PATH = ["core", "updateOrders"]


def control(report: CallReport) -> Finding:
    """The finding about a control call that came back like this."""
    return judge_control(report, judge(report, {}, Rules()))


def errors(message: str, **more: object) -> Reply:
    """A GraphQL answer with one error and no list."""
    return Reply(status=200, payload={"errors": [{"message": message, **more}]}, excerpt=message)


@pytest.mark.parametrize(
    ("levels", "code"),
    [((), 0), ((Level.OK, Level.NOTE, Level.WARNING), 0), ((Level.OK, Level.BROKEN, Level.NOTE), 1)],
)
def test_only_what_is_broken_makes_the_exit_code_1(levels: tuple[Level, ...], code: int) -> None:
    """Notes and warnings are for people."""
    assert exit_code([Finding(level, "x", "y") for level in levels]) == code


@pytest.mark.parametrize(("url", "level"), [("memory", Level.WARNING), ("sqlite+aiosqlite:///x.db", Level.OK)])
def test_a_journal_in_memory_is_told(url: str, level: Level) -> None:
    """Promise 2 lasts one process life then."""
    found = judge_journal(url)

    assert found.level is level
    assert ("one process life" in found.seen) is (url == "memory")


@pytest.mark.parametrize(("prefetch", "level"), [(1, Level.OK), (2000, Level.OK), (2001, Level.WARNING)])
def test_the_prefetch_is_held_against_the_cap_of_quorum_queues(prefetch: int, level: Level) -> None:
    """2000 is the most they promise."""
    assert judge_prefetch(prefetch).level is level


@pytest.mark.parametrize(
    ("timeout_s", "level"),
    [(None, Level.NOTE), (901.0, Level.OK), (900.0, Level.BROKEN), (60.0, Level.BROKEN)],
)
def test_messages_must_be_settled_before_the_broker_takes_them_away(timeout_s: float | None, level: Level) -> None:
    """An unknown timeout is not assumed to be fine, only usual."""
    assert judge_unsettled(900.0, timeout_s, "policy 'p'").level is level


def test_more_than_the_default_timeout_is_broken_even_if_none_is_told() -> None:
    """30 minutes is RabbitMQ's default."""
    assert judge_unsettled(1800.0, None).level is Level.BROKEN


@pytest.mark.parametrize(
    ("skew_s", "level"),
    [
        (None, Level.NOTE), (0.0, Level.OK), (30.0, Level.OK), (-30.0, Level.OK), (31.0, Level.WARNING),
        (-31.0, Level.WARNING), (5000.0, Level.WARNING), (-300.0, Level.WARNING), (-301.0, Level.BROKEN),
    ],
)  # fmt: skip
def test_a_clock_is_judged_by_its_skew(skew_s: float | None, level: Level) -> None:
    """Far behind, every event seems to come from the future and is dead-lettered; ahead it is only wrong."""
    found = judge_clock(skew_s, 300.0)

    assert found.level is level
    assert (found.advice == "") is (level is Level.OK)


@pytest.mark.parametrize(
    ("wanted", "granted", "level"),
    [
        ("a b", None, Level.OK), ("", None, Level.OK), ("a b", "b a c", Level.OK), ("a b", "b", Level.BROKEN),
        ("a", "", Level.BROKEN), ("", "x", Level.OK),
    ],
)  # fmt: skip
def test_a_granted_scope_has_to_cover_the_wanted_one(wanted: str, granted: str | None, level: Level) -> None:
    """No scope in the answer means as asked (RFC 6749 section 5.1)."""
    assert judge_scope(wanted, granted).level is level


@pytest.mark.parametrize(
    ("report", "level", "word"),
    [
        (Reply(status=200, payload={"data": {"core": {"updateOrders": []}}}), Level.OK, ""),
        (Reply(status=401), Level.BROKEN, "OAUTH_SCOPE"),
        (Reply(status=403, excerpt="no"), Level.BROKEN, "OAUTH_SCOPE"),
        (errors("Unauthorised transaction", path=PATH), Level.BROKEN, "OAUTH_SCOPE"),
        (errors("Permission denied (order-it.order-manager.edit)", path=PATH), Level.BROKEN, "OAUTH_SCOPE"),
        (errors("No orders specified", path=PATH), Level.WARNING, "probes with single orders"),
        (errors("Cannot query field 'x'"), Level.BROKEN, "EXTRA_FIELDS"),
        (Reply(status=400, excerpt="bad"), Level.BROKEN, "schema"),
        (Reply(status=429, retry_after="60"), Level.WARNING, "rate limit"),
        (Reply(status=404), Level.BROKEN, "GRAPHQL_URL"),
        (Reply(status=502), Level.BROKEN, "waited for"),
        (Reply(status=503), Level.BROKEN, "waited for"),
        (NotSent(cause="refused"), Level.BROKEN, "waited for"),
        (NoAnswer(cause="reset"), Level.BROKEN, "waited for"),
        (Insecure(cause="certificate"), Level.BROKEN, "certificate"),
    ],
)
def test_the_control_call_tells_whether_the_mutation_is_allowed(report: CallReport, level: Level, word: str) -> None:
    """Each way it can end has its level and says what to do."""
    found = control(report)

    assert (found.level, found.subject) == (level, "graphql mutation")
    assert word in found.advice
    assert bool(found.advice) is (level is not Level.OK)


@pytest.mark.parametrize(("url", "level"), [("postgresql://h/d", Level.OK), ("sqlite:///x.db", Level.WARNING)])
def test_partitions_want_a_journal_that_all_workers_share(url: str, level: Level) -> None:
    """An SQLite file is that of one worker; and everybody wants to know what each partition may hold."""
    found = judge_partitions(12, 2000, url)

    assert found.level is level
    assert "prefetch of 166" in found.seen
