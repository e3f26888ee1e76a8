"""Which returns of a message may have been crashes.

Brokers count how often a message came back, whatever the cause: a crash, but a release during an outage, a deploy or a
lost connection as well. A message that this process had before did not kill it. So only the first time that this
process sees it are its returns unexplained; without that difference an outage of a night, with a release now and then,
would look like a message that kills the worker.

One that does kill it meets a new process, which has no such memory.
"""

from worker.core.identity import Identity


class Survived:
    """Remembers which messages that came back this process had in hand, the last ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[Identity, None] = {}

    def unexplained(self, identity: Identity, returns: int) -> int:
        """How many of so many returns may have been crashes: all of them, or none."""
        if identity in self._seen:
            return 0
        self._seen[identity] = None
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]
        return returns
