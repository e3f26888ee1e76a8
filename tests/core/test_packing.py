"""The history of a batch by column (``core/packing.py``), made from rows or straight from what was decided."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_delivery, make_update
from worker.core.bookkeeping import History
from worker.core.history import HistoryRow
from worker.core.model import (
    APPLIED,
    SUPERSEDED,
    Dead,
    Disposition,
    Reason,
    Release,
    Retry,
    Scalar,
    Settlement,
)
from worker.core.packing import Pack, columns_of, packed, unpacked

AT = 1_800_000_000_000_000
DISPOSITIONS = (
    APPLIED,
    SUPERSEDED,
    Retry(tier=0, reason=Reason.BUSY, detail="later"),
    Dead(reason=Reason.REJECTED, detail="no"),
    Release(),
)


def settlement(
    order_id: int = 1,
    disposition: Disposition = APPLIED,
    message_id: str = "m-1",
    headers: Mapping[str, Any] | None = None,
) -> Settlement:
    """Of an event with this id, decided like that."""
    update = make_update(order_id, tag=order_id, message_id=message_id, headers=headers)
    return Settlement(delivery=update.delivery, disposition=disposition, update=update, batch_id=f"b-{order_id % 2}")


def history(*settlements: Settlement) -> History:
    return History(settlements, wall_us=AT, worker="w")


def carried(columns: Any, count: int) -> list[HistoryRow]:
    """Through JSON and back."""
    text = json.dumps(msgspec.structs.asdict(packed(columns, count)), default=msgspec.structs.astuple)
    return unpacked(Pack(**json.loads(text)))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(DISPOSITIONS), st.sampled_from(["m", "\udcff"])), max_size=9)
)
def test_columns_hold_the_rows_that_would_have_been_made(decided: list[tuple[int, Disposition, str]]) -> None:
    """Whatever was decided, of one order or of several; what is handed back is in neither."""
    rows = history(*(settlement(*each) for each in decided))
    columns = rows.columns() if len(rows) else {}

    assert columns is not None
    if len(rows):
        assert carried(columns, len(rows)) == list(rows)
        assert carried(columns_of(rows), len(rows)) == list(rows)


def test_what_all_rows_have_in_common_is_said_once() -> None:
    """That is nearly everything of a batch that was applied."""
    columns = history(*(settlement(2 * number) for number in range(1, 4))).columns()
    assert columns is not None

    pack = packed(columns, 3)

    assert set(pack.each) == {"order_id", "fields", "version"}
    assert pack.same["disposition"] == "ack"


@pytest.mark.parametrize("values", [[1, 1.0, True], [0, False, None]])
def test_values_that_are_equal_but_not_the_same_stay_apart(values: list[Scalar]) -> None:
    """1 equals 1.0 and true in Python, and not in an event."""
    rows = [HistoryRow(at_us=AT, disposition="ack", reason="applied", fields={"status": each}) for each in values]

    found = [row.fields["status"] for row in carried(columns_of(rows), 3)]

    assert [repr(each) for each in found] == [repr(each) for each in values]


@pytest.mark.parametrize(
    "unusual",
    [
        settlement(headers={"ow-replay-id": "r-1"}),
        settlement(message_id=""),
        Settlement(delivery=make_delivery(tag=9), disposition=Dead(reason=Reason.INVALID_EVENT, detail="no JSON")),
    ],
    ids=["replayed", "no id", "no event"],
)
def test_a_batch_with_an_unusual_row_is_made_of_rows(unusual: Settlement) -> None:
    """What they say is not in the columns."""
    assert history(settlement(), unusual).columns() is None


def test_columns_of_a_later_version_are_passed_over() -> None:
    """A pack may be older or newer than this program."""
    row = HistoryRow(at_us=AT, disposition="ack", reason="applied")
    pack = packed(columns_of([row]), 1)

    assert unpacked(msgspec.structs.replace(pack, same={**pack.same, "colour": "red"})) == [row]
