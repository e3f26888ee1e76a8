"""The first page: is it working, is it keeping up? And pause and resume, through the workers that answer, or else
through the journal, which all workers of the queue follow."""

import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiohttp import web

from worker.adapters import adminclient
from worker.console import figures
from worker.console.charts import chart
from worker.console.desk import Desk, who
from worker.console.figures import Counted, Sample
from worker.console.live import Parts, stream
from worker.console.sampling import Sampler, Seen
from worker.core.audit import Action, Outcome
from worker.core.errors import AdminFailed
from worker.core.excerpt import excerpt
from worker.core.history import Pause, PauseKind
from worker.ports import wall_us

log = structlog.get_logger(__name__)

LIVE_EVERY_S: Final = 2.0
LONGEST_REASON: Final = 200


class NowPages:
    """The page ``/now``, and what it can do."""

    def __init__(self, desk: Desk, sampler: Sampler) -> None:
        self._desk = desk
        self._sampler = sampler

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/now", self.show),
            web.get("/now/live", self.live),
            web.post("/now/pause", self.pause),
            web.post("/now/resume", self.resume),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """State of workers and queues, figures, charts."""
        if not self._sampler.samples:
            await self._sampler.look()
        return self._desk.pages.page(request, "now.html", title="Now", **self._told())

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The same, as long as somebody watches; over when somebody else paused or resumed (``paused`` is what the page
        shows), so that it offers what can be done now."""
        shown = request.query.get("paused", "")

        async def render() -> Parts | None:
            pauses = self._sampler.now.pauses
            if shown and pauses is not None and shown != ("1" if pauses else "0"):
                return None
            return {"now": self._desk.pages.fragment(request, "_now.html", **self._told())}

        return await stream(request, render, every_s=LIVE_EVERY_S)

    def _told(self) -> dict[str, Any]:
        now, samples = self._sampler.now, list(self._sampler.samples)
        latest = samples[-1] if samples else Sample(at_s=0.0)
        return {
            "now": now,
            "verdict": verdict(now.workers, now.pauses),
            "latest": latest,
            "figures": _figures(samples),
            "charts": _charts(samples),
            "under_way": self._desk.works.under_way(),
        }

    async def pause(self, request: web.Request) -> web.Response:
        """Have all workers of the queue hand everything back and consume nothing."""
        person = who(request)
        reason = excerpt(str((await request.post()).get("reason", "")), limit=LONGEST_REASON)
        detail = f"{reason or 'no reason was given'} (by {person.name}, in the console)"
        if not await self._ask("pause", {"detail": detail}):
            books = await self._desk.books()
            pause = Pause(
                queue=self._desk.settings.queue,
                kind=PauseKind.MANUAL,
                detail=detail,
                by=person.name,
                since_us=wall_us(),
            )
            await books.pause(pause)
        await self._desk.auditing.note(person.name, Action.PAUSE, Outcome.DONE, self._desk.settings.queue, reason)
        await self._sampler.look()
        raise web.HTTPSeeOther("/now")

    async def resume(self, request: web.Request) -> web.Response:
        """End the pauses of the queue."""
        person = who(request)
        asked = await self._ask("resume", {})
        ended = await (await self._desk.books()).resume(self._desk.settings.queue)
        outcome = Outcome.DONE if asked or ended else Outcome.FAILED
        await self._desk.auditing.note(person.name, Action.RESUME, outcome, self._desk.settings.queue)
        if outcome is Outcome.FAILED:
            raise web.HTTPConflict(text="nothing was paused by hand; other pauses end when their cause does")
        await self._sampler.look()
        raise web.HTTPSeeOther("/now")

    async def _ask(self, command: str, body: dict[str, str]) -> int:
        """Every worker; how many did it."""
        did = 0
        for url in self._desk.settings.console_workers:
            token = self._desk.settings.admin.admin_token
            try:
                status, _ = await adminclient.ask_at(url.rstrip("/"), token, command, body)
                did += status == 200
            except AdminFailed as error:
                log.warning("console.worker_away", url=url, detail=str(error))
        return did


def verdict(workers: Sequence[Seen], pauses: Sequence[Pause] | None) -> tuple[str, str]:
    """The whole in a word (good, warn, bad) and a sentence."""
    if pauses:
        return "warn", f"Paused: {pauses[0].detail or 'no reason was given'}"
    answering = [seen for seen in workers if not seen.problem]
    if not workers or not answering:
        return "bad", "No worker answers: events wait in the queue"
    troubled = [seen for seen in answering if not seen.state.get("ready")]
    if len(troubled) == len(answering):
        state = troubled[0].state
        return "bad", f"Not working: {state.get('reason') or 'unknown'}. {state.get('detail') or ''}".strip()
    if troubled or len(answering) < len(workers):
        return "warn", "Working, but not every worker is ready"
    return "good", "Working"


def _settled(counted: Counted) -> float:
    return counted.settled


def _calls(counted: Counted) -> float:
    return counted.calls


def _dead(counted: Counted) -> float:
    return counted.dead


def _figures(samples: list[Sample]) -> dict[str, float | None]:
    per_minute, ratio = figures.per_minute, figures.ratio
    return {
        "events": per_minute(samples, _settled),
        "calls": per_minute(samples, _calls),
        "coalescing": ratio(samples, lambda counted: counted.applied, lambda counted: counted.entries),
        "fill": ratio(samples, lambda counted: counted.entries, _calls),
        "dead": per_minute(samples, _dead, over_s=300.0),
        "retried": per_minute(samples, lambda counted: counted.retried, over_s=300.0),
        "failed_calls": ratio(samples, lambda counted: counted.failed_calls, _calls),
        "good": ratio(samples, lambda counted: counted.good, _settled),
    }


def _charts(samples: list[Sample]) -> dict[str, object]:
    now_s = time.time()
    return {
        "events": chart("Events per minute", figures.series(samples, _settled), now_s=now_s),
        "calls": chart("Calls per minute", figures.series(samples, _calls), now_s=now_s),
        "dead": chart("Dead letters per minute", figures.series(samples, _dead), now_s=now_s),
        "work": chart("Waiting events", figures.levels(samples, lambda each: each.work), now_s=now_s),
        "oldest": chart("Oldest event", figures.levels(samples, lambda each: each.oldest_s), now_s=now_s, unit=" s"),
        "letters": chart("Dead letters", figures.levels(samples, lambda each: each.dead), now_s=now_s),
    }
