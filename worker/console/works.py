"""What goes on in the console after the page that began it was answered: replays, exports, discards, plans.

Each is a task with a name, a person behind it and a count, and it ends with a sentence. Of those that take the
dead-letter queue there is one at a time, because the broker's lock allows no more. A page may be closed and opened
again meanwhile; what survives the console itself is in the journal (replays) and in files (exports, discards).
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker.core.audit import Action
from worker.core.errors import QueueHeld, WorkerError
from worker.core.masking import mask_text
from worker.ports import wall_us

log = structlog.get_logger(__name__)

MOST_KEPT: Final = 200
"""Works that are remembered; the oldest finished ones go first."""
STOP_WITHIN_S: Final = 20.0
"""How long works may take to end in good order when the console ends."""


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """One of them. ``place`` is the page that shows it; ``stop`` asks it to end in good order, where it can."""

    number: str
    action: Action
    by: str
    target: str
    place: str
    takes_queue: bool
    began_us: int = field(default_factory=wall_us)
    ended_us: int | None = None
    looked: int = 0
    count: int | None = None
    told: str = ""
    failed: bool = False
    stopped: bool = False
    file: str = ""
    problems: tuple[str, ...] = ()
    stop: Callable[[], None] | None = None
    task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """It ended, one way or another."""
        return self.ended_us is not None

    def ask_to_stop(self) -> bool:
        """End in good order, soon; False where it cannot be stopped any more."""
        if self.is_over or self.stop is None:
            return False
        self.stopped = True
        self.stop()
        return True


Job = Callable[[Work], Awaitable[str]]
"""Does it, and returns the sentence that it ends with."""
Ended = Callable[[Work], Awaitable[None]]
"""Hears of each end, once."""


class Works:
    """All of this console. ``ended`` notes them."""

    def __init__(self, *, ended: Ended) -> None:
        self._ended = ended
        self._works: dict[str, Work] = {}

    def start(
        self, action: Action, job: Job, *, by: str, target: str, takes_queue: bool, number: str = "", place: str = ""
    ) -> Work:
        """Begin it. Raises QueueHeld where another one takes the dead-letter queue."""
        if takes_queue and (other := self.at_the_queue()) is not None:
            raise QueueHeld(f"{other.action.value} of {other.by} is at the dead-letter queue; stop it, or wait")
        number = number or secrets.token_hex(6)
        work = Work(
            number=number,
            action=action,
            by=by,
            target=target,
            place=place or f"/works/{number}",
            takes_queue=takes_queue,
        )
        self._works.pop(number, None)
        self._works[number] = work
        self._forget_old()
        work.task = asyncio.create_task(self._run(work, job), name=f"console: {action.value} {number}")
        return work

    def get(self, number: str) -> Work | None:
        """The latest work of this number."""
        return self._works.get(number)

    def at_the_queue(self) -> Work | None:
        """What takes the dead-letter queue now."""
        return next((work for work in self._works.values() if work.takes_queue and not work.is_over), None)

    def under_way(self) -> list[Work]:
        """All that are not over, the latest first."""
        return [work for work in reversed(self._works.values()) if not work.is_over]

    async def close(self) -> None:
        """Ask all to end, give them a while, then end them: what they had in hand goes back to its place."""
        tasks = {work.task for work in self.under_way() if work.task is not None}
        for work in self.under_way():
            work.ask_to_stop()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _run(self, work: Work, job: Job) -> None:
        try:
            work.told = await job(work)
        except WorkerError as error:
            work.failed, work.told = True, mask_text(str(error))
        except asyncio.CancelledError:
            work.failed, work.told = True, "the console ended meanwhile"
            raise
        except Exception:  # the outermost boundary of a task
            work.failed, work.told = True, "a fault of this program; its log has the details"
            log.exception("console.work_failed", work=work.action.value)
        finally:
            work.ended_us, work.stop = wall_us(), None
        await self._ended(work)

    def _forget_old(self) -> None:
        over = [number for number, work in self._works.items() if work.is_over]
        for number in over[: max(0, len(self._works) - MOST_KEPT)]:
            del self._works[number]
