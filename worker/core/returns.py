"""Which returns of a message may have been crashes.

Brokers count how often a message came back, whatever the cause: a crash, but a release during an outage, a deploy or a
lost connection as well. What came back while this process lived did not kill it. So only the returns that a message had
when this process saw it first are unexplained; without that difference an outage of a night, with a release now and
then, would look like a message that kills the worker.
"""


class Survived:
    """Remembers the first count of messages that came back, of the last ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._first: dict[tuple[str | None, bytes], int] = {}

    def unexplained(self, message_id: str | None, body: bytes, returns: int) -> int:
        """How many of so many returns this process did not see. Messages without an id are told apart by their body."""
        if not returns:
            return 0
        first = self._first.setdefault((message_id, body), returns)
        while len(self._first) > self._limit:
            del self._first[next(iter(self._first))]
        return min(first, returns)
