"""Live progress: a small table that is redrawn in a terminal, one plain line per second elsewhere. Goes to stderr."""

import time
from contextlib import nullcontext
from types import TracebackType
from typing import Final, NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from worker.demo.platform import Look
from worker.demo.queues import Depths

LINE_EVERY_S: Final = 1.0


class Snapshot(NamedTuple):
    """What there is to see at one moment."""

    published: int
    total: int
    look: Look
    depths: Depths

    @property
    def outage(self) -> str:
        """The outage in words, empty while there is none."""
        left = self.look.outage_s
        return "" if left is None else f"platform answers 503 for another {left:.1f} s"


class View:
    """A context manager around the part of the demo in which something moves."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._line_due = 0.0
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def tell(self, text: str) -> None:
        """One line of news."""
        self._console.print(f"{self._elapsed_s:5.1f} s  {text}", markup=False, highlight=False, soft_wrap=True)

    def show(self, now: Snapshot) -> None:
        """Bring the picture up to date."""
        if self._live is not None:
            self._live.update(_picture(now))
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + LINE_EVERY_S
            self.tell(_line(now))

    def __enter__(self) -> Self:
        (self._live or nullcontext()).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


def _line(now: Snapshot) -> str:
    depths = now.depths
    text = (
        f"published {now.published:,} of {now.total:,}; changes on the platform {now.look.changes:,} in "
        f"{now.look.calls:,} calls; waiting: work {depths.work:,}, retry {depths.retry:,}, dead {depths.dead:,}"
    )
    return f"{text}; OUTAGE: {now.outage}" if now.outage else text


def _picture(now: Snapshot) -> Table:
    picture = Table.grid(padding=(0, 2))
    picture.add_row("published", f"{now.published:,} of {now.total:,}", ProgressBar(now.total, now.published, width=40))
    picture.add_row("changes on the platform", f"{now.look.changes:,}", f"in {now.look.calls:,} calls")
    waiting = now.depths
    picture.add_row("waiting in the work queue", f"{waiting.work:,}", f"in retry queues {waiting.retry:,}")
    picture.add_row("dead letters", f"{waiting.dead:,}", "")
    picture.add_row("outage", "[bold red]yes[/]" if now.outage else "no", now.outage)
    return picture
