"""Logs: one line per event, known by name, without secrets, and never in the way of the work."""

import ast
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

import worker
from worker.core.settings import LogFormat, LogLevel, LogSettings
from worker.telemetry import COMMON_FIELDS, EVENTS, LONGEST_TEXT, configure

SOURCES = Path(worker.__file__).parent
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
MADE_BY_TELEMETRY = {"library.message"}  # the name is put on records of libraries, nobody calls it


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Logging is global: put back what these tests change."""
    root, names = logging.getLogger(), ("aio_pika", "aiormq", "gql", "asyncio")
    level, handlers, raising = root.level, list(root.handlers), logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.raiseExceptions = raising
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def capture(
    level: LogLevel = LogLevel.DEBUG, form: LogFormat = LogFormat.JSON, secrets: tuple[str, ...] = ()
) -> io.StringIO:
    """Configure logging into a text."""
    stream = io.StringIO()
    configure(LogSettings(format=form, level=level, secrets=secrets), stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The events in ``stream``."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_event_is_one_json_line_with_utc_time_level_and_fields() -> None:
    """A program can read the log line by line."""
    stream = capture()

    structlog.get_logger().info("broker.connected", url="amqp://host/", wait_s=1.5, order_id=2**60)

    [event] = lines(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info", "event": "broker.connected", "url": "amqp://host/", "wait_s": 1.5, "order_id": 2**60,
    }  # fmt: skip


def test_console_format_is_for_people() -> None:
    """The console format has name and fields on one line, and no JSON."""
    stream = capture(form=LogFormat.CONSOLE)

    structlog.get_logger().warning("call.failed", status=503)

    assert "call.failed" in stream.getvalue()
    assert "status=503" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_events_below_the_level_are_not_written() -> None:
    """LOG_LEVEL holds for our events and for those of libraries."""
    stream = capture(LogLevel.WARNING)

    structlog.get_logger().info("broker.connected")
    logging.getLogger("somebody").info("hello")

    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", LogFormat)
def test_secrets_are_masked_wherever_they_are(form: LogFormat) -> None:
    """Keys, nested keys, addresses, bearer tokens, exceptions with tracebacks, and known secrets in any text."""
    stream = capture(form=form, secrets=("hunter2",))
    log = structlog.get_logger()

    log.info("worker.starting", token="abcd-1", client_secret="abcd-2", url="amqp://u:abcd/3@host/", body=b"abcd-4")
    log.info(
        "worker.starting", nested={"Authorization": "Bearer abcd-5", "texts": ["x hunter2 y", ("access_token=abcd-6",)]}
    )
    try:
        raise ValueError('{"access_token": "abcd-7"} Bearer abcd-8 hunter2 amqp://u:abcd-9@host')
    except ValueError as error:
        log.exception("call.failed", error=error)
    logging.getLogger("library").error("password=abcd-0 %s", "hunter2", exc_info=ValueError("hunter2"))

    assert "***" in stream.getvalue()
    assert "abcd" not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_numbers_about_secrets_are_shown() -> None:
    """The age of a token is no secret."""
    stream = capture()

    structlog.get_logger().debug("token.fetched", token_age_s=12.5, body=17)

    assert lines(stream)[0]["token_age_s"] == 12.5
    assert lines(stream)[0]["body"] == 17


def test_tracebacks_do_not_show_local_variables() -> None:
    """A payload in a local variable stays out of the log."""
    stream = capture()
    payload = "customer" + "-data"
    try:
        raise RuntimeError(len(payload))
    except RuntimeError:
        structlog.get_logger().exception("call.failed")

    assert "RuntimeError: 13" in lines(stream)[0]["exception"]
    assert "customer-data" not in stream.getvalue()


def test_long_texts_are_cut_after_masking() -> None:
    """A library that puts megabytes into a message costs one bounded line, and no half secret survives at the cut."""
    stream = capture()

    structlog.get_logger().info(
        "call.failed", detail="x" * (LONGEST_TEXT - 12) + " amqp://user:abcdefgh@host" + "y" * 10**6
    )

    assert len(stream.getvalue()) < LONGEST_TEXT + 200
    assert "abcd" not in stream.getvalue()


def test_deep_and_odd_values_are_bounded_and_rendered() -> None:
    """Nothing a caller passes can break the line."""
    stream = capture()
    deep: dict[str, Any] = {}
    deep["deep"] = deep

    structlog.get_logger().info(
        "call.failed", deep=deep, odd={1: {2}}, level_=LogLevel.INFO, bad="\ud800", error=KeyError("k")
    )

    assert lines(stream)[0]["odd"] == {"1": [2]}
    assert lines(stream)[0]["level_"] == "info"
    assert lines(stream)[0]["error"] == "KeyError: 'k'"


def test_library_records_become_events_of_the_same_form() -> None:
    """Records of libraries are rendered like ours, under one event name."""
    stream = capture()

    logging.getLogger("somebody.else").warning("lost %d of %s", 3, "amqp://u:abcd@h")

    event = lines(stream)[0]
    assert event["event"] == "library.message"
    assert event["logger"] == "somebody.else"
    assert event["text"] == "lost 3 of amqp://u:***@h"
    assert event["level"] == "warning"


def test_a_record_with_wrong_arguments_is_written_raw() -> None:
    """A faulty log call inside a library neither raises nor prints its arguments."""
    stream = capture()

    logging.getLogger("somebody").error("bad %d", "secret-argument")

    assert lines(stream)[0]["text"] == "bad %d"
    assert "secret-argument" not in stream.getvalue()


@pytest.mark.parametrize("name", ["gql.transport.aiohttp", "aiormq.connection", "aio_pika.exchange"])
def test_payload_printing_loggers_stay_at_info(name: str) -> None:
    """At DEBUG these libraries print variables, bodies and headers."""
    stream = capture(LogLevel.DEBUG)

    logging.getLogger(name).debug("body")
    logging.getLogger(name).info("shown")

    assert [event["text"] for event in lines(stream)] == ["shown"]


@pytest.mark.parametrize(
    ("logger", "level", "message"),
    [
        ("aiormq.connection", logging.ERROR, "Unexpected connection close from remote, reply_code=320"),
        ("aiormq.connection", logging.WARNING, "Cancelling cause reader exited abnormally"),
        ("aio_pika.tools", logging.ERROR, "Callback <f> error: ChannelInvalidStateError: "),
    ],
)
def test_misleading_errors_of_libraries_are_told_at_info(logger: str, level: int, message: str) -> None:
    """After a lost connection the libraries call their own cleaning up an error; ours is the line that counts."""
    stream = capture()

    logging.getLogger(logger).log(level, message, exc_info=ValueError("trace"))

    [event] = lines(stream)
    assert event["level"] == "info"
    assert event["told_as"] == logging.getLevelName(level).lower()
    assert "exception" not in event


def test_real_errors_of_libraries_stay_errors() -> None:
    """Only the known misleading lines are relabelled."""
    stream = capture()

    logging.getLogger("aiormq.channel").error("Consumer callback failed")
    logging.getLogger("aio_pika.tools").error("Callback <f> error: KeyError: 'x'")

    assert [event["level"] for event in lines(stream)] == ["error", "error"]


def test_configuring_again_replaces_the_former_output() -> None:
    """Twice configured is not twice written."""
    first = capture()
    second = capture()

    logging.getLogger("somebody").error("once")
    structlog.get_logger().error("journal.failed")

    assert first.getvalue() == ""
    assert len(lines(second)) == 2


class Full(io.StringIO):
    """A stderr whose reader is gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_broken_stderr_harms_nobody() -> None:
    """The worker outlives its log collector."""
    configure(LogSettings(format=LogFormat.JSON, level=LogLevel.INFO), stream=Full())

    structlog.get_logger().info("worker.ready")
    logging.getLogger("somebody").error("lost")


# -- the table and the sources ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogCall:
    """A call of a logger in the sources; several names where the name is a variable of the function."""

    place: str
    names: frozenset[str]
    level: str
    fields: frozenset[str]


def _is_logger(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lstrip("_") in {"log", "logger"}


def _names(call: ast.Call, function: ast.AST) -> frozenset[str]:
    """The literal name; for a variable, every literal that the same function assigns to it."""
    match call.args:
        case [ast.Constant(value=str(name))]:
            return frozenset({name})
        case [ast.Name(id=variable)]:
            assigned = [
                constant.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == variable for t in node.targets)
                for constant in ast.walk(node.value)
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
            ]
            return frozenset(assigned)
        case _:
            return frozenset()


def log_calls() -> list[LogCall]:
    """Every call of a logger under ``worker/``."""
    found: dict[tuple[str, int, int], LogCall] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in [tree, *functions]:
            for node in ast.walk(function):
                match node:
                    case ast.Call(func=ast.Attribute(attr=attr, value=value)) if attr in LEVELS and _is_logger(value):
                        place = f"{path.relative_to(SOURCES)}:{node.lineno}"
                        fields = frozenset(keyword.arg for keyword in node.keywords if keyword.arg) - {"exc_info"}
                        call = LogCall(place, _names(node, function), LEVELS[attr], fields)
                        found[place, node.lineno, node.col_offset] = call  # the innermost function comes last
                    case _:
                        pass
    return list(found.values())


def test_every_logged_event_is_in_the_table() -> None:
    """Who reads the table knows every line that the program can write; names are literals so that this can be seen."""
    strangers = [f"{call.place}: {sorted(call.names) or 'name is no literal'}" for call in log_calls()
                 if not call.names or not call.names <= EVENTS.keys()]  # fmt: skip

    assert strangers == []


def test_every_event_of_the_table_is_logged() -> None:
    """The table promises no line that nobody writes."""
    logged = {name for call in log_calls() for name in call.names}

    assert sorted(EVENTS.keys() - logged - MADE_BY_TELEMETRY) == []


def test_events_are_logged_at_the_level_and_with_the_fields_of_the_table() -> None:
    """Level and fields of an event are the same wherever it is logged."""
    wrong = []
    for call in log_calls():
        for name in call.names & EVENTS.keys():
            event = EVENTS[name]
            strange = call.fields - set(event.fields) - set(COMMON_FIELDS)
            if event.level != call.level or strange:
                wrong.append(f"{call.place}: {name} at {call.level}, fields not in the table: {sorted(strange)}")

    assert wrong == []


def test_no_event_has_a_field_for_payloads_or_secrets() -> None:
    """What must not be logged has no place in the table."""
    forbidden = {"body", "payload", "variables", "headers", "token", "client_secret", "password", "authorization"}

    assert {name for name, event in EVENTS.items() if forbidden.intersection(event.fields)} == set()
