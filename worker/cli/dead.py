"""``order-worker dead``: what is in the dead-letter queue and why, and what is done about it."""

import typer

from worker.cli.deadlist import list_
from worker.cli.deadshow import show
from worker.cli.deadtake import discard, export, sync
from worker.cli.replay import replay

dead = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The dead-letter queue and its index in the journal. Each look into the queue costs one delivery count.",
)
dead.command("list")(list_)
dead.command("show")(show)
dead.command("export")(export)
dead.command("discard")(discard)
dead.command("sync")(sync)
dead.command("replay")(replay)
