"""The edge to the AMQP libraries: every await of theirs gets a deadline of ours, and every failure one of our errors.

Facts it is built around (aio-pika 10.2, aiormq 7.2): no call has a default deadline, and some wait for ever; a stuck
connection is reported by raising ``CancelledError`` in a task that nobody cancelled; a closing channel may reject its
callers with a bare ``Exception``, and swallows a cancellation that somebody asked for; a call on a closed channel is a
``RuntimeError``, not an ``AMQPError``.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.core.errors import ConnectionLost, WorkerError


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Run the block's library awaits for at most ``seconds``; ``what`` names them in the error.

    Raises ConnectionLost for everything the library raises. TypeError, ValueError and our own errors pass: they are the
    fault of what was handed in, not of the connection. A cancellation that somebody asked for passes unchanged, and
    comes out of here even where the library made something else of it.
    """
    task = asyncio.current_task()
    asked_before = task.cancelling() if task is not None else 0

    def asked() -> bool:
        return task is not None and task.cancelling() > asked_before

    try:
        async with asyncio.timeout(seconds):
            yield
    except asyncio.CancelledError as error:
        if task is None or asked():
            raise
        raise ConnectionLost(f"{what}: the connection was stuck or closed") from error
    except TimeoutError as error:
        raise ConnectionLost(f"{what}: no answer within {seconds:g} s") from error
    except Exception as error:
        if asked():
            raise asyncio.CancelledError from error
        if isinstance(error, WorkerError | TypeError | ValueError):
            raise
        raise ConnectionLost(f"{what}: {explain(error)}") from error
    if asked():
        raise asyncio.CancelledError


def explain(error: BaseException) -> str:
    """Class and text of an error, and of what caused it: the libraries' own texts are often empty or generic."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    cause = root_cause(error)
    return text if cause is error else f"{text} ({type(cause).__name__})"


def root_cause(error: BaseException) -> BaseException:
    """The error at the bottom: aiormq wraps refused, DNS and TLS alike, and only the cause tells them apart."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
