"""``order-worker topology``: what the broker must have, for people and for the tools that set brokers up."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.amqp.topology import planned
from worker.cli.config import WIDTH, start


def topology(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the exchanges, queues and bindings that the settings ask for. The broker is not contacted."""
    plan = planned(start().broker)
    if as_json:
        print(json.dumps(plan.to_json(), indent=2))
        return
    table = Table("Kind", "Name", "Details")
    for row in plan.rows():
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False, width=WIDTH).print(table)
