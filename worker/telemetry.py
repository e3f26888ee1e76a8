"""Logging: one line per event, by name and fields, on stderr; and the table of all events.

A call is ``log.info("broker.connected", url=...)``: the name is a literal of ``EVENTS``, the level is the one given
there, and the fields are among the ones given there. A test reads the sources and holds the calls against the table.
Successes of single messages are silent or debug; every failure carries reason, order id, attempt and batch id where it
has them (``COMMON_FIELDS``, which any event may carry).
Payloads, tokens and secrets are never passed in; what slips through inside a text is masked here.

Records of libraries go through the same renderer as the event ``library.message``.

The table of all metrics, ``METRICS``, is here as well; it is kept in ``metrics.py``.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from worker.core.masking import MASK, is_secret_key, mask_text
from worker.core.settings import LogFormat, LogSettings
from worker.metrics import METRICS as METRICS

LONGEST_TEXT = 2_000  # characters; libraries put whole bodies into their messages
LONGEST_TRACEBACK = 12_000
DEEPEST = 4  # levels of nesting that are shown

# At DEBUG these print variables, bodies and headers of messages.
NOISY = ("aio_pika", "aiormq", "gql", "asyncio")

# After a lost connection the AMQP libraries report their own cleaning up as errors: callbacks that ran into the closed
# channel, a reader that ended, a planned close (320) by the broker. The worker says what happened itself
# (broker.connection_lost), so these are told at info and without traceback.
MISLEADING = (
    ("aio_pika", re.compile(r"Callback .*(ChannelInvalidStateError|RuntimeError|ChannelClosed|ConnectionClosed)")),
    ("aiormq.connection", re.compile(r"Unexpected connection close|Cancelling cause reader exited|Server connection ")),
    ("aiormq.connection", re.compile(r"Got frame for closed channel|It looks like you are going to send a frame")),
    ("aiormq.connection", re.compile(r"error when creating transport")),
    ("aiormq.channel", re.compile(r"Closing channel .* because RPC call")),
)

_BODY_KEYS = frozenset({"body", "payload", "variables", "headers"})
_TEXT_LIMITS = {"exception": LONGEST_TRACEBACK, "stack": LONGEST_TRACEBACK}

Level = Literal["debug", "info", "warning", "error"]
COMMON_FIELDS = ("reason", "detail", "order_id", "attempt", "batch_id", "error")


@dataclass(slots=True, frozen=True)
class Event:
    """One kind of line: how important it is, what it means, and which fields it has beside the common ones."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()


EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        # the process
        "worker.starting": Event(
            "info", "The settings are good; connecting.", ("version", "queue", "prefetch", "url", "event_loop")
        ),
        "worker.restricted": Event(
            "warning", "Only ALLOW_ORDERS are sent; events of all other orders become dead letters.", ("orders",)
        ),
        "tracing.started": Event("info", "Spans go to an OpenTelemetry collector."),
        "worker.ready": Event("info", "Consuming; the platform was not asked yet.", ("queue",)),
        "worker.draining": Event(
            "info",
            "Asked to stop: no more intake; what is there is sent.",
            ("signal", "grace_s", "unsettled", "in_flight"),
        ),
        "worker.stopped": Event(
            "info", "All is settled or handed back. Has the counters of this run.", ("took_s", "counts")
        ),
        "worker.paused": Event(
            "warning", "Stopped by a person, here or at another worker of the queue; only a resume by hand ends that."
        ),
        "worker.resumed": Event("info", "A person ended the pause, here or at another worker."),
        "storm.paused": Event(
            "error", "Too many dead letters in a row; nothing more is dead-lettered until a person looks and resumes."
        ),
        "watchdog.stalled": Event("error", "Nothing moves, and no outage explains it; not ready until it does."),
        "watchdog.rebuilding": Event(
            "error", "The finding stayed: every connection to the broker is dropped and made anew."
        ),
        "watchdog.rebuild_failed": Event("error", "That did not work either; liveness fails next."),
        "watchdog.gave_up": Event("error", "It did not help: liveness fails, and somebody should restart the worker."),
        "watchdog.moving": Event("info", "What the watchdog found is over."),
        "admin.listening": Event("info", "The admin interface answers.", ("url",)),
        "worker.forced_exit": Event("warning", "A second signal: leaving at once; the broker redelivers.", ("signal",)),
        "admin.unavailable": Event("warning", "The default ADMIN_PORT is taken; going on without the interface."),
        "config.unknown_variable": Event(
            "warning", "A variable with our prefix that nothing reads.", ("variable", "hint")
        ),
        # the broker
        "broker.connected": Event("info", "The connection is open.", ("connection", "url")),
        "broker.unreachable": Event("warning", "No connection; tried again.", ("connection", "next_try_s")),
        "broker.decoder_unknown": Event(
            "warning", "Not the AMQP library we know: a property it cannot read blocks the queue.", ("version",)
        ),
        "broker.lane_ordinary": Event(
            "warning", "Not the AMQP library we know: deliveries come its way, at many times the cost.", ("connection",)
        ),
        "broker.lane_left": Event(
            "warning", "The broker's bytes were not as expected: deliveries come the AMQP library's way from here on."
        ),
        "broker.refused": Event(
            "warning", "The broker refuses; a person has to look. Tried again.", ("queue", "next_try_s")
        ),
        "broker.channel_gone": Event("info", "Unsettled deliveries come again.", ("generation", "unsettled")),
        "broker.close_failed": Event("info", "Closing got no answer; dropped without it.", ("connection",)),
        "broker.consuming": Event("info", "The broker confirmed the consumer.", ("queue", "generation", "lane")),
        "broker.standing_by": Event("info", "Another worker's partition: it registers first.", ("queue", "delay_s")),
        "broker.widened": Event("debug", "The consumer got its whole prefetch.", ("generation", "prefetch", "took_s")),
        "broker.narrowed": Event(
            "warning", "A message came back so often that it is handled alone.", ("generation", "returns", "unsettled")
        ),
        "broker.not_consuming": Event("warning", "No consumer; tried again.", ("queue", "next_try_s")),
        "broker.keeper_failed": Event("error", "A fault of ours in the task that keeps the consumer."),
        "broker.delivery_failed": Event("error", "A fault of ours while taking in a delivery.", ("generation",)),
        "broker.copy_reduced": Event("warning", "A copy went out without its own headers, with a note.", ("target",)),
        "broker.copy_failed": Event("error", "A copy was not confirmed; its original stays unsettled.", ("wait_s",)),
        "broker.not_renewed": Event(
            "warning", "Messages near the delivery limit could not be copied before their release.", ("messages",)
        ),
        "topology.switching": Event("info", "The exchange in front of the work queues is made anew.", ("name",)),
        "topology.unverified": Event(
            "info", "Its arguments, or even its existence, could not be checked.", ("name", "why")
        ),
        # the journal
        "journal.unavailable": Event(
            "error", "The journal does not answer: no call starts, nothing is acknowledged.", ("attempt", "next_try_s")
        ),
        "journal.available": Event("info", "The journal answers again."),
        "journal.pruned": Event("info", "What is older than the retention was forgotten.", ("rows", "days")),
        "journal.not_pruned": Event("warning", "The journal was away when it was to be pruned; tried again later."),
        "pauses.unknown": Event(
            "warning", "The journal does not say whether the queue is paused; this worker goes by what it knows."
        ),
        "pauses.not_shared": Event(
            "warning", "Paused or resumed here; the other workers follow when the journal answers."
        ),
        "echo.postponed": Event("info", "The journal does not say which orders are owed an echo; asked again soon."),
        "echo.given_up": Event("warning", "The platform refuses to be sent an order's known values again."),
        # a dry run
        "dryrun.started": Event(
            "info", "Copies of what producers publish are read from now on.", ("queue", "exchange")
        ),
        "dryrun.call": Event(
            "info", "This call would be sent: the fields of each order, without values.", ("orders", "sends")
        ),
        "dryrun.needless": Event("info", "This event would need no call: the platform has its values or later ones."),
        "dryrun.queue_left": Event(
            "info", "The queue of copies could not be deleted; it goes by itself.", ("queue", "expires_s")
        ),
        # calls and messages
        "batch.sent": Event("debug", "A call starts.", ("orders", "why")),
        "batch.settled": Event("debug", "A call and everything in it is settled.", ("orders", "took_s")),
        "call.failed": Event("warning", "A call was not answered with success.", ("orders", "status", "took_s")),
        "order.suspect": Event("warning", "An order was refused alone; asked once more after something else succeeds."),
        "message.retry": Event("warning", "A copy went to a retry queue."),
        "message.dead": Event("warning", "A copy went to the dead-letter queue."),
        # the platform
        "platform.hold": Event("error", "Calls are held back; messages stay in memory.", ("wait_s",)),
        "platform.paused": Event("error", "Consuming stopped, messages handed back; probing.", ("wait_s", "after_s")),
        "platform.probe_failed": Event("info", "The platform is still not usable.", ("attempt",)),
        "platform.recovered": Event("info", "The platform answers again; consuming goes on.", ("after_s",)),
        "token.fetched": Event("debug", "A new access token.", ("lifetime_s",)),
        # producers' side
        "publish.failed": Event("error", "Publishing stopped; it can be resumed.", ("line", "confirmed")),
        "publish.waiting": Event(
            "warning", "Not confirmed; sent again under the same message ids.", ("unconfirmed", "next_try_s")
        ),
        "publish.resumed": Event("info", "Going on behind the last confirmed line.", ("line",)),
        "replay.waiting": Event(
            "warning", "Broker or journal are away; the replay goes on when they are back.", ("next_try_s",)
        ),
        # the console
        "console.listening": Event("info", "The console answers.", ("url",)),
        "console.deed": Event("info", "Somebody did something.", ("who", "deed", "outcome", "target", "count")),
        "console.refused": Event("warning", "Somebody was refused.", ("who", "target")),
        "console.deed_not_kept": Event("warning", "The journal was away: only the log has that deed."),
        "console.people_unreadable": Event("error", "CONSOLE_TOKENS_FILE cannot be read any more; the old one holds."),
        "console.worker_away": Event("warning", "A worker could not be asked to pause or to resume.", ("url",)),
        "console.look_failed": Event("error", "A fault of ours while looking at workers and queues."),
        "console.work_failed": Event("error", "A fault of ours in a replay, export, discard or plan.", ("work",)),
        "console.failed": Event("error", "A fault of ours while making a page.", ("place",)),
        # everybody else
        "library.message": Event("info", "A library said something; at its own level.", ("logger", "text", "told_as")),
    }
)


def configure(logs: LogSettings, *, stream: TextIO | None = None) -> None:
    """Send structlog's events and all records of libraries to ``stream`` (stderr). May be repeated."""
    lines = _Lines(stream)
    tail: list[Processor] = [_Masking(logs.secrets), _renderer(logs.format, lines)]
    head: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # plain tracebacks: the pretty ones print local variables
    ]
    level = logging.getLevelNamesMapping()[logs.level.upper()]
    structlog.configure(
        processors=[*head, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_library_message, *head],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
    )
    _route_libraries(_LibraryHandler(lines, formatter), level)


def _renderer(kind: LogFormat, lines: "_Lines") -> Processor:
    match kind:
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer(serializer=json.dumps)
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(
                colors=lines.is_terminal, exception_formatter=structlog.dev.plain_traceback
            )


def _route_libraries(handler: "_LibraryHandler", level: int) -> None:
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _LibraryHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
    # With it, a record that cannot be formatted would print its arguments, whatever they are, to stderr.
    logging.raiseExceptions = False


class _Lines:
    """Writes one line per event. A stderr that is full or gone must not stop the worker, so the line is lost."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def is_terminal(self) -> bool:
        return (self._stream or sys.stderr).isatty()

    def line(self, text: str) -> None:
        # stderr is looked up at each line: tests and supervisors replace it.
        stream = self._stream or sys.stderr
        try:
            stream.write(text + "\n")
            stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = msg = line


class _LibraryHandler(logging.Handler):
    """Records of libraries, relabelled where they mislead, in the format of everything else."""

    def __init__(self, lines: _Lines, formatter: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(record)
        except Exception:  # noqa: BLE001 - wrong arguments of a record must not harm the code that logged it
            self._write(logging.makeLogRecord(record.__dict__ | {"args": (), "exc_info": None}))

    def _write(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.INFO and _misleads(record):
            record = _at_info(record)
        if record.levelno >= logging.getLogger().level:
            self._lines.line(self.format(record))


def _misleads(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return any(record.name.startswith(logger) and pattern.match(text) for logger, pattern in MISLEADING)


def _at_info(record: logging.LogRecord) -> logging.LogRecord:
    relabelled = logging.makeLogRecord(record.__dict__ | {"exc_info": None, "told_as": record.levelname.lower()})
    relabelled.levelno, relabelled.levelname = logging.INFO, "INFO"
    return relabelled


def _library_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["text"], event["event"], event["logger"] = event["event"], "library.message", record.name
    if told_as := getattr(record, "told_as", None):
        event["told_as"] = told_as
    return event


class _Masking:
    """The last look at an event before it is rendered: hides secrets, cuts long texts, makes everything plain data."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> EventDict:
        shown = {key: self._shown(key, event[key]) for key in ("timestamp", "level", "event") if key in event}
        return shown | {key: self._shown(key, value) for key, value in event.items()}

    def _shown(self, key: str, value: object, depth: int = 0) -> object:
        match value:
            case None | bool() | int() | float() if not isinstance(value, Enum):
                return value
            case _ if is_secret_key(key) or key in _BODY_KEYS:
                return MASK
            case Mapping() if depth < DEEPEST:
                return {str(name): self._shown(str(name), item, depth + 1) for name, item in value.items()}
            case list() | tuple() | set() | frozenset() if depth < DEEPEST:
                return [self._shown(key, item, depth + 1) for item in value]
            case BaseException():
                return self._text(key, f"{type(value).__name__}: {value}")
            case _:
                return self._text(key, str(value))

    def _text(self, key: str, text: str) -> str:
        # Cut twice: masking megabytes takes too long, and half a secret at the cut would no longer be recognised.
        limit = _TEXT_LIMITS.get(key, LONGEST_TEXT)
        masked = mask_text(text[: 2 * limit], self._secrets)
        return masked if len(masked) <= limit else masked[: limit - 1] + "…"
