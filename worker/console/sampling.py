"""Looks at workers and queues every few seconds and remembers an hour of it. Nothing is written anywhere: a console
that was just started knows what is now, and learns the rest."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from worker.adapters import adminclient
from worker.console.figures import Counted, Sample, counted_in
from worker.core.errors import AdminFailed, JournalOutdated, JournalUnavailable
from worker.core.history import Pause, Sought
from worker.core.vitals import Depths, QueueKind
from worker.lookups import reasons_of, total
from worker.replay.books import Books

log = structlog.get_logger(__name__)

EVERY_S: Final = 10.0
KEPT: Final = 361
"""An hour of samples."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """One worker at the latest look: what it says, or why it says nothing."""

    url: str
    state: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class Now:
    """Everything at the latest look. ``indexed`` are dead letters in the journal's index; ``pauses`` those of the
    queue; both None where the journal does not say (``journal_problem``)."""

    workers: Sequence[Seen] = ()
    depths: Depths = field(default_factory=dict)
    indexed: int | None = None
    pauses: Sequence[Pause] | None = None
    journal_problem: str = ""


class LookingDepths(Protocol):
    """What knows how deep the queues are."""

    async def look(self) -> Depths:
        """Never raises."""
        ...


class Sampler:
    """Looks while ``run`` runs. Whatever is away is told as such, and looked for again."""

    def __init__(
        self,
        *,
        workers: Sequence[str],
        token: str,
        depths: LookingDepths,
        books: Callable[[], Awaitable[Books]],
        queue: str,
        dead_queue: str,
    ) -> None:
        self._workers = tuple(url.rstrip("/") for url in workers)
        self._token = token
        self._depths = depths
        self._books = books
        self._queue = queue
        self._dead_queue = dead_queue
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.now = Now()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # the outermost boundary of a task
                log.exception("console.look_failed")
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Once, at everything at the same time."""
        looked, depths, told = await asyncio.gather(self._all_workers(), self._depths.look(), self._journal())
        seen = [each for each, _, _ in looked]
        counted = {each.url: figures for each, figures, _ in looked if figures is not None}
        ages = [age for _, _, age in looked if age is not None]
        indexed, pauses, problem = told
        self.now = Now(workers=seen, depths=depths, indexed=indexed, pauses=pauses, journal_problem=problem)
        ready = {kind: depth.ready for kind, depth in depths.items()}
        self.samples.append(
            Sample(
                at_s=time.time(),
                counted=counted,
                oldest_s=max(ages, default=None),
                work=ready.get(QueueKind.WORK),
                retry=ready.get(QueueKind.RETRY),
                dead=ready.get(QueueKind.DEAD, indexed),
            )
        )

    async def _all_workers(self) -> list[tuple[Seen, Counted | None, float | None]]:
        behind = await asyncio.gather(*map(adminclient.each_behind, self._workers))
        return await asyncio.gather(*(self._worker(url) for urls in behind for url in urls))

    async def _worker(self, url: str) -> tuple[Seen, Counted | None, float | None]:
        try:
            state, text = await asyncio.gather(
                adminclient.look_at(url, self._token), adminclient.figures_at(url), return_exceptions=True
            )
            if isinstance(state, BaseException):
                raise state
            counted, oldest = (None, None) if isinstance(text, BaseException) else counted_in(text)
        except AdminFailed as error:
            return Seen(url=url, problem=str(error).removeprefix(f"{url}/state: ")), None, None
        except (ValueError, TypeError):
            return Seen(url=url, problem="answers, but not as a worker does"), None, None
        return Seen(url=url, state=state), counted, oldest

    async def _journal(self) -> tuple[int | None, Sequence[Pause] | None, str]:
        try:
            books = await self._books()
            indexed = total(await reasons_of(books, Sought(queue=self._dead_queue)))
            return indexed, await books.pauses(self._queue), ""
        except (JournalUnavailable, JournalOutdated) as error:
            return None, None, str(error)
