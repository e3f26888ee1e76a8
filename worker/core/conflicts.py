"""Settings that are fine alone and cannot work together: found at load, not in the middle of the night."""

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from worker.core.budget import TURN_S
from worker.core.settings import Others


@dataclass(slots=True, frozen=True)
class Conflict:
    """Which settings do not fit together, why, and what to change."""

    names: tuple[str, ...]
    text: str


def conflicts(values: Mapping[str, Any]) -> list[Conflict]:
    """Everything that does not fit together in these settings, by their names."""
    checks = (
        size_conflicts,
        time_conflicts,
        name_conflicts,
        budget_conflicts,
        admin_conflicts,
        partition_conflicts,
        go_live_conflicts,
        console_conflicts,
    )
    return [conflict for check in checks for conflict in check(**values)]


def time_conflicts(
    *,
    linger_s: float,
    call_timeout_s: float,
    drain_grace_s: float,
    hold_limit_s: float,
    max_unsettled_s: float,
    **_others: object,
) -> Iterator[Conflict]:
    """Durations in seconds: each shorter wait has to fit into the longer one around it."""
    if call_timeout_s >= drain_grace_s:
        yield Conflict(
            ("call_timeout_s", "drain_grace_s"),
            f"a call may take {call_timeout_s:g} s and shutdown waits {drain_grace_s:g} s, so calls would be cut off; "
            "make the grace longer than the call timeout",
        )
    if hold_limit_s + call_timeout_s >= max_unsettled_s:
        yield Conflict(
            ("hold_limit_s", "call_timeout_s", "max_unsettled_s"),
            f"holding for {hold_limit_s:g} s and then calling for {call_timeout_s:g} s does not fit into "
            f"{max_unsettled_s:g} s unsettled; lower the first two or raise the last",
        )
    if linger_s >= call_timeout_s:
        yield Conflict(
            ("linger_s", "call_timeout_s"),
            f"waiting {linger_s:g} s for a batch to fill must be shorter than a call ({call_timeout_s:g} s); lower the "
            "linger",
        )


def size_conflicts(*, prefetch: int, max_batch: int, max_in_flight: int, **_others: object) -> Iterator[Conflict]:
    """Counts of messages: the broker has to hand over enough of them to fill every batch."""
    if prefetch < max_batch * max_in_flight:
        yield Conflict(
            ("prefetch", "max_batch", "max_in_flight"),
            f"a prefetch of {prefetch} cannot fill {max_in_flight} batches of {max_batch}; raise the prefetch (2000 is "
            "the most) or lower one of the others",
        )


def budget_conflicts(
    *,
    rate_per_hour: int | None,
    rate_per_day: int | None,
    call_timeout_s: float,
    max_unsettled_s: float,
    **_others: object,
) -> Iterator[Conflict]:
    """A message may have to wait ten minutes for a call that the budget allows."""
    names = tuple(n for n, v in (("rate_per_hour", rate_per_hour), ("rate_per_day", rate_per_day)) if v is not None)
    if names and TURN_S + 2 * call_timeout_s >= max_unsettled_s:
        yield Conflict(
            (*names, "max_unsettled_s"),
            f"with a budget of calls a message may wait {TURN_S} s for one and then needs its answer, which does not "
            f"fit into {max_unsettled_s:g} s unsettled; raise the last or leave the budget out",
        )


def name_conflicts(
    *,
    exchange: str,
    queue: str,
    dead_letter_queue: str,
    extra_fields: Collection[str],
    ignore_fields: Collection[str],
    **_others: object,
) -> Iterator[Conflict]:
    """Names that must differ."""
    if len({exchange, queue, dead_letter_queue}) < 3:
        yield Conflict(
            ("exchange", "queue", "dead_letter_queue"),
            "need three different names, because an exchange is named after the work queue and dead letters need a "
            "queue of their own; rename one",
        )
    if both := sorted(set(extra_fields).intersection(ignore_fields)):
        yield Conflict(
            ("extra_fields", "ignore_fields"),
            f"{', '.join(both)} cannot be both sent and ignored; take it out of one of them",
        )


def admin_conflicts(*, admin_host: str, admin_port: int, admin_token: object, **_others: object) -> Iterator[Conflict]:
    """Whoever can reach the admin interface can stop the worker. ``admin_token`` is false where there is none."""
    if admin_port and not admin_token and not is_loopback(admin_host):
        yield Conflict(
            ("admin_host", "admin_token"),
            f"anybody who reaches {admin_host} could pause the worker; set a token, or listen on 127.0.0.1",
        )


def partition_conflicts(
    *,
    partitions: int,
    hash_exchange: str | None,
    journal_url: str,
    prefetch: int,
    worker_index: int | None,
    workers: int,
    **_others: object,
) -> Iterator[Conflict]:
    """Partitions give affinity and throughput, not order: hashes move orders from queue to queue, and then two workers
    hold the same one. Only a journal that outlives a process, and that all workers share, keeps the order."""
    if partitions > 1 and hash_exchange is None:
        yield Conflict(
            ("partitions", "hash_exchange"),
            f"{partitions} partitions need an exchange that spreads the orders over them; set x-modulus-hash on "
            "RabbitMQ 4.3 or newer, x-consistent-hash where the plugin rabbitmq_consistent_hash_exchange is enabled",
        )
    if partitions > 1 and journal_url == "memory":
        yield Conflict(
            ("partitions", "journal_url"),
            f"with {partitions} partitions the order of updates is kept by the journal alone, and one in memory ends "
            "with its process and is shared with nobody; name a PostgreSQL database (or an SQLite file, as long as "
            "there is only one worker)",
        )
    if partitions > prefetch:
        yield Conflict(
            ("partitions", "prefetch"),
            f"a prefetch of {prefetch} cannot be divided among {partitions} partitions; raise it or have fewer",
        )
    if workers > 1 and worker_index is None:
        yield Conflict(("workers", "worker_index"), f"of {workers} workers this one has no number; set it, or neither")


def go_live_conflicts(*, allow_orders: Collection[int], others: Others, **_others: object) -> Iterator[Conflict]:
    """A list of orders that got lost on its way here must not let everything out."""
    if others is Others.DEAD_LETTER and not allow_orders:
        yield Conflict(
            ("allow_orders", "others"),
            "others says what becomes of orders that are not allowed, but without a list all are; name the orders, or "
            "leave both out to send all of them",
        )


def console_conflicts(
    *,
    console_host: str,
    console_url: str,
    console_tokens_file: str,
    console_proxy_header: str,
    console_proxy_from: Collection[str],
    **_others: object,
) -> Iterator[Conflict]:
    """Whoever can reach the console and may use it can move messages."""
    if not is_loopback(console_host) and not console_tokens_file and not console_proxy_header:
        yield Conflict(
            ("console_host", "console_tokens_file", "console_proxy_header"),
            f"anybody who reaches {console_host} could replay and discard messages; have people log in, or listen on "
            "127.0.0.1",
        )
    shown = urlsplit(console_url).hostname or ""
    if console_url and not is_loopback(shown) and not console_tokens_file and not console_proxy_header:
        yield Conflict(
            ("console_url", "console_tokens_file", "console_proxy_header"),
            f"whoever reaches {shown} comes through a proxy on this machine and would count as somebody at it; have "
            "people log in, or leave the address out",
        )
    if not is_loopback(console_host) and not console_url:
        yield Conflict(
            ("console_host", "console_url"),
            "a console that others reach answers only to the address that people type; say which (https, at a proxy)",
        )
    if bool(console_proxy_header) != bool(console_proxy_from):
        yield Conflict(
            ("console_proxy_header", "console_proxy_from"),
            "a header is only believed from addresses that are named: set both, or neither",
        )
    if console_url.startswith("http:") and not is_loopback(shown):
        yield Conflict(
            ("console_url",), "tokens and cookies would cross the network unencrypted; use https (at a reverse proxy)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. Of names, only ``localhost`` is believed."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
