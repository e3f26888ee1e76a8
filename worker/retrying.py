"""The one form of in-process retrying: for ever, with full jitter, until it works or we stop.

Everything that waits for the outside world to come back uses this, so that retries never multiply. Facts of tenacity
9.2 that it is built around: a shared ``AsyncRetrying`` mixes the attempts of concurrent calls (hence a new object per
use); negative predicates retry ``CancelledError`` and hang a shutdown (hence positive ones, on ``Exception`` only); its
event sleep blocks the thread (hence our own); its objects refer to each other, so whatever ``noticed`` refers to lives
until the garbage collector comes round: 100 large bodies a time in what settles them (hence only small things).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

T = TypeVar("T")
Noticed = Callable[[Exception, int, float], None]


def forever(
    *,
    first_s: float,
    cap_s: float,
    stop: asyncio.Event | None = None,
    retry_on: tuple[type[Exception], ...] = (Exception,),
    noticed: Noticed | None = None,
) -> AsyncRetrying:
    """A new retry loop: ``async for attempt in forever(...)``, then ``with attempt:`` around one try.

    Before try n + 1 it waits a random time between 0 and ``min(cap_s, first_s * 2 ** (n - 1))`` seconds (full jitter).
    ``noticed(error, n, wait_s)`` hears of every failed try before the wait. Setting ``stop`` ends the wait at once,
    and the loop with the last error; an error outside ``retry_on`` ends it too.
    """
    return AsyncRetrying(
        wait=wait_random_exponential(multiplier=first_s, max=cap_s),
        retry=retry_if_exception_type(retry_on),
        stop=lambda _: stop is not None and stop.is_set(),
        sleep=_sleeper(stop),
        before_sleep=None if noticed is None else _teller(noticed),
        reraise=True,
    )


async def until_done(
    work: Callable[[], Awaitable[T]],
    *,
    first_s: float,
    cap_s: float,
    retry_on: tuple[type[Exception], ...],
    noticed: Noticed,
) -> T:
    """What ``work`` returns, tried for as long as it raises one of ``retry_on``; the rest as ``forever`` has it.

    The first try is made without tenacity, whose loop takes 60 us: here it nearly always is the only one.
    """
    failures: list[Exception] = []
    try:
        return await work()
    except retry_on as error:
        failures.append(error)
    async for attempt in forever(first_s=first_s, cap_s=cap_s, retry_on=retry_on, noticed=noticed):
        with attempt:
            if failures:
                raise failures.pop()  # that was its first try
            return await work()
    raise AssertionError("it has no end")


def _sleeper(stop: asyncio.Event | None) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        if stop is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return

    return sleep


def _teller(noticed: Noticed) -> Callable[[RetryCallState], None]:
    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Exception):
            noticed(error, state.attempt_number, state.upcoming_sleep)

    return tell
