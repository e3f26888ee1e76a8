"""What people fill in for a replay: which changes, where to, how carefully. Empty fields mean what they mean on the
command line."""

from dataclasses import replace
from typing import Any

from multidict import MultiMapping

from worker.config import Settings
from worker.console.selection import Selection
from worker.core.edits import parse_edits
from worker.core.errors import UsageError
from worker.core.replayoptions import Options, parse_rate
from worker.ports import wall_us
from worker.replay.reaching import home_of, schema_of

MOST: int = 1_000_000_000


def options_of(given: MultiMapping[str], settings: Settings, selection: Selection) -> Options:
    """The options of a replay of what is selected, frozen now. Raises UsageError with everything that is wrong."""
    queue, now_us = settings.dead_letter_queue, wall_us()
    sought = selection.sought(queue, now_us)
    edits = tuple(line.strip() for line in given.get("set", "").splitlines() if line.strip())
    parse_edits(edits, schema_of(settings).changes)
    options = Options(
        queue=queue,
        exchange=home_of(settings, queue),
        reason=sought.reason,
        detail=sought.detail,
        order_ids=sought.order_ids,
        message_ids=sought.message_ids,
        since_us=sought.since_us,
        until_us=sought.until_us,
        limit=_whole(given, "limit", least=1),
        edits=edits,
        allow_terminal="allow_terminal" in given,
        keep_superseded="keep_superseded" in given,
    )
    return tempo_of(given, options)


def tempo_of(given: MultiMapping[str], options: Options) -> Options:
    """The options with another tempo. Fields that are not there at all change nothing. Raises UsageError."""
    told: dict[str, Any] = {}
    if "rate" in given:
        told["rate"] = _rate(given["rate"])
    if "canary" in given:
        told["canary"] = _whole(given, "canary") or 0
    if "canary_wait" in given and given["canary_wait"].strip():
        told["canary_wait_s"] = float(_whole(given, "canary_wait") or 0)
    if "max_failures" in given:
        told["max_failures"] = _whole(given, "max_failures")
    return replace(options, **told)


def _rate(text: str) -> float | None:
    if not text.strip():
        return None
    rate = parse_rate(text)
    if rate is None:
        raise UsageError(f"the rate takes copies per second or minute, like 5, 5/s or 30/m, not {text[:40]!r}")
    return rate


def _whole(given: MultiMapping[str], name: str, *, least: int = 0) -> int | None:
    """A whole number; None where the field is empty."""
    text = given.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= MOST):
        raise UsageError(f"{name.replace('_', ' ')} takes a whole number from {least}, not {text[:40]!r}")
    return int(text)
