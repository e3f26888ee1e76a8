"""The files of a publication: the lines that go out, and the state that lets it go on after a break."""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.core.errors import UsageError
from worker.core.lines import Line, LineRules, Splitter
from worker.core.progress import Progress

CHUNK: Final = 64 * 1024
MOST_PROBLEMS: Final = 20
"""Problems of a file that are kept with their texts; the rest is counted."""


async def read_lines(descriptor: int) -> AsyncIterator[Sequence[Line]]:
    """The lines of a file, pipe or terminal as they come. Waiting for more never blocks the event loop.

    Raises UsageError for a line that is far too long.
    """
    splitter = Splitter()
    while True:
        await _readable(descriptor)
        chunk = os.read(descriptor, CHUNK)
        if not chunk:
            break
        yield splitter.feed(chunk)
        await asyncio.sleep(0)  # a file is always readable: others must get their turn
    yield splitter.end()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll takes no regular files; they never block
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


@dataclass(slots=True, kw_only=True)
class Scan:
    """What a file holds: its last line, its events (not the blank lines), and what is wrong with which lines."""

    last_line: int = 0
    events: int = 0
    bad: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


def scan(descriptor: int, rules: LineRules, *, now_us: int) -> Scan:
    """Look through a regular file, and go back to its beginning. Raises UsageError for a line that is far too long."""
    found = Scan()
    for line in _all_lines(descriptor):
        found.last_line = line.number
        if line.is_blank:
            continue
        found.events += 1
        problem = rules.prepare(line, stamp_us=now_us, now_us=now_us)
        if isinstance(problem, str):
            found.bad += 1
            if found.bad <= MOST_PROBLEMS:
                found.problems.append((line.number, problem))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return found


def _all_lines(descriptor: int) -> Iterator[Line]:
    splitter = Splitter()
    while chunk := os.read(descriptor, CHUNK):
        yield from splitter.feed(chunk)
    yield from splitter.end()


def lock(descriptor: int, name: str) -> None:
    """Keep others from publishing the same file: two would overwrite each other's state. Raises UsageError.

    The lock ends with the process, however that ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{name} is being published by another process") from None


class StateFile:
    """The progress of a publication on disk: the new one as a whole, or the old one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Progress | None:
        """The progress of an unfinished run, None if there is none. Raises UsageError for an unusable file."""
        try:
            return Progress.from_json(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{self.path} is not JSON: publish from the start with --restart") from error
        except UsageError as error:
            raise UsageError(f"{self.path} {error}") from error

    def save(self, progress: Progress) -> None:
        """Replace the file; when this returns, it outlives a power cut. Raises UsageError where that is impossible."""
        draft = self.path.with_name(f"{self.path.name}.new")
        try:
            with draft.open("w", encoding="utf-8") as file:
                json.dump(progress.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise UsageError(f"the state cannot be written to {self.path} ({error.strerror}): use --state") from error

    def remove(self) -> None:
        """Forget the run."""
        self.path.unlink(missing_ok=True)
