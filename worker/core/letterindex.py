"""What the index says of a dead letter: when the worker places its copy, and when somebody finds it in the queue.

Both read the same words of the message. What others put there is decoded as a replay would decode it, so that a plan
can judge it.
"""

from msgspec.structs import replace

from worker.core.deadletter import DeadLetter, letter_key, read_dead_letter
from worker.core.decode import EventSchema
from worker.core.headers import Copy
from worker.core.history import IndexedLetter
from worker.core.letterfile import exchange_of
from worker.core.model import Dead, Delivery, Settlement, Update


def decoded(letter: DeadLetter, schema: EventSchema, *, now_us: int) -> Update | Dead:
    """The update in this letter, or why there is none, by today's rules.

    An event without any stamp of its own is as old as the letter (it was first seen before that, nobody knows when);
    one that is ahead of its time is judged by the time of now.
    """
    since_us = now_us if letter.failed_us is None else min(letter.failed_us, now_us)
    # The decoder takes what was handed over again to be as old as the channel.
    return schema.decode(replace(letter.delivery, arrived_us=now_us, opened_us=since_us, redelivered=True))


def indexed(letter: DeadLetter, *, queue: str, update: Update | Dead | None, now_us: int) -> IndexedLetter:
    """Its row. A letter that does not say when it failed is indexed as of now."""
    told = update if isinstance(update, Update) else None
    return IndexedLetter(
        copy_id=letter_key(letter),
        queue=queue,
        reason=letter.reason,
        detail=letter.detail,
        failed_us=now_us if letter.failed_us is None else letter.failed_us,
        order_id=letter.order_id if told is None else told.order_id,
        message_id=letter.message_id,
        event_id=None if told is None else told.event_id,
        fields={} if told is None else told.fields,
        version=None if told is None else told.version,
        attempt=letter.history.attempt,
        exchange=exchange_of(letter),
        routing_key=letter.routing_key,
        batch_id=letter.history.batch_id or "",
        replay_id=letter.history.replay_id,
        worker=letter.history.worker or "",
    )


def placed(settlement: Settlement, copy: Copy, copy_id: str, *, queue: str, now_us: int) -> IndexedLetter:
    """The row of this copy, which is in ``queue`` under the message id ``copy_id`` since ``now_us``."""
    letter = Delivery(
        generation=0,
        tag=0,
        body=copy.body,
        properties=replace(copy.properties, message_id=copy_id),
        routing_key=settlement.delivery.routing_key,
    )
    return indexed(read_dead_letter(letter), queue=queue, update=settlement.update, now_us=now_us)
