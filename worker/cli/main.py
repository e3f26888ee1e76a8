"""The command line: which commands there are, and what becomes of their errors.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 interrupted. Results go to stdout, everything else to
stderr. A command's module is imported when the command is used, so that the others do not wait for its libraries.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from worker.core.errors import BrokerRefused, UsageError, WorkerError
from worker.core.masking import mask_text

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

PROGRAM = "order-worker"


class Entry(NamedTuple):
    """Where a command is: a function, or a typer app with sub-commands, and its line in the list of commands."""

    module: str
    name: str
    summary: str


COMMANDS = {
    "run": Entry("worker.cli.run", "run", "Bring events to the platform until asked to stop."),
    "pause": Entry("worker.cli.operate", "pause", "Have the running worker hand everything back and consume nothing."),
    "resume": Entry("worker.cli.operate", "resume", "End that pause, or one of the storm guard."),
    "publish": Entry("worker.cli.publish", "publish", "Publish events from a file or stream; resumes where it ended."),
    "dead": Entry(
        "worker.cli.dead", "dead", "The dead letters: why and since when; plan and carry out replays, export, discard."
    ),
    "order": Entry("worker.cli.order", "order", "What happened to one order, event by event."),
    "console": Entry("worker.cli.console", "console", "The dead letters, replays and orders in a browser."),
    "journal": Entry("worker.cli.journal", "journal", "Upgrade the journal's tables; forget what is old."),
    "check": Entry(
        "worker.cli.check", "check", "Look at broker, OAuth and GraphQL: what would break, and what to do about it."
    ),
    "config": Entry(
        "worker.cli.config", "config", "Show the settings, where they come from, and what is wrong with them."
    ),
    "topology": Entry(
        "worker.cli.topology", "topology", "Show what the broker must have; --migrate changes the number of partitions."
    ),
    "schema": Entry("worker.cli.schema", "schema", "Print what an event looks like, as JSON Schema or AsyncAPI."),
    "simulate": Entry("worker.cli.simulate", "simulate", "Run the stand-in platform: OAuth and GraphQL, with faults."),
    "demo": Entry("worker.cli.demo", "demo", "The whole job on this machine: good events, bad events and an outage."),
}


class Commands(TyperGroup):
    """The commands of the table above, imported on use."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """The command itself; while the list of commands is printed, only its name and summary."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if ctx.meta.get("listing"):
            return TyperCommand(cmd_name, help=entry.summary)
        found = getattr(import_module(entry.module), entry.name)
        return typer.main.get_command(found if isinstance(found, typer.Typer) else _alone(cmd_name, found))

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """The usual help, then the environment variables."""
        ctx.meta["listing"] = True
        super().format_help(ctx, formatter)
        from worker.cli.config import print_variables

        print_variables()


def _alone(name: str, function: Any) -> typer.Typer:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(function)
    return single


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {version('order-update-worker')}")
        raise typer.Exit


@app.callback(help="Brings order-status events from RabbitMQ to the platform: batched, in order, with nothing lost.")
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options of the program itself."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` if None) and return its exit code; errors become a message on stderr."""
    try:
        app(args=arguments, prog_name=PROGRAM)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except Exception as error:  # noqa: BLE001 - the outermost boundary
        code = _explain(error)
    return _flushed(code)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader had enough (``| head``). Without this Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _explain(error: Exception) -> int:
    """Print what went wrong, without secrets; a traceback only where the program itself is at fault."""
    causes = list(_leaves(error))
    expected = [cause for cause in causes if isinstance(cause, WorkerError)]
    if len(expected) < len(causes):
        print(mask_text("".join(traceback.format_exception(error))), file=sys.stderr)
        return 1
    for text in dict.fromkeys(mask_text(str(cause)) for cause in expected):
        print(f"{PROGRAM}: {text}", file=sys.stderr)
    return 2 if any(isinstance(cause, UsageError | BrokerRefused) for cause in expected) else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    # A task group wraps the error that ended it.
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
