"""History rows by column: what all rows of a batch have in common is said once.

    {"count": 3, "same": {"disposition": "ack", ...}, "each": {"order_id": [1, 2, 3], ...}}

A batch of 500 events nearly always has one disposition, one reason, one batch. So its rows together are a third of what
they are one by one, and cost a tenth to write.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from worker.core.history import HistoryRow
from worker.core.model import Version

Columns = Mapping[str, Sequence[object]]
"""The values of each column, one for each row. A column that is not there has its default in all of them."""

_NAMES: Final = HistoryRow.__struct_fields__
_NEVER_SAME: Final = frozenset(("fields", "version"))
"""Not compared: 1 equals 1.0 and true there, and they differ anyway."""


class Pack(Struct, frozen=True, gc=False):
    """The rows of a batch. A ``message_id`` of None is that of the version."""

    count: int
    same: Mapping[str, Any]
    each: Mapping[str, Sequence[Any]]


def columns_of(rows: Sequence[HistoryRow]) -> Columns:
    """The same rows by column."""
    made = list(rows)
    return {name: [getattr(row, name) for row in made] for name in _NAMES}


def packed(columns: Columns, count: int) -> Pack:
    """So many rows, at least one."""
    same: dict[str, object] = {}
    each: dict[str, Sequence[object]] = {}
    for name, values in columns.items():
        if name not in _NEVER_SAME and values.count(values[0]) == count:
            same[name] = values[0]
        else:
            each[name] = values
    return Pack(count, same, each)


def unpacked(pack: Pack) -> list[HistoryRow]:
    """The rows, as they were."""
    columns = {name: values for name, values in pack.each.items() if name in _NAMES}
    same = {name: value for name, value in pack.same.items() if name in _NAMES}
    return [_row(same | {name: values[place] for name, values in columns.items()}) for place in range(pack.count)]


def _row(found: dict[str, Any]) -> HistoryRow:
    version = found.get("version")
    if version is not None:
        found["version"] = version = Version(*version)
    if found.get("message_id", "") is None:
        found["message_id"] = "" if version is None else version.message_id
    return HistoryRow(**found)
