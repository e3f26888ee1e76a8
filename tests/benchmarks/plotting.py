"""A picture of one session: costs and rates side by side, costs as work grows, latencies.

Drawn with matplotlib's ``Figure`` alone: pyplot would keep figures in global state and look for a display.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.figures import Median
from tests.benchmarks.record import Delays, Growth, Record
from tests.benchmarks.runs import BARE, BASELINE

Panel = Callable[[Axes], None]
WIDTH_IN = 7.0
HEIGHT_IN = 4.2


def plot(record: Record, path: Path) -> None:
    """Write a PNG."""
    panels = panels_of(record)
    figure = Figure(figsize=(2 * WIDTH_IN, HEIGHT_IN * -(-len(panels) // 2)), layout="constrained")
    figure.suptitle(str(record.conditions), fontsize=8)
    for number, panel in enumerate(panels):
        panel(figure.add_subplot(-(-len(panels) // 2), 2, number + 1))
    figure.savefig(path, format="png", dpi=110)


def panels_of(record: Record) -> list[Panel]:
    """What there is to show."""
    panels: list[Panel] = []
    if record.medians:
        panels.append(_bars(record.medians, "CPU s per 100,000 events", lambda each: each.cpu_per_100k_s, least=0.1))
        panels.append(_bars(record.medians, "events/s", lambda each: each.rate, least=100))
    axes = dict.fromkeys(row.axis for row in record.growth)
    panels += [_growth(axis, [row for row in record.growth if row.axis == axis]) for axis in axes]
    if record.delays:
        panels.append(_delays(record.delays))
    return panels


def _bars(medians: Sequence[Median], title: str, value: Callable[[Median], float], *, least: float) -> Panel:
    """``least`` is where the scale begins: without it the smallest bar would look like none."""

    def draw(axes: Axes) -> None:
        names = [f"{each.name}, {each.load}" for each in medians]
        values = [value(each) for each in medians]
        colours = ["tab:gray" if each.name in (BARE, BASELINE) else "tab:blue" for each in medians]
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, labels=[f"{each:,.{0 if each > 100 else 2}f}" for each in values], fontsize=7, padding=2)
        axes.set_xscale("log")  # the yardsticks are ten times away and more
        axes.set_xlim(min(least, *values), 2 * max(values))
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.set_title(f"{title} (log scale)")

    return draw


def _growth(axis: str, rows: Sequence[Growth]) -> Panel:
    def draw(axes: Axes) -> None:
        steps = [row.step for row in rows]
        axes.plot(steps, [row.median.cpu_per_100k_s for row in rows], "o-", label="CPU s per 100,000 events")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(axis)
        other = axes.twinx()
        other.plot(steps, [row.median.peak_mb for row in rows], "s--", color="tab:red", label="peak MB")
        other.set_ylim(bottom=0)
        axes.legend(loc="lower left", fontsize=7)
        other.legend(loc="lower right", fontsize=7)
        axes.set_title(f"as {axis} grows")

    return draw


def _delays(delays: Sequence[Delays]) -> Panel:
    def draw(axes: Axes) -> None:
        names = [f"{each.name}, {each.load}, {each.rate:g}/s, {each.platform}" for each in delays]
        axes.barh(names, [each.answered_p99 for each in delays], label="p99", color="tab:orange")
        axes.barh(names, [each.answered_p50 for each in delays], label="p50", color="tab:blue")
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
        axes.set_title("ms from publishing until the platform answered")

    return draw
