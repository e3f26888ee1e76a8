"""Replays by way of a file: planned letters are written out, and come back as somebody edited them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from worker.core.deadletter import DeadLetter, letter_key, read_dead_letter
from worker.core.decode import is_cloud_event
from worker.core.errors import UsageError
from worker.core.forecast import Grounds, Tallies
from worker.core.history import Replay, ReplayItem
from worker.core.letterfile import FiledLetter, exchange_of, letter_line, read_letter
from worker.core.model import Delivery
from worker.core.times import parse_time
from worker.deadletters import LetterSink
from worker.ports import Taking
from worker.replay.books import Books, State
from worker.replay.judging import Preparing
from worker.replay.planning import Plan

LINES: Final = 500
"""Letters in memory at a time."""
GREATEST_BODY: Final = 128 * 1024 * 1024
"""Bytes of the greatest message that a broker takes: before 4.0; from then on 16 MiB unless its settings say more."""
LONGEST: Final = 4 * (GREATEST_BODY // 3 + 1) + 16 * 1024 * 1024
"""Bytes of a line: the greatest body as base64, and what the rest can become (headers of 128 KiB, see
``letterfile.LONGEST_SHOWN`` for what else there is of a body)."""
PORTION_BYTES: Final = 16 * 1024 * 1024
"""Bytes of lines in memory at a time; one line may be longer than that."""


class LetterFile:
    """The letters of a file. Blank lines do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def digest(self) -> str:
        """SHA-256 of the file, so that a resume can insist on the same one. Raises UsageError."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from None

    def portions(self, most: int = LINES) -> Iterator[Sequence[FiledLetter]]:
        """The letters in their order, at most ``most`` at a time and few where they are long. Raises UsageError, which
        names the line that is wrong."""
        portion: list[FiledLetter] = []
        size = 0
        for number, line in self._lines():
            if portion and (len(portion) >= most or size + len(line) > PORTION_BYTES):
                yield portion
                portion, size = [], 0
            portion.append(read_letter(line, number))
            size += len(line)
        if portion:
            yield portion

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            lines = iter(partial(file.readline, LONGEST + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > LONGEST:
                    raise UsageError(f"line {number}: longer than {LONGEST} bytes, so it is no dead letter")
                if line.strip():
                    yield number, line


def letter_of(filed: FiledLetter) -> DeadLetter:
    """The letter as it would be in the queue, if it had been edited there.

    Where an edited event says another time or sequence than our headers, the headers go: they outrank the event.
    """
    headers = {name: value for name, value in filed.properties.headers.items() if name not in _outdated(filed)}
    delivery = Delivery(
        generation=0,
        tag=0,
        body=filed.body,
        properties=structs.replace(filed.properties, headers=headers),
        exchange=filed.exchange,
        routing_key=filed.routing_key,
    )
    letter = read_dead_letter(delivery)
    if (exchange_of(letter), letter.routing_key) == (filed.exchange, filed.routing_key):
        return letter
    history = replace(letter.history, exchange=filed.exchange, routing_key=filed.routing_key)
    return replace(letter, history=history, routing_key=filed.routing_key)


def _outdated(filed: FiledLetter) -> set[str]:
    event = _event(filed) if filed.edited else None
    if event is None:
        return set()
    headers = filed.properties.headers
    occurred, known = event.get("occurred_at"), headers.get("ow-occurred-at")
    outdated = set()
    if isinstance(occurred, str) and isinstance(known, str) and parse_time(occurred) != parse_time(known):
        outdated.add("ow-occurred-at")
    if "sequence" in event and event["sequence"] != headers.get("ow-sequence"):
        outdated.add("ow-sequence")
    return outdated


def _event(filed: FiledLetter) -> dict[str, Any] | None:
    try:
        whole: Any = json.loads(filed.body)
    except (ValueError, RecursionError):
        return None
    if is_cloud_event(filed.properties.content_type) and isinstance(whole, dict):
        data = whole.get("data")
        stamped = {"occurred_at": whole["time"]} if "time" in whole else {}
        whole = {**stamped, **data} if isinstance(data, dict) else None
    return whole if isinstance(whole, dict) else None


async def plan_file(books: Books, replay: Replay, file: LetterFile, preparing: Preparing, *, grounds: Grounds) -> Plan:
    """Put down a replay of the letters of a file, one place for each. Raises UsageError, JournalUnavailable."""
    for _ in file.portions():  # a bad line is told before anything is written
        pass
    grounds = replace(grounds, allow_terminal=preparing.options.allow_terminal)
    tallies = Tallies()
    place = 0
    await books.begin(replay)
    for portion in file.portions():
        items = [ReplayItem(place=place + number, copy_id=filed.copy_id) for number, filed in enumerate(portion)]
        now_us = replay.created_us
        prepared = [
            preparing.prepare(item, letter_of(filed), now_us=now_us) for item, filed in zip(items, portion, strict=True)
        ]
        orders = list(dict.fromkeys(each.order_id for each in prepared if each.order_id is not None))
        known = await books.known(orders) if orders else {}
        for each in prepared:
            tallies.add(each.letter.reason, each.forecast(known, grounds))
        await books.plan(replay.replay_id, items)
        place += len(items)
    await books.turn(replay.replay_id, State.PLANNED, wall_us=replay.created_us)
    return Plan(replay=replay, tallies=tallies)


async def export_planned(taking: Taking, books: Books, replay_id: str, sink: LetterSink) -> int:
    """Write the letters of a plan, as they are in the queue; returns how many. They stay where they are."""
    written = 0
    async for window in taking.windows(LINES):
        keyed = [(letter_key(letter), letter) for letter in window]
        found = await books.find(replay_id, list(dict.fromkeys(key for key, _ in keyed)))
        for key, letter in keyed:
            if key in found:
                sink.write(letter_line(letter))
                written += 1
    return written
