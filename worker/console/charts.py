"""Small charts of the last hour, as SVG in the page: no script, and nothing inline that the policy of the page would
refuse; colours come from the style sheet. Pure."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from worker.console.words import number

WIDTH: Final = 240
HEIGHT: Final = 48
LONGEST_S: Final = 3600.0
SHORTEST_S: Final = 600.0
"""What is known for a shorter time than that leaves the left side empty."""
_TOP: Final = 4.0
"""Room for the line's width above the greatest value."""

Points = Sequence[tuple[float, float | None]]


def chart(name: str, points: Points, *, now_s: float, unit: str = "") -> Markup:
    """A line with its area. ``points`` are (seconds since 1970, value), None where nobody knows. Beside it stands
    how high and how long it is; the title says in words what it shows, for those who cannot see it."""
    known = [(at_s, given) for at_s, given in points if given is not None and at_s >= now_s - LONGEST_S]
    if not known:
        return Markup(
            '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{name}: nothing is known yet">'
            '<line class="chart-base" x1="0" y1="{h}" x2="{w}" y2="{h}"/></svg>'
        ).format(w=WIDTH, h=HEIGHT, name=name)
    most = max(given for _, given in known)
    span_s = min(max(now_s - known[0][0], SHORTEST_S), LONGEST_S)
    told = f"{name}, last {round(span_s / 60)} min: now {number(known[-1][1])}{unit}, most {number(most)}{unit}"
    runs = [run for run in _runs(points, now_s=now_s, span_s=span_s, most=most or 1.0) if run]
    return Markup(
        '<p class="scale" aria-hidden="true">most {most}<br>last {minutes} min</p>'
        '<svg class="chart" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{told}">'
        "<title>{told}</title>{areas}{lines}"
        '<line class="chart-base" x1="0" y1="{h}" x2="{w}" y2="{h}"/></svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        told=told,
        most=f"{number(most)}{unit}",
        minutes=round(span_s / 60),
        areas=Markup("").join(_area(run) for run in runs),
        lines=Markup("").join(Markup('<polyline class="chart-line" points="{}"/>').format(_path(run)) for run in runs),
    )


def _runs(points: Points, *, now_s: float, span_s: float, most: float) -> list[list[tuple[float, float]]]:
    """The stretches in which something is known, as places in the picture."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at_s, given in points:
        x = WIDTH * (1 - (now_s - at_s) / span_s)
        if given is None or x < 0:
            runs.append([])
        else:
            runs[-1].append((min(x, float(WIDTH)), HEIGHT - (HEIGHT - _TOP) * given / most))
    return runs


def _area(run: list[tuple[float, float]]) -> Markup:
    path = f"{run[0][0]:.1f},{HEIGHT} {_path(run)} {run[-1][0]:.1f},{HEIGHT}"
    return Markup('<polygon class="chart-area" points="{}"/>').format(path)


def _path(run: list[tuple[float, float]]) -> str:
    # A single point would be no line at all.
    places = run if len(run) > 1 else [(run[0][0] - 2.0, run[0][1]), run[0]]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
