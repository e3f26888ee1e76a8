"""Bringing planned dead letters to their end, in this order of effects, so that a crash anywhere loses nothing:

    copy confirmed by the broker -> journalled (``moved``) -> the dead letter acknowledged
    superseded: history row -> journalled -> the dead letter acknowledged

Killed before the journal: the copy goes out a second time, with the version of the first one, which is harmless. Killed
behind it: the plan says ``moved``, and the letter is only taken away.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from worker.core.deadletter import DeadLetter
from worker.core.errors import CopyFailed, CopyReturned, CopyUnencodable
from worker.core.forecast import Forecast, Grounds, Kind
from worker.core.headers import body_only
from worker.core.history import ItemState, LetterState, ReplayItem
from worker.core.journal import BatchRecord
from worker.ports import Outlet, Taking, WallClock
from worker.replay.books import Books
from worker.replay.care import Care, Ended, Halted
from worker.replay.judging import Prepared, Preparing, superseded_row

log = structlog.get_logger(__name__)

AHEAD = 100
"""Letters that are judged together."""
Planned = tuple[ReplayItem, DeadLetter]
Told = Callable[[ItemState, int], None]
"""Hears of so many messages that came to this state."""
GroundsNow = Callable[[], Grounds]
"""The rules at this moment: the time is one of them."""


class Moving:
    """Works on the letters of one taking. ``stopping`` is asked before each portion."""

    def __init__(
        self,
        books: Books,
        outlet: Outlet,
        preparing: Preparing,
        care: Care,
        *,
        grounds: GroundsNow,
        stopping: Callable[[], bool],
        wall_us: WallClock,
        told: Told,
    ) -> None:
        self._books = books
        self._outlet = outlet
        self._preparing = preparing
        self._care = care
        self._grounds = grounds
        self._stopping = stopping
        self._wall_us = wall_us
        self._told = told

    async def bring(self, taking: Taking | None, planned: Sequence[Planned]) -> int:
        """Bring these to their end; returns how many are (all, unless it is to stop). ``taking``: where to remove them
        from; None: nowhere.

        Raises Halted, CopyFailed, JournalUnavailable, ConnectionLost: what was done is journalled, the rest is open.
        """
        done = 0
        for start in range(0, len(planned), AHEAD):
            if self._stopping():
                break
            go = await self._sort_out(taking, planned[start : start + AHEAD])
            done += len(planned[start : start + AHEAD]) - len(go)
            while go and not self._stopping():
                count = await self._care.next(len(go))
                if count:
                    done += await self._copy(taking, go[:count])
                    del go[:count]
        return done

    async def finish(self, taking: Taking, planned: Sequence[Planned]) -> None:
        """Take letters away whose end is journalled already."""
        moved = [each for each in planned if each[0].state is ItemState.MOVED]
        dropped = [each for each in planned if each[0].state is ItemState.SUPERSEDED]
        if moved:
            await self._mark([item.copy_id for item, _ in moved], LetterState.REPLAYED)
        if dropped:
            await self._mark([item.copy_id for item, _ in dropped], LetterState.REMOVED)
        if moved or dropped:
            await taking.remove([letter for _, letter in (*moved, *dropped)])

    async def _sort_out(self, taking: Taking | None, planned: Sequence[Planned]) -> list[Prepared]:
        """Settle what has no copy to make; returns the others."""
        now_us = self._wall_us()
        prepared = [self._preparing.prepare(item, letter, now_us=now_us) for item, letter in planned]
        orders = list(dict.fromkeys(each.order_id for each in prepared if each.order_id is not None))
        known = await self._books.known(orders) if orders else {}
        grounds = replace(self._grounds(), allow_terminal=self._preparing.options.allow_terminal)
        judged = [(each, each.forecast(known, grounds)) for each in prepared]
        keep = self._preparing.options.keep_superseded
        superseded = [pair for pair in judged if pair[1].kind is Kind.SUPERSEDED]
        left = [pair for pair in judged if pair[1].kind is Kind.RETURNS]
        if keep:
            left += superseded
        elif superseded:
            await self._drop(taking, superseded)
        if left:
            await self._note(left, ItemState.LEFT)
        return [each for each, forecast in judged if forecast.kind is Kind.APPLY]

    async def _drop(self, taking: Taking | None, superseded: Sequence[tuple[Prepared, Forecast]]) -> None:
        wall_us, replay_id = self._wall_us(), self._preparing.replay_id
        rows = [superseded_row(*pair, replay_id=replay_id, wall_us=wall_us) for pair in superseded]
        await self._books.record(BatchRecord(wall_us=wall_us, history=rows))
        await self._note(superseded, ItemState.SUPERSEDED)
        await self._mark([each.item.copy_id for each, _ in superseded], LetterState.REMOVED)
        if taking is not None:
            await taking.remove([each.letter for each, _ in superseded])

    async def _copy(self, taking: Taking | None, portion: Sequence[Prepared]) -> int:
        """Publish a portion, journal what was confirmed, take it away; then raise what went wrong."""
        self._care.spend(len(portion))
        results = await asyncio.gather(*map(self._publish, portion), return_exceptions=True)
        pairs = list(zip(portion, results, strict=True))
        confirmed = [each for each, failed in pairs if failed is None]
        impossible = [(each, _impossible(failed)) for each, failed in pairs if isinstance(failed, CopyUnencodable)]
        if impossible:
            await self._note(impossible, ItemState.LEFT)
        if confirmed:
            await self._note([(each, None) for each in confirmed], ItemState.MOVED)
            await self._mark([each.item.copy_id for each in confirmed], LetterState.REPLAYED)
            if taking is not None:
                await taking.remove([each.letter for each in confirmed])
        _raise_worst(results)
        return len(portion)

    async def _publish(self, prepared: Prepared) -> None:
        if prepared.target is None:
            raise CopyUnencodable("no exchange is known")
        exchange, key = prepared.target
        copy = prepared.copy
        try:
            await self._outlet.publish(exchange, key, copy.body, copy.properties)
        except CopyUnencodable as error:
            log.warning("broker.copy_reduced", target=exchange, detail=str(error))
            bare = body_only(copy)
            await self._outlet.publish(exchange, key, bare.body, bare.properties)

    async def _note(self, pairs: Sequence[tuple[Prepared, Forecast | None]], state: ItemState) -> None:
        items = [
            replace(each.item, state=state, detail=forecast.detail if forecast is not None else "")
            for each, forecast in pairs
        ]
        await self._books.plan(self._preparing.replay_id, items)
        self._told(state, len(items))

    async def _mark(self, copy_ids: Sequence[str], state: LetterState) -> None:
        await self._books.mark(copy_ids, state, wall_us=self._wall_us())


def _impossible(error: CopyUnencodable) -> Forecast:
    return Forecast(kind=Kind.RETURNS, detail=f"no copy of it can be made: {error}")


def _raise_worst(results: Sequence[BaseException | None]) -> None:
    """A missing binding before all else: waiting does not help it."""
    failed = [result for result in results if result is not None and not isinstance(result, CopyUnencodable)]
    for error in failed:
        if isinstance(error, CopyReturned):
            raise Halted(Ended.UNROUTABLE, str(error)) from error
    for error in failed:
        if not isinstance(error, CopyFailed):
            raise error
    if failed:
        raise failed[0]


def is_ours(letter: DeadLetter) -> bool:
    """A dead letter that a worker made: no other message has its id. What the broker made has the producer's."""
    return letter.history.reason is not None and not letter.deaths
