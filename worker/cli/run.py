"""``order-worker run``: the worker itself."""

import asyncio
import gc
import sys
from typing import Annotated

import typer

from worker.app import run as work
from worker.cli.config import start
from worker.core.errors import UsageError
from worker.eventloop import loop_factory

YOUNG_OBJECTS = 50_000
"""How many new objects Python lets gather before it looks for garbage in circles; 700 if nobody says so."""
SWITCH_S = 0.0005
"""How long a thread that has its answer from SQLite waits for a busy event loop to let it go on; 5 ms if nobody says
so, and each batch has a dozen such answers."""


def run(
    *,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Read copies of what producers publish from now on, from a queue of its own, and tell what would be "
            "sent: the platform is not called, the work queue not touched, the journal only read.",
        ),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.001, help="End a dry run after so many seconds.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End a dry run after so many events.")] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Print the orders of each call of a dry run, values and all.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary of a dry run as JSON.")] = False,
) -> None:
    """Consume events and bring them to the platform until SIGTERM or SIGINT; then drain and leave.

    A second signal ends the process at once; unsettled messages go back to the broker either way.
    """
    if dry_run:
        from worker.cli.dryview import rehearsed

        rehearsed(start(), seconds=seconds, count=count, show_values=show_values, as_json=as_json)
        return
    if seconds is not None or count is not None or show_values or as_json:
        raise UsageError("--seconds, --count, --show-values and --json belong to --dry-run")
    settings = start()
    _tune()
    with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
        runner.run(work(settings))


def _tune() -> None:
    """A fifth of the worker's time went into looking for garbage, mostly among what the libraries made when they were
    imported, and into nothing but that: what belongs to a batch is freed without it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    sys.setswitchinterval(SWITCH_S)
