"""``order-worker check``, the doctor: looks at everything the worker depends on and changes nothing."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.cli.config import WIDTH, start
from worker.core.findings import Finding, Level, by_level, exit_code
from worker.doctor import examine

_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.BROKEN: "bold red"}


def check(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at broker, OAuth and GraphQL, changing nothing. Exit code 1 where something breaks a promise, 2 where the
    settings themselves are wrong."""
    found = asyncio.run(examine(start()))
    if as_json:
        print(json.dumps({"findings": [asdict(each) for each in found], "counts": by_level(found)}, indent=2))
    else:
        _print(found)
    raise typer.Exit(exit_code(found))


def _print(found: list[Finding]) -> None:
    # Values are data: neither markup in brackets nor emoji codes between colons are meant.
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table("Level", "What", "Seen", "What to do")
    for column in table.columns[1:]:
        column.overflow = "fold"
    for each in found:
        table.add_row(each.level.value, each.subject, each.seen, each.advice, style=_STYLES[each.level])
    console.print(table)
    console.print(", ".join(f"{count} {level}" for level, count in by_level(found).items() if count))
