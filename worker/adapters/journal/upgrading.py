"""The tables of a journal brought to this version, or checked for it.

A new version of the tables is put in place by a person (``order-worker journal upgrade``), because it may take a while
and because other workers may still be running. Only where there is nothing yet, in an SQLite file of our own, the
worker does it by itself.

Each upgrade is one transaction; the first thing in it keeps every other program that upgrades the same journal waiting:
SQLite's write lock, an advisory lock on PostgreSQL.
"""

from enum import Enum, auto
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from worker.adapters.journal.database import Database
from worker.core.errors import JournalOutdated

UPGRADE_S: Final = 600.0
"""The longest that an upgrade may take."""
_LOCK: Final = text("SELECT pg_advisory_xact_lock(7224938217)")


class Standing(Enum):
    """How the tables compare with this program."""

    CURRENT = auto()
    MISSING = auto()
    BEHIND = auto()
    AHEAD = auto()
    """Made by a newer version of this program."""


async def upgrade(url: str) -> str:
    """Bring the journal at ``url`` to this version, which is returned. Harmless where it is there already.

    Raises JournalOutdated where the journal is newer than this program, and JournalUnavailable.
    """
    database = Database(url, deadline_s=UPGRADE_S)
    try:
        return await database.run(_upgrade)
    finally:
        await database.close()


async def check(url: str) -> None:
    """JournalOutdated says what to do where the tables are not those of this version. Changes nothing."""
    database = Database(url)
    try:
        refuse(await database.run(standing))
    finally:
        await database.close()


def refuse(found: Standing) -> None:
    """Raise JournalOutdated unless the tables are current."""
    match found:
        case Standing.CURRENT:
            return
        case Standing.MISSING:
            raise JournalOutdated("the journal has no tables yet: run `order-worker journal upgrade`")
        case Standing.BEHIND:
            raise JournalOutdated(
                "the journal's tables are older than this program: run `order-worker journal upgrade`"
            )
        case Standing.AHEAD:
            raise JournalOutdated(
                "the journal's tables are newer than this program: install the version whose `order-worker journal "
                "upgrade` made them, or a later one"
            )


def standing(connection: Connection) -> Standing:
    """How the tables compare with this program."""
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_config(connection))
    if found == scripts.get_current_head():
        return Standing.CURRENT
    if found is None:
        return Standing.MISSING
    known = {script.revision for script in scripts.walk_revisions()}
    return Standing.BEHIND if found in known else Standing.AHEAD


def _upgrade(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(_LOCK)
    if standing(connection) is Standing.AHEAD:
        refuse(Standing.AHEAD)
    config = _config(connection)
    command.upgrade(config, "head")
    return ScriptDirectory.from_config(config).get_current_head() or ""


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
