"""``order-worker dead``: what is in the dead-letter queue and why, without changing it."""

import asyncio
import base64
import getpass
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.deadletters import LIMIT_AT, WINDOW, DeadLetterQueue, Look, Receive
from worker.adapters.amqp.topology import QueueSpec, planned
from worker.cli.config import WIDTH, start
from worker.config import Settings
from worker.core.deadletter import DeadLetter, Group, Groups, Wanted
from worker.core.errors import ConnectionLost, QueueMissing
from worker.core.model import Properties
from worker.core.table import readable
from worker.core.times import format_time

WAIT_S = 30.0

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Look even if the queue may drop messages that were seen too often.")]
MessageId = Annotated[str | None, typer.Option(metavar="M", help="Only this message id, the producer's or the copy's.")]
Order = Annotated[int | None, typer.Option(metavar="ID", help="Only dead letters of this order.")]
OfReason = Annotated[str | None, typer.Option("--reason", metavar="R", help="Only this reason, as `list` prints it.")]
Limit = Annotated[int, typer.Option(min=1, help="Most dead letters to show.")]
WithBody = Annotated[bool, typer.Option("--body", help="Show the bodies, too.")]

dead = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look into the dead-letter queue. The messages stay where they are; each look costs one delivery count.",
)


@dead.command("list")
def list_(*, as_json: AsJson = False, yes: Yes = False) -> None:
    """Count the dead letters by reason, with the oldest, the newest, and the detail of the newest."""
    settings = start()
    groups = Groups()

    def receive(letter: DeadLetter) -> bool:
        groups.add(letter)
        return True

    look = _look(settings, receive, worn_too=yes)
    if as_json:
        found = [_group_json(group) for group in groups.by_count()]
        print(json.dumps(_about(settings, look) | {"groups": found}, indent=2))
    elif look.seen:
        _print_groups(groups.by_count())
    _finish(settings, look)


@dead.command("show")
def show(
    *,
    message_id: MessageId = None,
    order: Order = None,
    reason: OfReason = None,
    limit: Limit = 10,
    body: WithBody = False,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Show dead letters, oldest first: why and when they failed, where they came from, headers and bodies."""
    settings = start()
    wanted = Wanted(message_id=message_id, order_id=order, reason=reason)
    shown: list[dict[str, Any]] = []

    def receive(letter: DeadLetter) -> bool:
        if wanted.matches(letter):
            shown.append(_letter_json(letter, body=body))
        return len(shown) < limit

    look = _look(settings, receive, first=limit if wanted.anything else WINDOW, worn_too=yes)
    if as_json:
        print(json.dumps(_about(settings, look) | {"letters": shown}, indent=2))
    else:
        for letter in shown:
            _print_letter(letter)
        if look.seen and not shown:
            print(f"none of the {look.seen} dead letters matches")
    _finish(settings, look)


# -- the look ---------------------------------------------------------------------------------------------------------


def _look(settings: Settings, receive: Receive, *, first: int = WINDOW, worn_too: bool) -> Look:
    try:
        return asyncio.run(
            _at_the_broker(
                settings, lambda queue: queue.look(receive, holder=this_tool(), first=first, worn_too=worn_too)
            )
        )
    except QueueMissing as missing:
        raise QueueMissing(f"{missing}: the worker makes it when it starts (TOPOLOGY=declare)") from None


async def _at_the_broker(settings: Settings, look: Callable[[DeadLetterQueue], Awaitable[Look]]) -> Look:
    broker = settings.broker
    link = Link(Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s), name="order-worker dead")
    try:
        async with asyncio.timeout(WAIT_S):
            await link.get()
        return await look(DeadLetterQueue(link, _spec(settings)))
    except TimeoutError:
        raise ConnectionLost(f"no broker within {WAIT_S:g} s") from None
    finally:
        await link.close()


def this_tool() -> str:
    """Who takes the dead letters, for whoever finds them taken."""
    return f"{getpass.getuser()}@{socket.gethostname()}, order-worker dead, process {os.getpid()}"


def _spec(settings: Settings) -> QueueSpec:
    plan = planned(settings.broker)
    return next(queue for queue in plan.queues if queue.name == plan.dead_queue)


def _finish(settings: Settings, look: Look) -> None:
    """What a person should know besides the result. Exit code 1 where the look was refused."""
    queue = settings.dead_letter_queue
    if look.worn:
        _say(
            f"stopped: a message of {queue!r} was handed out {look.worn} times before, and the queue is not declared "
            "as ours: its delivery limit may be 20, and beyond it the broker drops. Each look costs one, this one did "
            f"too. From {LIMIT_AT} on --yes is needed; `rabbitmqctl list_queues name arguments policy` shows the limit"
        )
        raise typer.Exit(1)
    if not look.there:
        held = f"; {look.consumers} other consumers may hold some" if look.consumers else ""
        _say(f"{queue!r} has no dead letters{held}")
        return
    if look.consumers:
        _say(f"{look.consumers} other consumers are at {queue!r}: what they hold is not shown")
    _say("everything is back in its place; the look cost one delivery count of what was looked at")


def _say(text: str) -> None:
    print(f"order-worker: {text}", file=sys.stderr)


# -- as JSON ----------------------------------------------------------------------------------------------------------


def _about(settings: Settings, look: Look) -> dict[str, Any]:
    return {"queue": settings.dead_letter_queue, "messages": look.there, "seen": look.seen}


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "reason": group.reason,
        "count": group.count,
        "oldest": _time(group.oldest_us),
        "newest": _time(group.newest_us),
        "example": group.example,
    }


def _time(micros: int | None) -> str | None:
    return None if micros is None else format_time(micros)


def _letter_json(letter: DeadLetter, *, body: bool) -> dict[str, Any]:
    history, properties = letter.history, letter.delivery.properties
    shown = {
        "reason": letter.reason,
        "detail": letter.detail,
        "failed_at": _time(letter.failed_us),
        "order_id": letter.order_id,
        "message_id": letter.message_id or None,
        "copy_id": properties.message_id,
        "exchange": history.exchange if history.exchange is not None else letter.delivery.exchange,
        "routing_key": letter.routing_key,
        "attempts": history.attempt,
        "first_seen": _time(history.first_seen_us),
        "occurred_at": _time(history.occurred_us),
        "sequence": history.sequence,
        "batch_id": history.batch_id,
        "worker": history.worker,
        "replay_id": history.replay_id,
        "deliveries": letter.deliveries,
        "deaths": readable([dict(death) for death in letter.deaths]),
        "original": readable(history.original),
        "dropped": list(history.dropped),
        "properties": _properties_json(properties),
        "headers": readable({**properties.headers}),
        "size": len(letter.delivery.body),
    }
    return shown | (_body_json(letter.delivery.body) if body else {})


def _properties_json(properties: Properties) -> dict[str, Any]:
    names = ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "timestamp")
    more = ("expiration", "message_type", "user_id", "app_id")
    values = {name: getattr(properties, name) for name in (*names, *more)}
    return {
        name: value.isoformat() if isinstance(value, datetime) else readable(value)
        for name, value in values.items()
        if value is not None
    }


def _body_json(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


# -- for people -------------------------------------------------------------------------------------------------------


def _print_groups(groups: list[Group]) -> None:
    table = Table("Reason", "Count", "Oldest", "Newest", "Detail of the newest")
    for group in groups:
        table.add_row(
            group.reason,
            str(group.count),
            _time(group.oldest_us) or "?",
            _time(group.newest_us) or "?",
            _on_one_line(group.example),
        )
    # What comes out of headers is data: neither markup nor emoji codes are meant.
    width = None if sys.stdout.isatty() else WIDTH
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)


def _print_letter(letter: dict[str, Any]) -> None:
    print(f"{letter['failed_at'] or 'at an unknown time'}  {letter['reason']}  order {letter['order_id'] or 'unknown'}")
    for name, value in letter.items():
        if name not in {"failed_at", "reason", "order_id"} and value not in (None, {}, [], ""):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"  {name}: {_on_one_line(text)}")
    print()


def _on_one_line(text: str) -> str:
    """Foreign text may hold control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
