"""What the index learns of a dead letter at the moment when its copy is placed."""

from worker.core.deadletter import read_dead_letter
from worker.core.headers import Copy
from worker.core.history import IndexedLetter
from worker.core.model import Delivery, Settlement


def indexed_letter(settlement: Settlement, copy: Copy, copy_id: str, *, queue: str, now_us: int) -> IndexedLetter:
    """The row of this copy, which is in ``queue`` under the message id ``copy_id`` since ``now_us``.

    Everything that the copy says of itself is taken from it, so whoever reads the queue later finds the same. The
    update adds what only the body says.
    """
    update = settlement.update
    told = read_dead_letter(
        Delivery(
            generation=0,
            tag=0,
            body=copy.body,
            properties=copy.properties,
            routing_key=settlement.delivery.routing_key,
        )
    )
    return IndexedLetter(
        copy_id=copy_id,
        queue=queue,
        reason=told.reason,
        detail=told.detail,
        failed_us=now_us,
        order_id=told.order_id,
        message_id=told.message_id,
        event_id=None if update is None else update.event_id,
        fields={} if update is None else update.fields,
        version=None if update is None else update.version,
        attempt=told.history.attempt,
        exchange=told.history.exchange or "",
        routing_key=told.routing_key,
        batch_id=settlement.batch_id,
        replay_id=told.history.replay_id,
        worker=told.history.worker or "",
    )
