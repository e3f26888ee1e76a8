"""What people did, in SQL. Functions run inside a transaction of ``Database``."""

from sqlalchemy import Connection, insert, select

from worker.adapters.journal.encoding import storable
from worker.adapters.journal.tables import audit
from worker.core.audit import Action, Deed, Outcome

_c = audit.c


def add_deed(connection: Connection, deed: Deed) -> None:
    """One line more."""
    row = {
        "at_us": deed.at_us,
        "by": storable(deed.by),
        "action": deed.action.value,
        "outcome": deed.outcome.value,
        "target": storable(deed.target),
        "detail": storable(deed.detail),
        "count": deed.count,
    }
    connection.execute(insert(audit), row)


def deeds_page(connection: Connection, before: int | None, limit: int) -> list[Deed]:
    """The latest first."""
    statement = select(audit).order_by(_c.number.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_c.number < before)
    return [
        Deed(**{**row, "action": Action(row["action"]), "outcome": Outcome(row["outcome"])})
        for row in connection.execute(statement).mappings()
    ]
