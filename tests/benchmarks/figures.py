"""What one run came to, and what several runs of the same kind come to: the median of each figure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``seconds`` is from consume-ok to the last settlement, ``cpu_s`` what the process used meanwhile.

    ``start_cpu_s`` is what it used before that, ``platform_cpu_s`` what the stand-in used: were that as long as the
    run, the stand-in would be what is measured. ``calls`` are those with orders in them; ``left`` are messages.
    """

    name: str
    load: str
    events: int
    seconds: float
    cpu_s: float
    start_cpu_s: float
    peak_mb: float
    calls: int = 0
    entries: int = 0
    wrong: int = 0
    overlaps: int = 0
    left: int = 0
    platform_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def cpu_per_100k_s(self) -> float:
        """CPU seconds per 100,000 events."""
        return self.cpu_s * 100_000 / self.events

    @property
    def calls_per_1000(self) -> float:
        """Calls per 1,000 events."""
        return self.calls * 1000 / self.events

    @property
    def fill(self) -> float:
        """Orders per call."""
        return self.entries / self.calls if self.calls else 0.0


HEADS = (
    "run", "load", "events", "rounds", "events/s", "CPU s / 100k", "start CPU s", "calls / 1,000", "fill", "peak MB",
    "wrong", "overlaps", "stand-in CPU s / 100k",
)  # fmt: skip


class Median(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of several rounds; of what must never happen, the sum."""

    name: str
    load: str
    events: int
    rounds: int
    rate: float
    cpu_per_100k_s: float
    start_cpu_s: float
    calls: float
    calls_per_1000: float
    fill: float
    peak_mb: float
    wrong: int
    overlaps: int
    left: int
    platform_cpu_per_100k_s: float

    @classmethod
    def of(cls, rounds: Sequence[Figures]) -> "Median":
        """Of at least one round."""

        def middle(name: str) -> float:
            return float(statistics.median(getattr(each, name) for each in rounds))

        first = rounds[0]
        return cls(
            name=first.name,
            load=first.load,
            events=first.events,
            rounds=len(rounds),
            rate=middle("rate"),
            cpu_per_100k_s=middle("cpu_per_100k_s"),
            start_cpu_s=middle("start_cpu_s"),
            calls=middle("calls"),
            calls_per_1000=middle("calls_per_1000"),
            fill=middle("fill"),
            peak_mb=middle("peak_mb"),
            wrong=sum(each.wrong for each in rounds),
            overlaps=sum(each.overlaps for each in rounds),
            left=sum(each.left for each in rounds),
            platform_cpu_per_100k_s=middle("platform_cpu_s") * 100_000 / first.events,
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """As ``HEADS`` has them."""
        return (
            self.name,
            self.load,
            f"{self.events:,}",
            f"{self.rounds}",
            f"{self.rate:,.0f}",
            f"{self.cpu_per_100k_s:.2f}",
            f"{self.start_cpu_s:.2f}",
            f"{self.calls_per_1000:.2f}",
            f"{self.fill:.0f}",
            f"{self.peak_mb:.0f}",
            f"{self.wrong}",
            f"{self.overlaps}",
            f"{self.platform_cpu_per_100k_s:.2f}",
        )


def calls_of(state: Mapping[str, Any]) -> tuple[int, int]:
    """Calls and the entries in them, as the stand-in counted; control calls (no entries) left out."""
    sizes = {int(size): times for size, times in state["calls"]["entries_per_call"].items() if size != "0"}
    return sum(sizes.values()), sum(size * times for size, times in sizes.items())


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return float(statistics.quantiles(values, n=100, method="inclusive")[percent - 1])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, with columns of one width, as a terminal shows it."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([_line(heads, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cells[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
    ]
    return f"| {' | '.join(padded)} |"
