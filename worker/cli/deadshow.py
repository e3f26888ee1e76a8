"""``order-worker dead show``: everything that is known of single dead letters."""

import asyncio
import base64
import json
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from worker.adapters.amqp.deadletters import WINDOW, Look
from worker.cli.config import start
from worker.cli.deadlook import finish, looked_at
from worker.cli.deadqueue import AsJson, OfReason, Queue, Worn, on_one_line, print_json, time_or_none
from worker.cli.deadstory import open_journal, story
from worker.config import Settings
from worker.core.deadletter import DeadLetter, Wanted
from worker.core.model import Properties
from worker.core.table import readable

MessageId = Annotated[str | None, typer.Option(metavar="M", help="Only this message id, the producer's or the copy's.")]
Order = Annotated[int | None, typer.Option(metavar="ID", help="Only dead letters of this order.")]
Limit = Annotated[int, typer.Option(min=1, help="Most dead letters to show.")]
WithBody = Annotated[bool, typer.Option("--body", help="Show the bodies, too.")]


def show(
    *,
    message_id: MessageId = None,
    order: Order = None,
    reason: OfReason = None,
    limit: Limit = 10,
    body: WithBody = False,
    queue: Queue = None,
    as_json: AsJson = False,
    yes: Worn = False,
) -> None:
    """Show dead letters, oldest first: why and when they failed, where they came from, headers and bodies.

    With a durable journal also what became of the message before, which values of its order are applied, and so what a
    replay would do.
    """
    settings = start()
    name = queue or settings.dead_letter_queue
    wanted = Wanted(message_id=message_id, order_id=order, reason=reason)
    look, shown = asyncio.run(_show(settings, name, wanted, limit=limit, body=body, worn_too=yes))
    if as_json:
        print_json({"queue": name, "messages": look.there, "seen": look.seen, "letters": shown})
    else:
        for letter in shown:
            _print_letter(letter)
        if look.seen and not shown:
            print(f"none of the {look.seen} dead letters matches")
    finish(name, look)


async def _show(
    settings: Settings, queue: str, wanted: Wanted, *, limit: int, body: bool, worn_too: bool
) -> tuple[Look, list[dict[str, Any]]]:
    """Look first, and ask the journal when everything is back in the queue."""
    found: list[DeadLetter] = []

    def receive(letter: DeadLetter) -> bool:
        if wanted.matches(letter):
            found.append(letter)
        return len(found) < limit

    first = limit if wanted.anything else WINDOW
    async with AsyncExitStack() as stack:
        journal = await open_journal(settings, stack)
        look = await looked_at(
            settings, queue, receive, command="show", first=first, worn_too=worn_too, holders=journal
        )
        shown = [_letter_json(letter, body=body) for letter in found]
        if journal is not None:
            shown = [told | await story(journal, letter, settings) for told, letter in zip(shown, found, strict=True)]
        return look, shown


def _letter_json(letter: DeadLetter, *, body: bool) -> dict[str, Any]:
    history, properties = letter.history, letter.delivery.properties
    shown = {
        "reason": letter.reason,
        "detail": letter.detail,
        "failed_at": time_or_none(letter.failed_us),
        "order_id": letter.order_id,
        "message_id": letter.message_id or None,
        "copy_id": properties.message_id,
        "exchange": history.exchange if history.exchange is not None else letter.delivery.exchange,
        "routing_key": letter.routing_key,
        "attempts": history.attempt,
        "first_seen": time_or_none(history.first_seen_us),
        "occurred_at": time_or_none(history.occurred_us),
        "sequence": history.sequence,
        "batch_id": history.batch_id,
        "worker": history.worker,
        "replay_id": history.replay_id,
        "failures": [asdict(failure) for failure in history.failures],
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


def _print_letter(letter: dict[str, Any]) -> None:
    print(f"{letter['failed_at'] or 'at an unknown time'}  {letter['reason']}  order {letter['order_id'] or 'unknown'}")
    for name, value in letter.items():
        if name not in {"failed_at", "reason", "order_id"} and value not in (None, {}, [], ""):
            for each in value if name == "history" else [value]:
                text = each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
                print(f"  {name}: {on_one_line(text)}")
    print()
