"""Publishing as a use case: what is confirmed, what is sent again, how it ends, and what a kill leaves behind."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.decode import EventSchema
from worker.core.errors import CopyFailed, CopyReturned, UsageError
from worker.core.lines import Line, LineRules, Splitter
from worker.core.model import Properties
from worker.core.progress import Progress
from worker.core.publication import Ended, Pace, Result
from worker.linefile import StateFile, read_lines, scan
from worker.publishing import Publication

RULES = LineRules(EventSchema({}, frozenset(), 300.0))
NOW_US = 1_795_255_200_000_000
EVENT = b'{"id":1,"status":4}'

Answer = Callable[[str, int], Exception | None]
"""Message id and number of the try (from 1): None confirms."""


class FakeOutlet:
    """Implements ``ports.Outlet``. ``stored`` is what the broker holds, in order; an answer decides on each publish."""

    def __init__(self, answer: Answer = lambda _id, _try: None) -> None:
        self.stored: list[tuple[str, bytes, Properties]] = []
        self.tries: Counter[str] = Counter()
        self.flying: set[str] = set()
        self.most_flying = 0
        self.closes = 0
        self._answer = answer

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> None:
        name = properties.message_id or ""
        assert (exchange, routing_key) == ("e", "1")
        assert name not in self.flying, "an id in flight twice"
        self.flying.add(name)
        self.most_flying = max(self.most_flying, len(self.flying))
        try:
            await asyncio.sleep(0)
            self.tries[name] += 1
            error = self._answer(name, self.tries[name])
            # Not confirmed may still be stored: that is the harder case.
            self.stored.append((name, body, properties))
            if error is not None:
                raise error
        finally:
            self.flying.remove(name)

    async def close(self) -> None:
        assert not self.flying, "closed under publishes in flight"
        self.closes += 1


def progress() -> Progress:
    """A run that has not begun."""
    return Progress(run_id="run", exchange="e")


async def batches(*texts: bytes, size: int = 7) -> AsyncIterator[Sequence[Line]]:
    """The lines of these texts, a few at a time."""
    lines = Splitter().feed(b"".join(text + b"\n" for text in texts))
    for start in range(0, len(lines), size):
        yield lines[start : start + size]
    yield []


async def publish(outlet: FakeOutlet, texts: Iterable[bytes], **given: Any) -> Result:
    """One try with everything else as usual."""
    return await publication(outlet, **given).run(batches(*texts))


def publication(
    outlet: FakeOutlet,
    *,
    state: StateFile | None = None,
    begun: Progress | None = None,
    pace: Pace | None = None,
    stop_at: int | None = None,
    now_us: int = NOW_US,
) -> Publication:
    """A try that stops by itself when ``stop_at`` events are confirmed."""

    def told(count: int) -> None:
        if count == stop_at:
            made.stop()

    made = Publication(
        outlet,
        begun or progress(),
        RULES,
        pace=pace or Pace(patience_s=5.0, window=4),
        state=state,
        told=told,
        wall_us=lambda: now_us,
    )
    return made


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A state file that does not exist yet."""
    return StateFile(tmp_path / "state")


async def test_every_line_is_confirmed_once_within_the_window(state: StateFile) -> None:
    """Blank lines are no events; nothing is left of the state when all is done."""
    outlet = FakeOutlet()
    result = await publish(outlet, [EVENT, b"", *[EVENT] * 10], state=state)

    assert (result.ended, result.confirmed, result.lines, result.resumed_from) == (Ended.DONE, 11, 11, 0)
    assert [name for name, _, _ in outlet.stored] == ["run-1", *(f"run-{number}" for number in range(3, 13))]
    assert outlet.most_flying == 4
    assert not state.path.exists()


async def test_what_is_sent_is_a_persistent_json_event_with_its_time() -> None:
    """Properties of an event: type, durability, id, and the second of its stamp."""
    outlet = FakeOutlet()
    await publish(outlet, [EVENT, EVENT])
    name, body, properties = outlet.stored[1]

    assert body == b'{"occurred_at":"2026-11-21T10:00:00.000001Z","id":1,"status":4}'
    assert (name, properties.content_type, properties.delivery_mode) == ("run-2", "application/json", 2)
    assert isinstance(properties.timestamp, datetime)
    assert properties.timestamp.isoformat() == "2026-11-21T10:00:00+00:00"


async def test_what_was_not_confirmed_is_sent_again_as_it_was() -> None:
    """After a loss: a new channel, the same ids, the same bodies, and only those that are open."""
    outlet = FakeOutlet(lambda name, nth: CopyFailed("lost") if name in {"run-5", "run-6"} and nth < 3 else None)
    result = await publish(outlet, [EVENT] * 12)

    assert (result.ended, result.confirmed) == (Ended.DONE, 12)
    assert {name: count for name, count in outlet.tries.items() if count > 1} == {"run-5": 3, "run-6": 3}
    assert len({(name, body) for name, body, _ in outlet.stored}) == 12
    assert outlet.closes == 2


async def test_a_missing_binding_ends_it_at_once(state: StateFile) -> None:
    """Waiting would not help; what was confirmed before stays known."""
    outlet = FakeOutlet(lambda name, _: CopyReturned("returned: no queue") if name == "run-4" else None)
    result = await publish(outlet, [EVENT] * 20, state=state)

    assert (result.ended, result.line, result.detail) == (Ended.UNROUTABLE, 4, "returned: no queue")
    assert max(outlet.tries.values()) == 1
    later = await publish(FakeOutlet(), [EVENT] * 20, state=state, begun=state.load())
    assert (later.ended, later.confirmed, later.resumed_from) == (Ended.DONE, 20, result.confirmed)


async def test_patience_has_an_end(state: StateFile) -> None:
    """A broker that stays away ends it; the reason and the first line that is open are told."""
    result = await publish(
        FakeOutlet(lambda name, _: None if name == "run-1" else CopyFailed("no broker")),
        [EVENT] * 9,
        state=state,
        pace=Pace(patience_s=0.05, window=4),
    )

    assert (result.ended, result.line, result.detail) == (Ended.GAVE_UP, 2, "no broker")
    assert result.confirmed == 1


async def test_a_stop_saves_and_the_next_try_does_the_rest(state: StateFile) -> None:
    """Everything exactly once when nothing failed, over both tries."""
    outlet = FakeOutlet()
    first = await publish(outlet, [EVENT] * 30, state=state, stop_at=5)
    second = await publish(outlet, [EVENT] * 30, state=state, begun=state.load())

    assert (first.ended, second.ended) == (Ended.STOPPED, Ended.DONE)
    assert 5 <= first.confirmed == second.resumed_from < 30
    assert second.confirmed == 30
    assert set(outlet.tries.values()) == {1}


async def test_a_stop_ends_the_waiting_for_a_lost_broker(state: StateFile) -> None:
    """Ctrl-C while nothing is confirmed: at once, not after the patience."""
    waiting = asyncio.Event()

    def lost(_name: str, nth: int) -> Exception:
        if nth == 2:
            waiting.set()
        return CopyFailed("lost")

    stopped = publication(FakeOutlet(lost), state=state, pace=Pace(patience_s=60.0))
    running = asyncio.create_task(stopped.run(batches(EVENT)))
    async with asyncio.timeout(10):
        await waiting.wait()
        stopped.stop()
        result = await running

    assert (result.ended, result.confirmed) == (Ended.STOPPED, 0)
    assert state.path.exists()


async def test_a_stop_ends_the_waiting_for_more_lines(state: StateFile) -> None:
    """A stream that is silent must not hold the program."""
    reader, writer = os.pipe()
    os.write(writer, EVENT + b"\n")
    try:
        async with asyncio.timeout(10):
            result = await publication(FakeOutlet(), state=state, stop_at=1).run(read_lines(reader))
    finally:
        os.close(reader)
        os.close(writer)

    assert (result.ended, result.confirmed) == (Ended.STOPPED, 1)


async def test_a_bad_line_of_a_stream_ends_it_behind_the_good_ones(state: StateFile) -> None:
    """Order matters, so nothing behind it goes out; the number is the editor's."""
    outlet = FakeOutlet()
    result = await publish(outlet, [EVENT, b"", b'{"id":1}', EVENT], state=state)

    assert (result.ended, result.line, result.confirmed) == (Ended.BAD_LINE, 3, 1)
    assert "nothing to change" in result.detail
    assert len(outlet.stored) == 1


async def test_a_rate_is_kept() -> None:
    """Twenty events at 200 a second take at least 19 gaps."""
    began = time.monotonic()
    await publish(FakeOutlet(), [EVENT] * 20, pace=Pace(rate=200.0))

    assert time.monotonic() - began >= 19 / 200


async def test_a_changed_input_is_refused(state: StateFile) -> None:
    """The state belongs to the lines it was made for."""
    await publish(FakeOutlet(), [EVENT] * 5, state=state, stop_at=3)

    with pytest.RaisesGroup(pytest.RaisesExc(UsageError, match="input changed")):
        await publish(FakeOutlet(), [b'{"id":1,"status":8}'] * 5, begun=state.load())


class Killed(FakeOutlet):
    """An outlet that keeps the state file as it was when the process is killed, in the middle of publish ``at``."""

    def __init__(self, state: StateFile, at: int) -> None:
        super().__init__(self._note)
        self.left: bytes = b""
        self._state = state
        self._at = at

    def _note(self, name: str, _nth: int) -> Exception | None:
        if not self.left and self.tries.total() >= self._at:
            self.left = self._state.path.read_bytes()
        return CopyFailed("the process is gone") if self.left else None


@settings(max_examples=25, deadline=None)
@given(kills=st.lists(st.integers(1, 12), max_size=4), count=st.integers(1, 25))
def test_kills_at_any_moment_keep_stamps_and_ids(
    tmp_path_factory: pytest.TempPathFactory, *, kills: list[int], count: int
) -> None:
    """Every line reaches the broker; what comes twice has the same id, the same body and the same time."""
    state = StateFile(tmp_path_factory.mktemp("kill") / "state")
    texts = [b'{"id":1,"status":%d}' % number for number in range(count)]
    stored: list[tuple[str, bytes, Properties]] = []
    clock = NOW_US
    for at in kills:
        outlet, clock = Killed(state, at), clock + 10_000_000
        begun = state.load() or progress()
        result = asyncio.run(
            publish(outlet, texts, begun=begun, pace=Pace(patience_s=0.0, window=4), state=state, now_us=clock)
        )
        stored += outlet.stored
        if result.ended is Ended.DONE:
            break
        state.path.write_bytes(outlet.left)
    else:
        last = FakeOutlet()
        asyncio.run(publish(last, texts, begun=state.load(), now_us=clock))
        stored += last.stored

    bodies = {name: body for name, body, _ in stored}
    assert set(bodies) == {f"run-{number}" for number in range(1, count + 1)}
    assert all(bodies[name] == body for name, body, _ in stored)
    times = [json.loads(bodies[f"run-{number}"])["occurred_at"] for number in range(1, count + 1)]
    assert times == sorted(set(times))


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """Makes files and opens them."""
    opened: list[int] = []

    def make(content: bytes) -> int:
        path = tmp_path / f"lines-{len(opened)}"
        path.write_bytes(content)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make
    for descriptor in opened:
        os.close(descriptor)


async def test_a_file_reads_the_same_after_the_scan(file: Callable[[bytes], int]) -> None:
    """The scan goes back to the beginning; large files come in parts."""
    descriptor = file((EVENT + b"\n") * 10_000 + b"\n" + EVENT)
    found = scan(descriptor, RULES, now_us=NOW_US)
    lines = [line async for batch in read_lines(descriptor) for line in batch]

    assert (found.last_line, found.events, found.bad) == (10_002, 10_001, 0)
    assert (len(lines), lines[-1].number) == (10_002, 10_002)


def test_a_scan_tells_the_first_problems_and_counts_all(file: Callable[[bytes], int]) -> None:
    """A file in another format must not print a million lines."""
    found = scan(file(EVENT + b"\n" + b"id;status\n" * 30), RULES, now_us=NOW_US)

    assert (found.events, found.bad) == (31, 30)
    assert [number for number, _ in found.problems] == list(range(2, 22))
    assert "not JSON" in found.problems[0][1]


def test_a_state_that_is_none_is_refused(state: StateFile) -> None:
    """With the name of the file, and what to do."""
    assert state.load() is None
    for content in ("nonsense", "[]", "{}"):
        state.path.write_text(content)
        with pytest.raises(UsageError, match=r"state.*--restart"):
            state.load()


def test_a_state_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Before anything is sent: what cannot be resumed must be known as such."""
    with pytest.raises(UsageError, match="use --state"):
        StateFile(tmp_path / "missing" / "state").save(progress())
