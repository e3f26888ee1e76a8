"""A world in which dead letters stay in their queue, for the commands that work on them."""

from collections.abc import Sequence

from tests.support.broker import unique_topology
from tests.support.graveyard import Graveyard
from tests.support.tool import Tool
from tests.support.workerprocess import WorkerProcess
from tests.support.world import World


class DeadWorld(World):
    """Nobody takes the dead letters out: ``dead`` stays empty, and ``until_there`` asks the broker."""

    async def _watch_dead_letters(self, queue: str) -> None:
        """Nobody takes them out."""

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        """All that were started."""
        return self._workers

    @property
    def dead_queue(self) -> str:
        """Where they are."""
        return self.settings["DEAD_LETTER_QUEUE"]

    def yard(self, journal_url: str) -> Graveyard:
        """The command on this world's queues."""
        tool = Tool(self.folder, self.broker.url, unique_topology())
        tool.use(self.settings)
        return Graveyard(outside=self.outside, tool=tool, queue=self.dead_queue, journal_url=journal_url)

    def calls_for(self, order_id: int) -> int:
        """How often the platform was sent this order."""
        return sum(order_id in call.order_ids for call in self.calls)

    async def until_there(self, count: int) -> None:
        """Wait for so many dead letters in the queue."""
        await self.outside.until_ready(self.dead_queue, count)
