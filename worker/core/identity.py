"""Recognising a message that comes again: producers need not give ids, and may give the same one twice."""

from hashlib import blake2b

from worker.core.model import Delivery

Identity = tuple[str | None, bytes]


def identity(delivery: Delivery) -> Identity:
    """Message id and a digest of the body: 16 bytes, so that remembering thousands of large bodies costs nothing."""
    return delivery.properties.message_id, blake2b(delivery.body, digest_size=16).digest()
