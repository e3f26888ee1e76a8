"""What a campaign came to: the figures, and the promises that broke."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.memory import Memory
from tests.chaos.stops import Stops
from tests.support.accounting import Verdict

LONGEST_STOP_S = 30.0
"""Recovery is promised within 10 s; the rest is for a machine that others use too."""
LOGGED = ("worker.ready", "storm.paused", "watchdog.stalled", "watchdog.rebuilding", "watchdog.gave_up")
OWN_FAULTS = ("broker.keeper_failed", "broker.delivery_failed", "(no log line)")
"""What no worker ever logs if it has no fault."""
SHOWN = 5


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that is told at the end. ``seed`` and ``length_s`` give the same plan again."""

    seed: int
    length_s: float
    rate_per_s: float
    unsure: int
    writes: int
    verdict: Verdict
    faults: Mapping[str, int]
    skipped: int
    stops: Stops
    problems: list[str]
    lives: int
    unasked: Sequence[str]
    heard: Mapping[str, int]
    oldest: Memory
    peak: int
    own: Memory

    @property
    def broken(self) -> list[str]:
        """The promises that did not hold, empty if all did."""
        broken = list(self.problems)
        for kind, cases in self.verdict.problems.items():
            broken.append(f"{kind} ({len(cases)}): {'; '.join(cases[:SHOWN])}")
        if self.stops.longest_s > LONGEST_STOP_S:
            broken.append(f"nothing settled for {self.stops.longest_s:.1f} s without a fault")
        if self.heard.get("storm.paused"):
            broken.append(f"the storm guard paused {self.heard['storm.paused']} times: nobody resumes it here")
        broken += [f"logged: {name} {self.heard[name]}" for name in OWN_FAULTS if self.heard.get(name)]
        return broken

    def __str__(self) -> str:
        figures = Counter(self.verdict.figures)
        kinds = {kind: len(cases) for kind, cases in self.verdict.problems.items()}
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        recoveries = sorted(self.stops.recoveries.items(), key=lambda item: -item[1])[:SHOWN]
        innocent = kinds.get("dead without cause", 0)
        lines = [
            f"seed {self.seed}, {self.length_s:.0f} s, {self.rate_per_s:g} events/s asked for",
            f"events: {figures['events']} of {figures['orders']} orders: {figures['applied']} applied, "
            f"{figures['superseded']} superseded, {figures['dead']} dead-lettered, {figures['queued']} queued, "
            f"{figures['unconfirmed']} never confirmed and nowhere ({self.unsure} publishes without an answer)",
            f"faults: {sum(self.faults.values())} ({faults}); {self.skipped} skipped, what they need was still broken",
            f"lost: {figures['lost']}; dead-lettered though innocent: {innocent}; both applied and dead: "
            f"{kinds.get('both applied and dead', 0)}; settled twice: {kinds.get('settled twice', 0)}",
            f"duplicated: {self.writes} writes for {figures['applied']} applied events, "
            f"{figures['duplicates']} dead letters twice",
            f"backwards: {kinds.get('went backwards', 0)}; for a while: {figures['stepped_back']} steps back, "
            f"{figures['relapsed']} of them by the same life",
            f"longest stop: {self.stops.longest_s:.1f} s, after {self.stops.longest_after}",
            f"slowest recoveries: {', '.join(f'{name} {took_s:.1f} s' for name, took_s in recoveries)}",
            f"lives of workers: {self.lives}, ended by themselves: {len(self.unasked)}",
            f"logged: {', '.join(f'{name} {self.heard.get(name, 0)}' for name in LOGGED)}",
            f"memory of the worker that lived longest: {self.oldest}; peak of all {self.peak / 1e6:.0f} MB",
            f"memory of the campaign itself: {self.own}",
            *(f"  {told}" for told in self.unasked[:SHOWN]),
            *(f"BROKEN: {told}" for told in self.broken),
            "verdict: " + ("FAILED" if self.broken else "every promise held"),
        ]
        return "\n".join(lines)
