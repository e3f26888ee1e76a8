"""The live picture: a table that is redrawn in a terminal, a plain line every 30 s elsewhere."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

LINE_EVERY_S = 30.0
REDRAW_EVERY_S = 1.0
"""The figures of the picture are counted anew each time."""

Picture = Mapping[str, str]
"""What there is to see, by its name."""


class View:
    """Shows while its block runs; ``show`` may be called as often as one likes."""

    def __init__(self, console: Console, *, line_every_s: float = LINE_EVERY_S) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._every_s = line_every_s if self._live is None else REDRAW_EVERY_S
        self._due_s = self._every_s

    def tell(self, text: str) -> None:
        """Something that stays to be seen."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, age_s: float, picture: Callable[[], Picture]) -> None:
        """Bring it up to date, if it is time to."""
        if age_s < self._due_s:
            return
        self._due_s = age_s + self._every_s
        if self._live is not None:
            self._live.update(_table(picture()))
        else:
            self.tell("; ".join(f"{name} {value}" for name, value in picture().items()))

    def __enter__(self) -> Self:
        (self._live or nullcontext()).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)


def _table(picture: Picture) -> Table:
    table = Table(show_header=False, title="chaos")
    for name, value in picture.items():
        table.add_row(name, value)
    return table
