"""How far a publication is: stamps that never change and never go back, counts that are exact, inputs that match."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.errors import UsageError
from worker.core.lines import Line, Splitter
from worker.core.progress import MAX_LAG_US, Progress

CLOCK = st.integers(0, 10 * MAX_LAG_US)


def progress() -> Progress:
    """A run that has not begun."""
    return Progress(run_id="run", exchange="e")


def again(state: Progress) -> Progress:
    """What a later process reads."""
    return Progress.from_json(json.loads(json.dumps(state.to_json())))


def lines(*texts: bytes) -> list[Line]:
    """Lines of these texts."""
    return Splitter().feed(b"".join(text + b"\n" for text in texts))


def begun(state: Progress, given_lines: Iterable[Line]) -> list[int]:
    """Which of these are still to be published."""
    return [line.number for line in given_lines if state.begin(line)]


@given(batches=st.lists(st.tuples(st.integers(1, 5), CLOCK), min_size=1, max_size=20), resumed=st.booleans())
def test_stamps_rise_with_the_lines_and_survive(batches: list[tuple[int, int]], *, resumed: bool) -> None:
    """Whatever the clock does, and wherever the run was cut: a later line is later, and a stamp never changes."""
    state, last, first_seen = progress(), 0, dict[int, int]()
    for count, now_us in batches:
        last += count
        state.reserve(last, now_us)
        state = again(state) if resumed else state
        for line in range(1, last + 1):
            assert first_seen.setdefault(line, state.stamp_us(line)) == state.stamp_us(line)

    stamps = [state.stamp_us(line) for line in range(1, last + 1)]
    assert stamps == sorted(set(stamps))


def test_a_live_stream_is_stamped_when_it_comes() -> None:
    """Lines that come an hour later happened an hour later."""
    state = progress()
    state.reserve(2, 1_000)
    state.reserve(3, 1_000 + MAX_LAG_US)
    state.reserve(4, 3_600_000_000)

    assert [state.stamp_us(line) for line in range(1, 5)] == [1_000, 1_001, 1_002, 3_600_000_000]


@given(st.permutations(range(1, 8)), st.integers(0, 7))
def test_confirmed_lines_are_not_begun_again(order: list[int], count: int) -> None:
    """In whatever order the confirms come: exactly the others are left, blank lines are nobody's."""
    texts = [b"x" if number != 4 else b"" for number in range(1, 8)]
    state = progress()
    state.reserve(7, 0)
    assert begun(state, lines(*texts)) == [1, 2, 3, 5, 6, 7]
    confirmed = [number for number in order if number != 4][:count]
    for number in confirmed:
        state.confirm(number)
    later = again(state)

    assert later.events == len(confirmed)
    assert begun(later, lines(*texts)) == [number for number in (1, 2, 3, 5, 6, 7) if number not in confirmed]
    later.check_end(7)


def test_everything_confirmed_is_one_number() -> None:
    """The state stays small: only what is beyond a gap is listed."""
    state = progress()
    state.reserve(3, 0)
    begun(state, lines(b"a", b"", b"c"))
    state.confirm(3)
    state.confirm(1)

    assert (state.confirmed_to, state.beyond, state.events) == (3, set(), 2)


def test_an_input_that_changed_is_refused() -> None:
    """Counting lines in another file would leave out events without a word."""
    state = progress()
    state.reserve(3, 0)
    begun(state, lines(b"a", b"b", b"c"))
    state.confirm(1)
    state.confirm(2)

    with pytest.raises(UsageError, match=r"changed since line 2 was published.*--restart"):
        begun(again(state), lines(b"a", b"B", b"c"))
    with pytest.raises(UsageError, match="has 1 lines"):
        again(state).check_end(1)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"run_id": ""}, {"exchange": None}, {"confirmed_to": -1}, {"events": "1"}, {"beyond": 3},
        {"beyond": ["a"]}, {"stretches": [[1]]}, {"stretches": []}, {"stretches": [1]}, {"stamped_to": 0},
    ],
)  # fmt: skip
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    """Better a word to a person than a wrong count."""
    state = progress()
    state.reserve(3, 0)

    with pytest.raises(UsageError, match="--restart"):
        Progress.from_json(state.to_json() | change)
    with pytest.raises(UsageError, match="--restart"):
        Progress.from_json([1])
