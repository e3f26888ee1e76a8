"""``order-worker config``: the settings in use; and what commands start with: settings, logs, unknown variables."""

import json
import sys
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table

from worker import telemetry
from worker.config import Settings, variable
from worker.loading import load_settings
from worker.settingsview import UnknownVariable, origins, settings_table, unknown_variables, written

log = structlog.get_logger(__name__)

WIDTH = 140  # columns, where the output is not a terminal


def start() -> Settings:
    """Load the settings, set logging up, and warn of variables that nothing reads. Raises UsageError."""
    settings = load_settings()
    telemetry.configure(settings.logs)
    for unknown in unknown_variables():
        log.warning("config.unknown_variable", variable=unknown.name, hint=unknown.suggestion)
    return settings


def config(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the settings in use, secrets masked, and where each comes from; or everything that is wrong with them."""
    settings, unknown, source = load_settings(), unknown_variables(), origins()
    rows = [
        {
            "variable": row.variable,
            "value": written(getattr(settings, row.name)),
            "default": row.default,
            "origin": source.get(row.name, "default"),
            "description": row.description,
        }
        for row in settings_table()
    ]
    missing = [variable(name) for name in settings.missing_for_platform()]
    if as_json:
        unread = [{"variable": each.name, "suggestion": each.suggestion} for each in unknown]
        print(json.dumps({"settings": rows, "unknown": unread, "missing": missing}, indent=2))
        return
    _print_table(
        "Settings", ("Variable", "Value", "From", "Meaning"), ("variable", "value", "origin", "description"), rows
    )
    _print_remarks(unknown, missing)


def print_variables() -> None:
    """The environment variables with defaults and meanings, for ``--help``."""
    rows = [
        {"variable": row.variable, "default": row.default, "description": row.description} for row in settings_table()
    ]
    columns = ("variable", "default", "description")
    _print_table(
        "Environment variables (also in .env, or as secret files)", ("Variable", "Default", "Meaning"), columns, rows
    )


def _print_table(title: str, heads: tuple[str, ...], keys: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    # Values are data: neither markup in brackets nor emoji codes between colons are meant.
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head == "Variable")
    for row in rows:
        table.add_row(*(row[key] for key in keys))
    console.print(table)


def _print_remarks(unknown: list[UnknownVariable], missing: list[str]) -> None:
    for name in missing:
        print(f"{name} is not set: commands that call the platform need it.")
    for each in unknown:
        print(each)
