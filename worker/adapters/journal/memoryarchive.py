"""The part of the journal in memory that is for people: history, letters, pauses, replays."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from worker.core.audit import Deed
from worker.core.errors import UsageError
from worker.core.fields import INT64_MIN
from worker.core.history import (
    DAY_US,
    HOUR_US,
    Fate,
    GroupBy,
    HistoryRow,
    Holder,
    IndexedLetter,
    ItemState,
    LetterState,
    Pause,
    Replay,
    ReplayItem,
    Sought,
    Tally,
)
from worker.core.journal import BatchRecord

ROWS_KEPT = 20_000
"""Letters, and items of one replay: the latest of each."""
HISTORY_KEPT = 2_000
"""History rows, about: whole batches of them, and the latest one in any case."""


class MemoryArchive:
    """Implements all ports of the journal but the ledger for one process life."""

    def __init__(self) -> None:
        self._told: deque[tuple[int, Sequence[HistoryRow]]] = deque()
        self._rows_kept = 0
        self._last_number = [0]  # one place for all that share this journal's parts
        self._letters: dict[str, IndexedLetter] = {}
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._replays: dict[str, Replay] = {}
        self._plans: dict[str, dict[int, ReplayItem]] = {}
        self._seen: dict[str, int] = {}
        self._holders: dict[str, Holder] = {}
        self._deeds: deque[Deed] = deque(maxlen=ROWS_KEPT)

    def _take_down(self, record: BatchRecord) -> None:
        """The rows of a batch as they are: many are made when they are looked at."""
        if record.history:
            self._told.append((self._number(len(record.history)), record.history))
            self._rows_kept += len(record.history)
        while self._rows_kept > HISTORY_KEPT and len(self._told) > 1:
            self._rows_kept -= len(self._told.popleft()[1])

    def _number(self, several: int = 1) -> int:
        """The first of so many numbers."""
        self._last_number[0] += several
        return self._last_number[0] - several + 1

    @property
    def _rows(self) -> Iterator[tuple[int, HistoryRow]]:
        return chain.from_iterable(enumerate(rows, first) for first, rows in self._told)

    async def close(self) -> None:
        """Nothing to close."""

    # -- history ------------------------------------------------------------------------------------------------------

    async def history(self, order_id: int, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, HistoryRow]]:
        """What happened to an order."""
        return list(islice(((n, row) for n, row in self._rows if n > after and row.order_id == order_id), limit))

    async def prune(self, before_us: int, *, limit: int = 1000) -> int:
        """Forget old history, letters that are gone, and replays; orders are bounded in number, not by age."""
        old = self._forget_rows(before_us, limit)
        letters = [
            letter.copy_id
            for letter in self._letters.values()
            if letter.state is not LetterState.DEAD and (letter.state_us or 0) < before_us
        ]
        for copy_id in letters[:limit]:
            del self._letters[copy_id]
            self._seen.pop(copy_id, None)
        replays = [each.replay_id for each in self._replays.values() if each.changed_us < before_us]
        for replay_id in replays[:limit]:
            del self._replays[replay_id], self._plans[replay_id]
        deeds = [deed for deed in self._deeds if deed.at_us < before_us][:limit]
        for deed in deeds:
            self._deeds.remove(deed)
        return old + len(letters[:limit]) + len(replays[:limit]) + len(deeds)

    def _forget_rows(self, before_us: int, limit: int) -> int:
        old = {number for number, _ in islice(((n, row) for n, row in self._rows if row.at_us < before_us), limit)}
        if old:
            self._told = deque((number, (row,)) for number, row in self._rows if number not in old)
            self._rows_kept = len(self._told)
        return len(old)

    async def horizon_us(self) -> int:
        """No order is forgotten by age."""
        return INT64_MIN

    # -- pauses -------------------------------------------------------------------------------------------------------

    async def pause(self, pause: Pause) -> None:
        """The first one of its kind stays."""
        self._pauses.setdefault((pause.queue, pause.kind), pause)

    async def resume(self, queue: str) -> bool:
        """End all pauses of the queue."""
        ended = [key for key in self._pauses if key[0] == queue]
        for key in ended:
            del self._pauses[key]
        return bool(ended)

    async def pauses(self, queue: str) -> Sequence[Pause]:
        """The pauses of the queue."""
        return sorted((pause for pause in self._pauses.values() if pause.queue == queue), key=_since)

    # -- letters ------------------------------------------------------------------------------------------------------

    async def add(self, letters: Sequence[IndexedLetter]) -> None:
        """Put letters in."""
        for letter in letters:
            if letter.copy_id not in self._letters:
                self._letters[letter.copy_id] = replace(letter, seq=self._number())
        while len(self._letters) > ROWS_KEPT:
            oldest = next(iter(self._letters))
            del self._letters[oldest]
            self._seen.pop(oldest, None)

    async def page(self, sought: Sought, *, after: int = 0, limit: int = 1000) -> Sequence[IndexedLetter]:
        """The next letters."""
        return list(islice((each for each in self._sought(sought) if each.seq > after), limit))

    async def tallies(self, sought: Sought, by: GroupBy, *, limit: int = 100) -> Sequence[Tally]:
        """Counts, the most frequent first."""
        groups: dict[str | int | None, list[IndexedLetter]] = {}
        for letter in self._sought(sought):
            groups.setdefault(_key(letter, by), []).append(letter)
        tallies = [
            Tally(
                key=key,
                count=len(letters),
                oldest_us=min(each.failed_us for each in letters),
                newest_us=max(each.failed_us for each in letters),
                example=letters[-1].detail,
            )
            for key, letters in groups.items()
        ]
        return sorted(tallies, key=lambda tally: (-tally.count, -tally.newest_us))[:limit]

    async def mark(self, copy_ids: Sequence[str], state: LetterState, *, wall_us: int) -> int:
        """Say where these letters are now."""
        there = [self._letters[copy_id] for copy_id in dict.fromkeys(copy_ids) if copy_id in self._letters]
        moved = [letter for letter in there if letter.state is not state]
        for letter in moved:
            self._letters[letter.copy_id] = replace(letter, state=state, state_us=wall_us)
        return len(moved)

    async def seen(self, copy_ids: Sequence[str], *, wall_us: int) -> int:
        """These letters are in the queue."""
        there = [copy_id for copy_id in dict.fromkeys(copy_ids) if copy_id in self._letters]
        for copy_id in there:
            self._letters[copy_id] = replace(self._letters[copy_id], state=LetterState.DEAD, state_us=None)
            self._seen[copy_id] = wall_us
        return len(there)

    async def forget_unseen(self, queue: str, since_us: int, *, margin_us: int = 0, wall_us: int) -> int:
        """What nobody saw since is gone."""
        gone = [
            letter.copy_id
            for letter in self._sought(Sought(queue=queue, until_us=since_us - margin_us))
            if self._seen.get(letter.copy_id, INT64_MIN) < since_us
        ]
        return await self.mark(gone, LetterState.REMOVED, wall_us=wall_us)

    def _sought(self, sought: Sought) -> Iterable[IndexedLetter]:
        return (letter for letter in self._letters.values() if sought.matches(letter))

    # -- replays ------------------------------------------------------------------------------------------------------

    async def begin(self, replay: Replay) -> None:
        """Put a replay down."""
        if replay.replay_id in self._replays:
            raise UsageError(f"there is a replay {replay.replay_id!r} already")
        self._replays[replay.replay_id] = replay
        self._plans[replay.replay_id] = {}

    async def plan(self, replay_id: str, items: Sequence[ReplayItem]) -> None:
        """Add messages to its plan, or say what became of them."""
        self._plans[replay_id].update((item.place, item) for item in items)

    async def items(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[ReplayItem]:
        """The plan behind a place."""
        plan = self._plans.get(replay_id, {})
        return [plan[place] for place in sorted(place for place in plan if place > after)[:limit]]

    async def find(self, replay_id: str, copy_ids: Sequence[str]) -> Mapping[str, ReplayItem]:
        """Which of these messages are in its plan."""
        wanted = set(copy_ids)
        return {item.copy_id: item for item in self._plans.get(replay_id, {}).values() if item.copy_id in wanted}

    async def states(self, replay_id: str) -> Mapping[ItemState, int]:
        """How many of its messages are in which state."""
        return Counter(item.state for item in self._plans.get(replay_id, {}).values())

    async def outcomes(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Mapping[int, HistoryRow]:
        """The latest history row of the next places."""
        latest = self._latest(replay_id)
        return {place: latest[place] for place in sorted(place for place in latest if place > after)[:limit]}

    async def fates(self, replay_id: str) -> Mapping[Fate, int]:
        """How many of its messages met which fate last."""
        return Counter(Fate(row.disposition, row.reason) for row in self._latest(replay_id).values())

    async def replays(self, queue: str, *, limit: int = 100) -> Sequence[Replay]:
        """The latest replays of a queue."""
        found = [replay for replay in self._replays.values() if replay.queue == queue]
        return sorted(found, key=lambda replay: (-replay.created_us, replay.replay_id))[:limit]

    async def replay(self, replay_id: str) -> Replay | None:
        """The replay of that id."""
        return self._replays.get(replay_id)

    async def turn(self, replay_id: str, state: str, *, wall_us: int) -> None:
        """The replay is in this state now."""
        self._replays[replay_id] = replace(self._replays[replay_id], state=state, changed_us=wall_us)

    def _latest(self, replay_id: str) -> dict[int, HistoryRow]:
        rows = (row for _, row in self._rows if row.replay_id == replay_id)
        return {row.replay_place: row for row in rows if row.replay_place is not None}

    # -- holders ------------------------------------------------------------------------------------------------------

    async def hold(self, queue: str, holder: Holder) -> None:
        """This one holds the lock of the queue now."""
        self._holders[queue] = holder

    async def holder(self, queue: str) -> Holder | None:
        """Who held it last."""
        return self._holders.get(queue)

    # -- audit --------------------------------------------------------------------------------------------------------

    async def note(self, deed: Deed) -> None:
        """Put down what somebody did."""
        self._deeds.append(replace(deed, number=self._number()))

    async def deeds(self, *, before: int | None = None, limit: int = 100) -> Sequence[Deed]:
        """What people did, the latest first."""
        return list(islice((deed for deed in reversed(self._deeds) if before is None or deed.number < before), limit))


def _since(pause: Pause) -> tuple[int, str]:
    return pause.since_us, pause.kind


def _key(letter: IndexedLetter, by: GroupBy) -> str | int | None:
    match by:
        case GroupBy.REASON:
            return letter.reason
        case GroupBy.DETAIL:
            return letter.detail
        case GroupBy.ORDER:
            return letter.order_id
        case GroupBy.DAY:
            return letter.failed_us // DAY_US
        case GroupBy.HOUR:
            return letter.failed_us // HOUR_US
