"""Claims in one statement, and what they handed out: with that the record can be written without reading again."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Dialect

from worker.adapters.journal.encoding import dump_json, end_of_day, load_values
from worker.adapters.journal.statements import parameter
from worker.core.journal import Claim, OrderRow

KEPT: Final = 10_000
"""Claims whose record is waited for: far more than may be in flight, because calls that were cancelled leave theirs."""
_COLUMNS: Final = "order_id, applied, revision, prior_by, prior_expires_us, echo_us"
_PREFIXED: Final = ", ".join(f"orders.{name}" for name in _COLUMNS.split(", "))
_NOTHING: Final = "{}"

_Columns = tuple[int, str, int, str | None, int | None, int | None]
_decode = msgspec.json.Decoder(list[_Columns]).decode


class Handed(NamedTuple):
    """What a claim handed out, and the text of the values as it stands in the row."""

    row: OrderRow
    text: str


class Claiming:
    """The statements for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        asked = "json_each(?1) AS asked" if self._is_sqlite else "unnest($1::bigint[]) AS asked(value)"
        worker, expires, wall = (
            parameter(dialect, number, type_) for number, type_ in enumerate(("text", "bigint", "bigint"), start=2)
        )
        # WHERE, because SQLite takes the ON of ON CONFLICT for that of a join otherwise.
        self._claim = f"""
            INSERT INTO orders (order_id, applied, revision, claimed_by, claim_expires_us, touched_us)
            SELECT asked.value, '{_NOTHING}', 1, {worker}, {expires}, {wall}
            FROM {asked} WHERE true ORDER BY asked.value
            ON CONFLICT (order_id) DO UPDATE SET
                revision = orders.revision + 1,
                prior_by = orders.claimed_by,
                prior_expires_us = orders.claim_expires_us,
                claimed_by = excluded.claimed_by,
                claim_expires_us = CASE
                    WHEN orders.claim_expires_us > excluded.claim_expires_us THEN orders.claim_expires_us
                    ELSE excluded.claim_expires_us END
        """  # noqa: S608 - names of ours
        # All in one row, for the same reason as in ``Rows``.
        self._read = f"""
            SELECT json_group_array(json_array({_COLUMNS})) FROM {asked} CROSS JOIN orders
            WHERE orders.order_id = asked.value
        """  # noqa: S608 - names of ours

    def claim(self, connection: Connection, order_ids: Collection[int], by: Claim, wall_us: int) -> dict[int, Handed]:
        """Claim these orders, those never seen as well. On SQLite it needs a transaction."""
        asked = dump_json(list(order_ids)) if self._is_sqlite else list(order_ids)
        values = (asked, by.worker, by.expires_us, end_of_day(wall_us))
        if self._is_sqlite:
            connection.exec_driver_sql(self._claim, values)
            return _handed(_decode(connection.exec_driver_sql(self._read, (asked,)).scalar_one()), by)
        return _handed(connection.exec_driver_sql(f"{self._claim} RETURNING {_PREFIXED}", values).all(), by)


class Claims:
    """The latest claim of each order whose record is still to come."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._handed: dict[int, Handed] = {}

    def note(self, handed: Mapping[int, Handed]) -> None:
        """These were claimed."""
        self._handed.update(handed)
        while len(self._handed) > self._kept:
            del self._handed[next(iter(self._handed))]

    def take(self, order_id: int, revision: int) -> Handed | None:
        """What the claim with this revision handed out, if it is known. Asked once."""
        handed = self._handed.get(order_id)
        if handed is None or handed.row.revision != revision:
            return None
        return self._handed.pop(order_id)


def _handed(found: Iterable[Any], by: Claim) -> dict[int, Handed]:
    handed: dict[int, Handed] = {}
    for order_id, text, revision, prior_by, prior_expires_us, echo_us in found:
        standing = None if prior_by is None or prior_expires_us is None else Claim(prior_by, prior_expires_us)
        values = {} if text == _NOTHING else load_values(text)
        row = OrderRow(values=values, revision=revision, standing=standing, echo_us=echo_us, expires_us=by.expires_us)
        handed[order_id] = Handed(row, text)
    return handed
