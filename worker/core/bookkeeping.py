"""What a batch leaves in the journal: the outcome of each claimed order, and a history row for each delivery.

An outcome is *known* unless the call may still be executed. An echo is owed by whoever found a claim standing: its call
may be executed after ours, and nobody else can know any more (``journal.py``). It is due when that claim has expired.
Another one is owed by whoever was so late that its own call may be executed after its own claim has expired.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from worker.core.fields import INT64_MAX
from worker.core.headers import read_history
from worker.core.history import HistoryRow
from worker.core.journal import LATE_S, BatchRecord, OrderOutcome, OrderRow
from worker.core.model import Ack, Dead, Release, Retry, Settlement
from worker.core.request import Request
from worker.core.values import Values
from worker.core.verdict import Call, Judgement

Applied = Mapping[int, Values]
NOTHING: Values = {}


def record_of(
    rows: Mapping[int, OrderRow],
    request: Request,
    judgement: Judgement,
    applied: Applied,
    settlements: Sequence[Settlement],
    *,
    wall_us: int,
    worker: str,
) -> BatchRecord:
    """The record of a batch whose orders were claimed as ``rows``."""
    unknown = request.fields.keys() if judgement.call is Call.UNKNOWN else ()
    # The usual row, which nobody else claimed and nothing is owed for, is told here, as ``outcome_of`` would tell it.
    orders = {
        order_id: OrderOutcome(revision=row.revision, applied=applied.get(order_id, NOTHING))
        if row.standing is None and row.echo_us is None and wall_us <= row.expires_us and not unknown
        else outcome_of(row, applied=applied.get(order_id, NOTHING), known=order_id not in unknown, wall_us=wall_us)
        for order_id, row in rows.items()
    }
    return BatchRecord(wall_us=wall_us, orders=orders, history=History(settlements, wall_us=wall_us, worker=worker))


def outcome_of(
    row: OrderRow, *, applied: Values, known: bool, wall_us: int, echoed_at_us: int | None = None
) -> OrderOutcome:
    """What became of one order by ``wall_us``. ``echoed_at_us``: its known values were sent at that time, and applied.

    That is the echo of everything that was due by then, a claim that had expired included.
    """
    owed = None if row.standing is None else row.standing.expires_us
    executed_us = wall_us if known else wall_us + round(LATE_S * 1_000_000)
    if executed_us > row.expires_us:
        owed = executed_us if owed is None else max(owed, executed_us)
    return OrderOutcome(
        revision=row.revision,
        applied=applied,
        known=known,
        echo_us=None if _is_due(owed, echoed_at_us) else owed,
        echoed_us=row.echo_us if _is_due(row.echo_us, echoed_at_us) else None,
    )


def _is_due(time_us: int | None, at_us: int | None) -> bool:
    return time_us is not None and at_us is not None and time_us <= at_us


class History(Sequence[HistoryRow]):
    """A row for every delivery that is decided, made when it is looked at; those handed back are decided another time.

    A journal that lives in memory may never be asked for them.
    """

    def __init__(self, settlements: Sequence[Settlement], *, wall_us: int, worker: str) -> None:
        self._decided = [each for each in settlements if not isinstance(each.disposition, Release)]
        self._wall_us = wall_us
        self._worker = worker

    def __len__(self) -> int:
        return len(self._decided)

    @overload
    def __getitem__(self, index: int) -> HistoryRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[HistoryRow]: ...

    def __getitem__(self, index: int | slice) -> HistoryRow | Sequence[HistoryRow]:
        if isinstance(index, slice):
            return [self._row(settlement) for settlement in self._decided[index]]
        return self._row(self._decided[index])

    def __iter__(self) -> Iterator[HistoryRow]:
        return map(self._row, self._decided)

    def columns(self) -> Mapping[str, Sequence[object]] | None:
        """The same rows by column (``packing.py``), without making them; None where one of them is no usual row: no
        event, no message id, or part of a replay."""
        decided = self._decided
        updates = [settlement.update for settlement in decided]
        known = [update for update in updates if update is not None]
        versions = [update.version for update in known]
        if len(known) < len(updates) or "" in [version.message_id for version in versions]:
            return None
        if any("ow-replay-id" in headers for headers in [each.delivery.properties.headers for each in decided]):
            return None
        kinds, reasons, details = _named_all(decided)
        return {
            "at_us": [self._wall_us] * len(decided),
            "disposition": kinds,
            "reason": reasons,
            "detail": details,
            "order_id": [update.order_id for update in known],
            "message_id": [None] * len(decided),
            "event_id": [update.event_id for update in known],
            "fields": [update.fields for update in known],
            "version": versions,
            "attempt": [update.attempt for update in known],
            "batch_id": [settlement.batch_id for settlement in decided],
            "worker": [self._worker] * len(decided),
        }

    def _row(self, settlement: Settlement) -> HistoryRow:
        return _row(settlement, wall_us=self._wall_us, worker=self._worker)


def _row(settlement: Settlement, *, wall_us: int, worker: str) -> HistoryRow:
    update, properties = settlement.update, settlement.delivery.properties
    kind, reason, detail = _named(settlement)
    replay_id = properties.headers.get("ow-replay-id")
    return HistoryRow(
        at_us=wall_us,
        disposition=kind,
        reason=reason,
        detail=detail,
        order_id=None if update is None else update.order_id,
        message_id=_producers_id(settlement) or properties.message_id or "",
        event_id=None if update is None else update.event_id,
        fields={} if update is None else update.fields,
        version=None if update is None else update.version,
        attempt=1 if update is None else update.attempt,
        batch_id=settlement.batch_id,
        replay_id=replay_id if isinstance(replay_id, str) else None,
        replay_place=_place(properties.headers) if isinstance(replay_id, str) else None,
        worker=worker,
    )


def _place(headers: Mapping[str, Any]) -> int | None:
    """The place in the plan of that replay, as far as it can be one."""
    place = headers.get("ow-replay-place")
    return place if type(place) is int and 0 <= place <= INT64_MAX else None


def _producers_id(settlement: Settlement) -> str | None:
    """The id that the producer gave: copies have one of their own."""
    if settlement.update is not None:
        return settlement.update.version.message_id
    return read_history(settlement.delivery.properties.headers).message_id


def _named_all(settlements: Sequence[Settlement]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Kinds, reasons and details. Nearly all dispositions are one of a few objects: each is looked at once."""
    keys = [id(settlement.disposition) for settlement in settlements]
    names = {key: _named(settlement) for key, settlement in dict(zip(keys, settlements, strict=True)).items()}
    if len(names) == 1:
        kind, reason, detail = names[keys[0]]
        return [kind] * len(keys), [reason] * len(keys), [detail] * len(keys)
    kinds, reasons, details = zip(*[names[key] for key in keys], strict=True)
    return kinds, reasons, details


def _named(settlement: Settlement) -> tuple[str, str, str]:
    match settlement.disposition:
        case Ack(reason=reason):
            return "ack", reason.value, ""
        case Retry(reason=reason, detail=detail):
            return "retry", reason.value, detail
        case Dead(reason=reason, detail=detail):
            return "dead", reason.value, detail
        case Release():
            return "release", "", ""
