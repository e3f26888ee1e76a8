"""Carrying out a replay of the letters of a file: each goes as the file has it, then its letter leaves the queue."""

from collections.abc import Sequence
from dataclasses import replace

from worker.core.history import ItemState, Replay
from worker.ports import Taking
from worker.replay.books import PAGE, State
from worker.replay.care import Ended
from worker.replay.executing import FINISHED, WINDOW, Execution, Result, Tools, refusal
from worker.replay.filing import LetterFile, letter_of
from worker.replay.judging import Preparing
from worker.replay.moving import Planned, is_ours

_TAKEN = "its letter was taken out of the queue"
_GONE = "its letter was not in the queue any more"


class FileExecution(Execution):
    """The places of the plan are those of the letters in the file. A letter that is gone from the queue goes all the
    same, and its item says so."""

    def __init__(self, replay: Replay, preparing: Preparing, tools: Tools, *, file: LetterFile) -> None:
        super().__init__(replay, preparing, tools)
        self._file = file
        self._edited = True

    async def _check(self) -> Result | None:
        """Whether every edited line that is still to go is an event. None: it is."""
        problems: list[str] = []
        place = 0
        for portion in self._file.portions():
            items = await self._books.items(self._id, after=place - 1, limit=len(portion))
            for item, filed in zip(items, portion, strict=True):
                if filed.edited and item.state is ItemState.PLANNED:
                    problems += self._problem(item, letter_of(filed))
            place += len(portion)
        return refusal(problems)

    async def _work_through(self, taking: Taking) -> Result | None:
        """The copies first: a letter that is taken out of the queue has to be at work already."""
        await self._books.turn(self._id, State.RUNNING, wall_us=self._tools.wall_us())
        place = 0
        for portion in self._file.portions():
            items = await self._books.items(self._id, after=place - 1, limit=len(portion))
            pairs = [(item, letter_of(filed)) for item, filed in zip(items, portion, strict=True)]
            await self._moving.bring(None, [pair for pair in pairs if pair[0].state is ItemState.PLANNED])
            place += len(portion)
        windows = taking.windows(WINDOW)
        while not self._stopping.is_set() and (window := await anext(windows, None)) is not None:
            await self._take_out(taking, [each for each in await self._found(window) if each[0].state in FINISHED])
        if self._stopping.is_set():
            return Result(ended=Ended.STOPPED)
        if not taking.complete:
            detail = "some letters are in other hands: they may still be in the queue; resume it later"
            return Result(ended=Ended.PARTLY, detail=detail)
        await self._say_gone()
        return None

    async def _take_out(self, taking: Taking, found: Sequence[Planned]) -> None:
        # Two letters that others made may have one id: of those only the one that was noted before is taken out.
        found = [each for each in found if is_ours(each[1]) or each[0].detail != _TAKEN]
        noted = {item.place: item for item, _ in found if item.state is ItemState.MOVED and item.detail != _TAKEN}
        await self._books.plan(self._id, [replace(item, detail=_TAKEN) for item in noted.values()])
        await self._moving.finish(taking, found)

    async def _say_gone(self) -> None:
        after = -1
        while page := await self._books.items(self._id, after=after, limit=PAGE):
            after = page[-1].place
            gone = [item for item in page if item.state is ItemState.MOVED and not item.detail]
            await self._books.plan(self._id, [replace(item, detail=_GONE) for item in gone])
