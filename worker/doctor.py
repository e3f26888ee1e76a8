"""Use case ``check``: look at settings, journal, broker, management API and platform, change nothing, say what is.

What is down, slow or refuses us is a finding, never an error. The outside systems are looked at side by side, each
within a deadline of its own; what one of them had told until then is kept.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aio_pika.abc import AbstractConnection
from yarl import URL

from worker.adapters.amqp.connection import shown, vhost_of
from worker.adapters.amqp.inspecting import DEFAULT_EXCHANGE, connected, leftovers, objects, product, rights
from worker.adapters.amqp.topology import planned
from worker.adapters.graphql import GraphqlPlatform
from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import file_to_come
from worker.adapters.journal.upgrading import check
from worker.adapters.management import ManagementApi, Told
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.config import Settings
from worker.core import brokerfindings, findings, managementfindings
from worker.core.errors import TokenRefused, TokenUnavailable, WorkerError
from worker.core.findings import Finding, Level
from worker.core.masking import mask_text
from worker.core.partition import other_queues
from worker.core.rulesfile import rules_of
from worker.core.settings import TopologyMode
from worker.core.verdict import judge

CONNECT_S: Final = 5.0
RPC_S: Final = 5.0
PART_S: Final = 60.0
"""Longest look at the broker or its management API; the platform gets as long as its calls may take."""

Tell = Callable[[Finding], None]


async def examine(settings: Settings) -> list[Finding]:
    """Everything that was found, in the order settings, journal, broker, management, platform; secrets masked.

    Raises UsageError without credentials for the platform, and nothing for what platform, broker or network do.
    """
    platform = settings.require_platform()
    told: dict[str, list[Finding]] = {"journal": [], "broker": [], "management API": [], "platform": []}
    works: dict[str, tuple[float, Callable[[Settings, Tell], Awaitable[None]]]] = {
        "journal": (PART_S, _journal),
        "broker": (PART_S * len(settings.amqp_url), _broker),
        "management API": (PART_S, _management),
        "platform": (2 * platform.call_timeout_s + 5.0, _platform),
    }
    async with asyncio.TaskGroup() as group:
        for name, (deadline_s, work) in works.items():
            group.create_task(_part(name, work(settings, told[name].append), told[name], deadline_s), name=name)
    found = [*_settings(settings), *(finding for part in told.values() for finding in part)]
    return [_masked(finding, settings.logs.secrets) for finding in found]


async def _part(subject: str, work: Awaitable[None], told: list[Finding], deadline_s: float) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            await work
    except TimeoutError:
        told.append(
            Finding(Level.BROKEN, subject, f"not done after {deadline_s:g} s", "look at the network and its load")
        )
    except WorkerError as error:
        told.append(Finding(Level.BROKEN, subject, str(error), "solve this first, then check again"))


def _masked(finding: Finding, secrets: tuple[str, ...]) -> Finding:
    return replace(
        finding,
        subject=mask_text(finding.subject, secrets),
        seen=mask_text(finding.seen, secrets),
        advice=mask_text(finding.advice, secrets),
    )


def _settings(settings: Settings) -> list[Finding]:
    found = [findings.judge_prefetch(settings.prefetch)]
    if settings.partitions > 1:
        found.append(findings.judge_partitions(settings.partitions, settings.prefetch, settings.journal_url))
    return found


async def _journal(settings: Settings, tell: Tell) -> None:
    """Looks, and makes nothing."""
    if (path := file_to_come(settings.journal_url)) is not None:
        tell(findings.judge_journal_file(str(path), writable=os.access(path.parent, os.W_OK)))
        return
    if settings.journal_url != MEMORY:
        await check(settings.journal_url)
    tell(findings.judge_journal(settings.journal_url))


# -- the broker -------------------------------------------------------------------------------------------------------


async def _broker(settings: Settings, tell: Tell) -> None:
    """Every address is tried; one that answers is enough for the worker, so the others are warnings then."""
    failed: list[tuple[str, str]] = []
    looked = False
    for url in settings.amqp_url:
        try:
            async with connected(url, timeout_s=CONNECT_S) as connection:
                tell(Finding(Level.OK, f"broker {shown(url)}", "connected"))
                if not looked:
                    await _look(settings, connection, tell)
                    looked = True
        except WorkerError as error:
            failed.append((shown(url), str(error)))
    level = Level.WARNING if looked else Level.BROKEN
    for place, text in failed:
        tell(Finding(level, f"broker {place}", text, "check AMQP_URL, the network, and that the broker runs"))


async def _look(settings: Settings, connection: AbstractConnection, tell: Tell) -> None:
    plan = planned(settings.broker)
    is_ = product(connection)
    tell(brokerfindings.judge_version(is_.product, is_.version))
    if settings.partitions > 1:
        _tell_all(tell, brokerfindings.judge_spread(is_.version, index=settings.worker_index))
    found = await objects(connection, plan, rpc_timeout_s=RPC_S)
    for each in found:
        _tell_all(tell, brokerfindings.judge_object(each))
    tell(brokerfindings.judge_configure(found, declaring=settings.topology is TopologyMode.DECLARE))
    may = await rights(
        connection,
        queues=(*plan.work_queues, plan.dead_queue),
        exchanges=[exchange.name for exchange in plan.exchanges],
        rpc_timeout_s=RPC_S,
    )
    needed_to_read, needed_to_write = {*plan.work_queues}, {DEFAULT_EXCHANGE, *plan.retry_exchanges}
    for right in may:
        needed = needed_to_read if right.verb == "read" else needed_to_write
        _tell_all(tell, brokerfindings.judge_rights([right], needed=needed))
    _tell_all(tell, brokerfindings.judge_counts(found, work_queues=plan.work_queues, dead_queue=plan.dead_queue))
    left = await leftovers(connection, other_queues(plan.work_queue, settings.partitions), rpc_timeout_s=RPC_S)
    _tell_all(tell, brokerfindings.judge_leftovers(left))


def _tell_all(tell: Tell, several: Any) -> None:
    for finding in several:
        tell(finding)


# -- what AMQP does not tell ------------------------------------------------------------------------------------------


async def _management(settings: Settings, tell: Tell) -> None:
    if not settings.management_url:
        tell(findings.judge_unsettled(settings.max_unsettled_s, None))
        tell(brokerfindings.unseen_without_management())
        return
    vhost, user = _place(settings.amqp_url[0])
    async with ManagementApi(settings.management_url) as api:
        # One question first: an API that is away would be waited for once per queue otherwise.
        who = await api.get("whoami")
        if not who.known:
            tell(managementfindings.untold("login", who.status, who.cause))
            tell(findings.judge_unsettled(settings.max_unsettled_s, None))
            return
        await _queues(settings, api, vhost, tell)
        await _bindings(settings, api, vhost, tell)
        written = await api.get("permissions", vhost, user)
        if _usable(written, f"permissions of {user}", dict, tell):
            _tell_all(tell, managementfindings.judge_written(user, written.payload, _needs(settings)))


async def _queues(settings: Settings, api: ManagementApi, vhost: str, tell: Tell) -> None:
    plan = planned(settings.broker)
    for queue in plan.queues:
        told = await api.get("queues", vhost, queue.name)
        if not _usable(told, f"queue {queue.name}", dict, tell):
            continue
        judged = managementfindings.judge_queue(queue.name, queue.arguments, told.payload, dead_queue=plan.dead_queue)
        _tell_all(tell, judged)
        if queue.name in plan.work_queues:
            tell(managementfindings.judge_timeout(told.payload, max_unsettled_s=settings.max_unsettled_s))
            _tell_all(tell, managementfindings.judge_consumers(told.payload, prefetch=settings.prefetch))


async def _bindings(settings: Settings, api: ManagementApi, vhost: str, tell: Tell) -> None:
    for wanted in planned(settings.broker).bindings:
        told = await api.get("exchanges", vhost, wanted.source, "bindings", "source")
        if not _usable(told, f"bindings of {wanted.source}", list, tell):
            continue
        kind = "exchange" if wanted.to_exchange else "queue"
        key = (wanted.target, kind, wanted.routing_key)
        exists = any(_binding_key(each) == key for each in told.payload)
        tell(managementfindings.judge_binding(wanted.source, wanted.target, wanted.routing_key, exists=exists))


def _binding_key(told: Any) -> tuple[object, ...]:
    if not isinstance(told, dict):
        return ()
    return (told.get("destination"), told.get("destination_type"), told.get("routing_key"))


def _usable(told: Told, what: str, kind: type, tell: Tell) -> bool:
    if isinstance(told.payload, kind):
        return True
    tell(managementfindings.untold(what, told.status, told.cause or "an answer of another kind"))
    return False


def _place(url: str) -> tuple[str, str]:
    """(vhost, user) of a broker's address, as the AMQP client reads them."""
    return vhost_of(url), URL(url).user or "guest"


def _needs(settings: Settings) -> dict[str, frozenset[str]]:
    """What permissions have to cover for ``run``; declaring also binds, which writes to targets and reads sources."""
    plan = planned(settings.broker)
    copies = {plan.dead_queue, *plan.retry_exchanges}
    if settings.topology is TopologyMode.PASSIVE:
        return {"configure": frozenset(), "write": frozenset(copies), "read": frozenset(plan.work_queues)}
    exchanges = {exchange.name for exchange in plan.exchanges}
    every = frozenset(exchanges | {queue.name for queue in plan.queues})
    return {"configure": every, "write": every - {settings.exchange}, "read": every}


# -- the platform -----------------------------------------------------------------------------------------------------


async def _platform(settings: Settings, tell: Tell) -> None:
    platform = settings.require_platform()
    skews: list[float] = []

    def observe(headers: Mapping[str, str]) -> None:
        if (skew := _skew(headers.get("Date"), time.time())) is not None:
            skews.append(skew)

    credentials = ClientCredentials(
        url=platform.oauth_url,
        client_id=platform.client_id,
        client_secret=platform.client_secret,
        scope=platform.oauth_scope,
    )
    async with OAuthTokenSource(credentials, timeout_s=platform.call_timeout_s, observe=observe) as tokens:
        token = await _token(tokens, platform.oauth_scope, tell)
    # Told in any case: a clock that is wrong is worth knowing even where the token is refused.
    tell(findings.judge_clock(skews[-1] if skews else None, settings.max_clock_skew_s))
    if token is None:
        tell(Finding(Level.NOTE, "graphql mutation", "not tried without a token", "solve the token first"))
        return
    async with GraphqlPlatform(
        platform.graphql_url, timeout_s=platform.call_timeout_s, extra_fields=settings.extra_fields
    ) as graphql:
        report = await graphql.update_orders([], token=token)
    rules = rules_of(settings.rules, settings.event.terminal_statuses)
    tell(findings.judge_control(report, judge(report, {}, rules)))


async def _token(tokens: OAuthTokenSource, scope: str, tell: Tell) -> str | None:
    advice = "check CLIENT_ID, CLIENT_SECRET and OAUTH_SCOPE; the worker pauses until they are accepted"
    try:
        token = await tokens.token()
    except TokenRefused as refused:
        tell(Finding(Level.BROKEN, "oauth token", str(refused), advice))
        return None
    except TokenUnavailable as away:
        advice = "check OAUTH_URL, its certificate and the network; a token endpoint that is down is waited for"
        tell(Finding(Level.BROKEN, "oauth token", str(away), advice))
        return None
    tell(findings.judge_scope(scope, tokens.granted_scope))
    return token


def _skew(date: str | None, now_s: float) -> float | None:
    """Our clock minus an HTTP Date (RFC 9110 section 5.6.7), in seconds; None where that is missing or unreadable."""
    try:
        return None if date is None else now_s - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
