"""Claims, and what they handed out: with that the record can be written without reading again."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Dialect

from worker.adapters.journal.encoding import dump_json, end_of_day, load_values
from worker.adapters.journal.statements import parameter
from worker.core.bounded import drop_first
from worker.core.journal import Claim, OrderRow

KEPT: Final = 10_000
"""Claims whose record is waited for: far more than may be in flight, because calls that were cancelled leave theirs."""
NOTHING: Final = "{}"
"""The values of an order of which nothing was applied yet."""
_COLUMNS: Final = ("order_id", "applied", "revision", "prior_by", "prior_expires_us", "echo_us", "touched_us")


class Handed(NamedTuple):
    """What a claim handed out; the text of the values, and the day of the last record, as they stand in the row."""

    row: OrderRow
    text: str
    touched_us: int


class Claiming:
    """The statements for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        worker, expires, wall = (
            parameter(dialect, number, type_) for number, type_ in enumerate(("text", "bigint", "bigint"), start=2)
        )
        until = f"""CASE WHEN orders.claim_expires_us > {expires} THEN orders.claim_expires_us ELSE {expires} END"""
        self._returning = f"""
            INSERT INTO orders (order_id, applied, revision, claimed_by, claim_expires_us, touched_us)
            SELECT asked.value, '{NOTHING}', 1, {worker}, {expires}, {wall}
            FROM unnest($1::bigint[]) AS asked(value) ORDER BY asked.value
            ON CONFLICT (order_id) DO UPDATE SET
                revision = orders.revision + 1,
                prior_by = orders.claimed_by,
                prior_expires_us = orders.claim_expires_us,
                claimed_by = {worker},
                claim_expires_us = {until}
            RETURNING {", ".join(f"orders.{name}" for name in _COLUMNS)}
        """  # noqa: S608 - names of ours
        # SQLite: each of them is one look for each order, where the above is a look for it, and another for its answer.
        self._find = """
            SELECT order_id, applied, revision + 1, claimed_by, claim_expires_us, echo_us, touched_us
            FROM json_each(?1) AS asked CROSS JOIN orders WHERE orders.order_id = asked.value
        """
        self._add = f"""
            INSERT INTO orders (order_id, applied, revision, claimed_by, claim_expires_us, touched_us)
            SELECT value, '{NOTHING}', 1, {worker}, {expires}, {wall} FROM json_each(?1)
        """  # noqa: S608 - names of ours
        self._again = f"""
            UPDATE orders SET revision = revision + 1, claimed_by = {worker}, claim_expires_us = {until}
            WHERE order_id IN (SELECT value FROM json_each(?1))
        """  # noqa: S608 - names of ours

    def claim(self, connection: Connection, order_ids: Collection[int], by: Claim, wall_us: int) -> dict[int, Handed]:
        """Claim these orders, those never seen as well. On SQLite it needs a transaction."""
        if self._is_sqlite:
            return self._claim_in_file(connection, sorted(set(order_ids)), by, wall_us)
        values = (list(order_ids), by.worker, by.expires_us, end_of_day(wall_us))
        return _handed(connection.exec_driver_sql(self._returning, values).all(), by)

    def _claim_in_file(
        self, connection: Connection, order_ids: list[int], by: Claim, wall_us: int
    ) -> dict[int, Handed]:
        """In the order of the ids: neighbours are on one page."""
        touched_us = end_of_day(wall_us)
        # All of it sent as one text: how many there are changes no statement.
        asked = dump_json(order_ids)
        handed = _handed(connection.exec_driver_sql(self._find, (asked,)).all(), by)
        if handed:
            known = (dump_json(list(handed)), by.worker, by.expires_us)
            connection.exec_driver_sql(self._again, known)
        if unseen := [order_id for order_id in order_ids if order_id not in handed] if handed else order_ids:
            new = (dump_json(unseen) if handed else asked, by.worker, by.expires_us, touched_us)
            connection.exec_driver_sql(self._add, new)
            row = OrderRow(values={}, revision=1, expires_us=by.expires_us)
            handed.update(dict.fromkeys(unseen, Handed(row, NOTHING, touched_us)))
        return handed


class Claims:
    """The latest claim of each order whose record is still to come."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._handed: dict[int, Handed] = {}

    def note(self, handed: Mapping[int, Handed]) -> None:
        """These were claimed."""
        self._handed.update(handed)
        drop_first(self._handed, len(self._handed) - self._kept)

    def take(self, order_id: int, revision: int) -> Handed | None:
        """What the claim with this revision handed out, if it is known. Asked once."""
        handed = self._handed.pop(order_id, None)
        if handed is None or handed.row.revision == revision:
            return handed
        self._handed[order_id] = handed
        return None


def _handed(found: Iterable[Any], by: Claim) -> dict[int, Handed]:
    handed: dict[int, Handed] = {}
    for order_id, text, revision, standing_by, standing_us, echo_us, touched_us in found:
        standing = None if standing_by is None or standing_us is None else Claim(standing_by, standing_us)
        values = {} if text == NOTHING else load_values(text)
        row = OrderRow(values=values, revision=revision, standing=standing, echo_us=echo_us, expires_us=by.expires_us)
        handed[order_id] = Handed(row, text, touched_us)
    return handed
