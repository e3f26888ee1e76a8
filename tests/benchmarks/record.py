"""What a session measured: figures, latencies and targets, under which conditions; said at once, and kept as JSON.

The files go to ``BENCH_RESULTS``, by default the folder ``results`` beside this file, which is not under version
control. A target is a line "target, measured, held or missed"; a test fails on its missed ones after all of its
figures were said.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks.figures import HEADS, Figures, Median, table
from tests.benchmarks.program import ROOT
from tests.support import generation

VARIABLE = "BENCH_RESULTS"
LATENCY_HEADS = (
    "run", "load", "events/s", "stand-in takes", "events", "applied p50", "applied p99", "answered p50", "answered p99",
)  # fmt: skip


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Under what it was measured. ``load_before`` is the machine's load average when it began."""

    date: str
    commit: str
    machine: str
    python: str
    rabbitmq: str
    load_before: float

    def __str__(self) -> str:
        return (
            f"{self.date}, commit {self.commit}, {self.machine}, Python {self.python}, RabbitMQ {self.rabbitmq}, "
            f"load before the run {self.load_before:.1f}"
        )


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from publishing until the platform had applied an event, and until it had answered that call."""

    name: str
    load: str
    rate: float
    platform: str
    events: int
    applied_p50: float
    applied_p99: float
    answered_p50: float
    answered_p99: float

    @property
    def cells(self) -> tuple[str, ...]:
        """As ``LATENCY_HEADS`` has them."""
        times = (self.applied_p50, self.applied_p99, self.answered_p50, self.answered_p99)
        return (
            self.name,
            self.load,
            f"{self.rate:g}",
            self.platform,
            f"{self.events:,}",
            *(f"{each:.1f} ms" for each in times),
        )


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be shown, and what was. Whoever sets it says whether it held: some are bounds, some are floors."""

    what: str
    bound: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{'held  ' if self.held else 'MISSED'}  {self.what}: target {self.bound}, measured {self.measured}"


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """One step of work that grows: ``axis`` is what does, ``step`` how much there is of it."""

    axis: str
    step: int
    median: Median


class Record(msgspec.Struct, kw_only=True):
    """Everything of one session."""

    conditions: Conditions
    rounds: list[Figures] = []
    medians: list[Median] = []
    growth: list[Growth] = []
    delays: list[Delays] = []
    targets: list[Target] = []

    @classmethod
    def begin(cls) -> "Record":
        """Nothing measured yet."""
        return cls(conditions=_conditions())

    @property
    def empty(self) -> bool:
        """Whether there is anything to keep."""
        return not (self.medians or self.growth or self.delays)

    def say(self, *lines: str) -> None:
        """Tell the person who measures (pytest's ``-s``)."""
        sys.stdout.write("\n".join(("", *lines, "")))

    def compare(self, *kinds: Sequence[Figures]) -> list[Median]:
        """Keep the rounds of several kinds, and say their medians one below the other."""
        medians = [Median.of(rounds) for rounds in kinds]
        self.rounds.extend(each for rounds in kinds for each in rounds)
        self.medians.extend(medians)
        self.say(str(self.conditions), table(HEADS, [each.cells for each in medians]))
        return medians

    def grew(self, axis: str, steps: Sequence[tuple[int, Sequence[Figures]]]) -> list[Median]:
        """Keep what each step of ``axis`` cost, and say it one below the other."""
        rows = [Growth(axis=axis, step=step, median=Median.of(rounds)) for step, rounds in steps]
        self.rounds.extend(each for _, rounds in steps for each in rounds)
        self.growth.extend(rows)
        cells = [(f"{row.step:,}", *row.median.cells) for row in rows]
        self.say(str(self.conditions), table((axis, *HEADS), cells))
        return [row.median for row in rows]

    def delayed(self, *delays: Delays) -> None:
        """Keep and say latencies."""
        self.delays.extend(delays)
        self.say(str(self.conditions), table(LATENCY_HEADS, [each.cells for each in delays]))

    def judge(self, *targets: Target) -> None:
        """Keep and say these targets, then fail for the missed ones."""
        self.targets.extend(targets)
        self.say(*map(str, targets))
        missed = [str(target) for target in targets if not target.held]
        if missed:
            pytest.fail("\n".join(("", *missed)), pytrace=False)

    def write(self, where: Path) -> Path:
        """A file of its own, named by date and commit."""
        where.mkdir(parents=True, exist_ok=True)
        stamp = self.conditions.date.replace(":", "").replace(" ", "T")
        path = where / f"{stamp}-{self.conditions.commit}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path


def folder() -> Path:
    """Where the files go."""
    return Path(os.environ.get(VARIABLE) or Path(__file__).parent / "results")


def at_most(what: str, bound: float, measured: float, unit: str = "") -> Target:
    """A figure that must not be above its bound."""
    return Target(what=what, bound=f"<= {bound:,.4g}{unit}", measured=f"{measured:,.4g}{unit}", held=measured <= bound)


def at_least(what: str, bound: float, measured: float, unit: str = "") -> Target:
    """A figure that must not be below its bound."""
    return Target(what=what, bound=f">= {bound:,.4g}{unit}", measured=f"{measured:,.4g}{unit}", held=measured >= bound)


def none_wrong(*medians: Median) -> Target:
    """No order ends wrong, none is in two calls at a time, no message stays."""
    bad = {f"{each.name}, load {each.load}": (each.wrong, each.overlaps, each.left) for each in medians}
    found = {name: counts for name, counts in bad.items() if any(counts)}
    return Target(
        what="orders wrong, overlapping calls, messages left",
        bound="0, 0, 0",
        measured=str(found) if found else "0, 0, 0",
        held=not found,
    )


def _conditions() -> Conditions:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return Conditions(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        commit=described.stdout.strip() or "unknown",
        machine=f"{os.cpu_count()} CPUs shared by all processes ({_cpu_model()})",
        python=platform.python_version(),
        rabbitmq=generation.version(),
        load_before=os.getloadavg()[0],
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
