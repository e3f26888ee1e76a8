"""The command line as its users meet it: output, exit codes, and what it never prints."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli import main
from worker.core.errors import BrokerRefused, ConnectionLost, UsageError

SECRET = "hunter2-planted"


class Program:
    """Runs ``python -m worker`` in an empty directory, with no settings of the machine that runs the tests."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of the program; names are given without prefix."""
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("ORDER_WORKER_")}
        return clean | {f"ORDER_WORKER_{name.upper()}": value for name, value in variables.items()} | {"COLUMNS": "200"}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=self._directory, env=self.environment(**variables),
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start and leave running."""
        return subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=self._directory, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, in a directory of this test."""
    return Program(tmp_path)


def test_config_prints_every_setting_with_its_origin(program: Program) -> None:
    """One look shows what is in use and where it comes from."""
    done = program.run("config", "--json", max_batch="50", client_id="me")

    shown = {row["variable"]: row for row in json.loads(done.stdout)["settings"]}
    assert done.returncode == 0
    assert (shown["ORDER_WORKER_MAX_BATCH"]["value"], shown["ORDER_WORKER_MAX_BATCH"]["origin"]) == (
        "50",
        "environment",
    )
    assert (shown["ORDER_WORKER_LINGER_S"]["value"], shown["ORDER_WORKER_LINGER_S"]["origin"]) == ("0.02", "default")
    assert json.loads(done.stdout)["missing"] == ["ORDER_WORKER_CLIENT_SECRET"]


def test_config_for_people_has_the_same_settings(program: Program) -> None:
    """The table names variables, values and what is missing or unknown; values are not taken for markup."""
    done = program.run("config", extra_fields="a:string", prefech="1", exchange="[bold]x[/bold]")

    assert done.returncode == 0
    assert "ORDER_WORKER_DEAD_LETTER_QUEUE" in done.stdout
    assert "[bold]x[/bold]" in done.stdout
    assert "ORDER_WORKER_CLIENT_ID is not set" in done.stdout
    assert "ORDER_WORKER_PREFECH is no setting; did you mean ORDER_WORKER_PREFETCH?" in done.stdout


@pytest.mark.parametrize("arguments", [("config",), ("config", "--json"), ("topology", "--json"), ("--help",)])
def test_no_command_prints_a_secret(program: Program, arguments: tuple[str, ...]) -> None:
    """Secrets and passwords of addresses are masked in every output."""
    done = program.run(*arguments, client_secret=SECRET, amqp_url=f"amqp://u:{SECRET}@host/,amqp://v:{SECRET}@host")

    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr


def test_wrong_settings_exit_2_with_all_problems(program: Program) -> None:
    """Each problem on a line of stderr, nothing on stdout, no traceback, no password."""
    done = program.run("config", prefetch="x", max_batch="0", amqp_url=f"amqp://u:{SECRET}@host:x/")

    assert done.returncode == 2
    assert done.stdout == ""
    assert [
        name for name in ("PREFETCH:", "MAX_BATCH:", "AMQP_URL:") if f"ORDER_WORKER_{name}" not in done.stderr
    ] == []
    assert len(done.stderr.splitlines()) == 3
    assert SECRET not in done.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("config", "--nonsense"), ("config", "surplus")])
def test_wrong_usage_exits_2(program: Program, arguments: tuple[str, ...]) -> None:
    """A typing error on the command line is told apart from a failure."""
    done = program.run(*arguments)

    assert done.returncode == 2
    assert "Error" in done.stderr


def test_help_names_commands_and_variables(program: Program) -> None:
    """Everything one can set is found from ``--help``, even when the settings are wrong."""
    done = program.run("--help", prefetch="x")

    assert done.returncode == 0
    for word in ("config", "topology", "schema", "simulate", "ORDER_WORKER_RETRY_DELAYS_S", "5,30,120,600"):
        assert word in done.stdout


def test_help_says_which_options_of_a_replay_are_not_kept(program: Program) -> None:
    """A tempo beside --plan or --resume is that run's; the plan keeps its own."""
    done = program.run("dead", "replay", "--help")

    kept_apart = [line for line in done.stdout.splitlines() if "With --plan or --resume: for that run only." in line]
    assert done.returncode == 0
    assert [line.split()[1] for line in kept_apart] == ["--rate", "--canary", "--canary-wait", "--max-failures"]


def test_version_is_that_of_the_distribution(program: Program) -> None:
    """The version in a bug report is the one that runs."""
    done = program.run("--version")

    assert done.returncode == 0
    assert done.stdout.startswith("order-worker ")


def test_topology_follows_the_settings(program: Program) -> None:
    """The names and delays of the settings are those of the printed plan."""
    done = program.run("topology", "--json", queue="q.work", retry_delays_s="1,2.5", delivery_limit="77")

    queues = {queue["name"]: queue["arguments"] for queue in json.loads(done.stdout)["queues"]}
    assert done.returncode == 0
    assert queues["q.work"]["x-delivery-limit"] == 77
    assert {"q.retry.1", "q.retry.2.5", "order-updates.dead"} <= queues.keys()


def test_schema_has_the_extra_fields(program: Program) -> None:
    """Producers see the fields that this installation takes."""
    done = program.run("schema", extra_fields="weight:number")

    assert done.returncode == 0
    assert "weight" in json.loads(done.stdout)["properties"]


def test_asyncapi_names_the_exchange(program: Program) -> None:
    """The AsyncAPI document is for this installation as well."""
    done = program.run("schema", "--asyncapi", exchange="our-events")

    assert json.loads(done.stdout)["asyncapi"].startswith("3.")
    assert "our-events" in done.stdout


def test_unknown_variables_are_logged_and_do_not_stop(program: Program) -> None:
    """The warning goes to stderr as an event, so that stdout stays readable for programs."""
    done = program.run("topology", "--json", prefech="1")

    [event] = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0
    assert json.loads(done.stdout)
    assert (event["event"], event["hint"]) == ("config.unknown_variable", "ORDER_WORKER_PREFETCH")


def test_dotenv_of_the_working_directory_is_read(program: Program, tmp_path: Path) -> None:
    """A developer's settings need no exporting."""
    (tmp_path / ".env").write_text("ORDER_WORKER_MAX_BATCH=7\n")

    done = program.run("config", "--json")

    assert {"value": "7", "origin": ".env"}.items() <= {
        row["variable"]: row for row in json.loads(done.stdout)["settings"]
    }["ORDER_WORKER_MAX_BATCH"].items()


def test_a_closed_pipe_is_no_traceback(program: Program) -> None:
    """``order-worker config | head -1`` ends quietly."""
    running = program.start("config")
    assert running.stdout is not None
    running.stdout.close()
    running.stdout = None

    _, errors = running.communicate(timeout=30)
    assert errors == ""


def test_an_interrupt_is_no_traceback(program: Program) -> None:
    """Ctrl-C ends a running command quietly."""
    running = program.start("simulate", "--port", "0", "--sim-port", "0")
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["graphql_url"].startswith("http://127.0.0.1:")

    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)

    assert running.returncode == 0
    assert "Traceback" not in errors


FAILURES = {
    "usage": UsageError("ORDER_WORKER_X: change it"),
    "refused": BrokerRefused(f"amqp://u:{SECRET}@host refuses"),
    "lost": ConnectionLost("gone"),
    "group": ExceptionGroup("tasks", [BrokerRefused("no"), ExceptionGroup("inner", [ConnectionLost("gone")])]),
    "bug": RuntimeError(f"client_secret={SECRET}"),
    "mixed": ExceptionGroup("tasks", [ConnectionLost("gone"), RuntimeError("bug")]),
}


def failing(kind: str) -> None:
    """A command that fails in the way asked for."""
    raise FAILURES[kind]


@pytest.mark.parametrize(
    ("kind", "code", "text", "traceback"),
    [
        ("usage", 2, "order-worker: ORDER_WORKER_X: change it", False),
        ("refused", 2, "order-worker: amqp://u:***@host refuses", False),
        ("lost", 1, "order-worker: gone", False),
        ("group", 2, "order-worker: gone", False),
        ("bug", 1, "RuntimeError: client_secret=***", True),
        ("mixed", 1, "RuntimeError: bug", True),
    ],
)
def test_errors_become_messages_and_exit_codes(
    kind: str,
    code: int,
    text: str,
    *,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """2: the person or the broker's administrator has to change something; 1: it failed; tracebacks are for bugs."""
    monkeypatch.setitem(main.COMMANDS, "failing", main.Entry(__name__, "failing", "Fails."))

    got = main.run(["failing", kind])

    errors = capsys.readouterr().err
    assert got == code
    assert text in errors
    assert ("Traceback" in errors) is traceback
    assert SECRET not in errors
