"""The retry loop: it ends on success, on stop and on foreign errors, and is never confused by cancellation."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import AsyncRetrying, RetryCallState

from worker.retrying import forever, until_done


async def run(retrying: AsyncRetrying, action: Callable[[int], None]) -> int:
    """Try ``action(number of the try)`` until it stops raising; the number of tries."""
    tries = 0
    async for attempt in retrying:
        with attempt:
            tries += 1
            action(tries)
    return tries


def fail_with(error: BaseException, *, times: int) -> Callable[[int], None]:
    def action(number: int) -> None:
        if number <= times:
            raise error

    return action


async def test_it_retries_until_the_try_succeeds() -> None:
    """Two failures, then success: three tries, and both failures were told."""
    told: list[int] = []

    tries = await run(
        forever(first_s=0.0, cap_s=0.0, noticed=lambda _error, number, _wait: told.append(number)),
        fail_with(OSError(), times=2),
    )

    assert tries == 3
    assert told == [1, 2]


async def test_stop_wakes_the_wait_and_ends_with_the_last_error() -> None:
    """A wait of up to an hour ends when the stop event is set."""
    stop = asyncio.Event()

    def stop_soon(_error: Exception, _number: int, _wait_s: float) -> None:
        asyncio.get_running_loop().call_soon(stop.set)

    with pytest.raises(OSError, match="down"):
        await run(
            forever(first_s=3600.0, cap_s=3600.0, stop=stop, noticed=stop_soon), fail_with(OSError("down"), times=9)
        )


async def test_a_foreign_error_is_not_retried() -> None:
    """Only the named errors are retried."""
    with pytest.raises(KeyError):
        await run(forever(first_s=0.0, cap_s=0.0, retry_on=(OSError,)), fail_with(KeyError("bug"), times=1))


async def test_cancellation_is_never_retried() -> None:
    """A CancelledError inside a try leaves at once."""
    with pytest.raises(asyncio.CancelledError):
        await run(forever(first_s=0.0, cap_s=0.0), fail_with(asyncio.CancelledError(), times=1))


@given(number=st.integers(1, 60), first=st.floats(0.01, 5.0), cap=st.floats(0.01, 60.0))
def test_waits_stay_within_their_bounds(number: int, first: float, cap: float) -> None:
    """Full jitter: between 0 and the smaller of the cap and the doubled first wait."""
    retrying = forever(first_s=first, cap_s=cap)
    state = RetryCallState(retry_object=retrying, fn=None, args=(), kwargs={})
    state.attempt_number = number

    assert 0 <= retrying.wait(state) <= min(cap, first * 2 ** (number - 1)) + 1e-9


async def test_the_first_try_counts_where_the_loop_begins_with_the_second() -> None:
    """What works at once is done at once; what fails is told with its number, and tried again."""
    failures = [ConnectionError("a"), ConnectionError("b")]
    heard: list[tuple[str, int]] = []

    async def work() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    def noticed(error: Exception, number: int, wait_s: float) -> None:
        heard.append((str(error), number))
        assert wait_s <= 0.01

    done = await until_done(work, first_s=0.01, cap_s=0.01, retry_on=(ConnectionError,), noticed=noticed)

    assert (done, heard) == ("done", [("a", 1), ("b", 2)])
    assert await until_done(work, first_s=0.01, cap_s=0.01, retry_on=(ConnectionError,), noticed=noticed) == "done"
    assert len(heard) == 2


async def test_any_other_error_ends_it_at_once() -> None:
    """On the first try, and on a later one."""
    failures = [ConnectionError("a"), KeyError("b"), KeyError("c")]

    async def work() -> None:
        raise failures.pop(0)

    for left in (1, 0):
        with pytest.raises(KeyError):
            await until_done(
                work, first_s=0.0, cap_s=0.0, retry_on=(ConnectionError,), noticed=lambda _error, _number, _wait: None
            )
        assert len(failures) == left
