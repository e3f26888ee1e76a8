"""The account at the end: what became of every event, whether every order is right, and what the platform replied."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.json import JSON
from rich.table import Table

from worker.demo.load import Fate, Load
from worker.demo.oracle import expected_dead, final_states, wrong_orders
from worker.demo.platform import DOCUMENTED_REPLY
from worker.demo.queues import Depths

SHOWN: Final = 10  # wrong orders or messages that are named, the rest is counted
IN_DOUBT: Final = "rejected-in-doubt"

Letters = Counter[tuple[str, str]]


@dataclass(slots=True, frozen=True, kw_only=True)
class Result:
    """What was seen when all was over. ``counts`` are the worker's own, of its event ``worker.stopped``.

    ``published`` counts events that the broker confirmed, ``calls`` those the platform saw, ``outage_s`` how long the
    worker held its calls back.
    """

    load: Load
    published: int
    counts: Mapping[str, int]
    depths: Depths
    letters: Letters
    orders: Mapping[int, Mapping[str, Any]]
    reply: Any
    calls: int
    failed_calls: int
    outage_s: float
    took_s: float


@dataclass(slots=True, frozen=True, kw_only=True)
class Report:
    """The account; ``problems`` is empty where everything is as it must be."""

    result: Result
    dead: Mapping[str, int]
    queued: int
    wrong: Mapping[int, str]
    problems: Sequence[str] = field(default_factory=tuple)

    @property
    def accounted(self) -> int:
        """Events whose fate is known."""
        counts = self.result.counts
        return sum(counts.get(name, 0) for name in _ACKED) + sum(self.dead.values()) + self.queued

    def to_json(self) -> dict[str, Any]:
        """The report for programs."""
        result, load = self.result, self.result.load
        return {
            "ok": not self.problems,
            "problems": list(self.problems),
            "events": {
                "published": result.published,
                "late": load.late,
                "repeated": load.repeated,
                "orders": len(load.orders),
            },
            "accounted": {
                "events": self.accounted,
                **{name: result.counts.get(name, 0) for name in _ACKED},
                "dead": dict(self.dead),
                "queued": self.queued,
            },
            "retried": result.counts.get("retried", 0),
            "calls": result.calls,
            "failed_calls": result.failed_calls,
            "events_per_call": _per_call(result),
            "outage_s": result.outage_s,
            "orders": {"right": len(final_states(load.events)) - len(self.wrong), "wrong": _named(self.wrong)},
            "reply": result.reply,
            "took_s": result.took_s,
        }


_ACKED: Final = ("applied", "superseded", "duplicate")


def make_report(result: Result) -> Report:
    """Compare what is with what must be."""
    dead: Counter[str] = Counter()
    for (reason, _), times in result.letters.items():
        dead[reason] += times
    report = Report(
        result=result,
        dead=dict(sorted(dead.items())),
        queued=result.depths.work + result.depths.retry,
        wrong=wrong_orders(final_states(result.load.events), result.orders),
    )
    return Report(
        result=result, dead=report.dead, queued=report.queued, wrong=report.wrong, problems=tuple(_problems(report))
    )


def _problems(report: Report) -> list[str]:
    result = report.result
    problems = [f"order {order_id}: {text}" for order_id, text in list(report.wrong.items())[:SHOWN]]
    if len(report.wrong) > SHOWN:
        problems.append(f"and {len(report.wrong) - SHOWN} more orders are wrong")
    if result.published != len(result.load.events):
        problems.append(f"only {result.published} of {len(result.load.events)} events were confirmed by the broker")
    if report.accounted != result.published:
        problems.append(f"{result.published} events were published, and {report.accounted} are accounted for")
    if result.counts.get("dead", 0) != sum(report.dead.values()):
        problems.append(f"the worker dead-lettered {result.counts.get('dead', 0)}, the queue has {report.dead}")
    problems += _letter_problems(result)
    if result.reply != DOCUMENTED_REPLY:
        problems.append(f"the reply for order 46140199 is not the documented one: {json.dumps(result.reply)[:300]}")
    return problems


def _letter_problems(result: Result) -> list[str]:
    """Each message by name: who is dead and should not be, who is not and should be. Empty while some still wait."""
    found: Letters = Counter()
    for (reason, message_id), times in result.letters.items():
        found[Fate.REJECTED.value if reason == IN_DOUBT else reason, message_id] += times
    wanted = expected_dead(result.load.events)
    wrongly = [f"{name} is dead-lettered as {reason}" for reason, name in found - wanted]
    missing = [f"{name} is not dead-lettered as {reason}" for reason, name in wanted - found]
    if result.depths.work + result.depths.retry:
        missing = []  # it may be among those that wait
    return (wrongly + missing)[:SHOWN]


def _per_call(result: Result) -> float:
    return round(result.published / result.calls, 1) if result.calls else 0.0


def _named(wrong: Mapping[int, str]) -> dict[str, str]:
    return {str(order_id): text for order_id, text in list(wrong.items())[:SHOWN]}


def print_report(report: Report, console: Console) -> None:
    """The report for people."""
    for title, table in (
        ("What happened", _events(report)),
        ("What became of every event", _fates(report)),
        ("Final state of every order, compared with what must be", _orders(report)),
    ):
        console.print(f"[bold]{title}[/]")
        console.print(table)
    console.print("[bold]Reply of the platform for order 46140199[/]")
    console.print(JSON(json.dumps(report.result.reply)))
    if report.problems:
        console.print("[bold red]NOT as it must be:[/]")
        for problem in report.problems:
            console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print("[bold green]Every event is accounted for, and every order is right.[/]")


def _events(report: Report) -> Table:
    result, load = report.result, report.result.load
    table = _table()
    table.add_row("events published", f"{result.published:,}", f"for {len(load.orders):,} orders")
    table.add_row("  out of order", f"{load.late:,}", "published behind a newer one of their order")
    table.add_row("  published twice", f"{load.repeated:,}", "")
    table.add_row("calls", f"{result.calls:,}", f"{result.failed_calls:,} of them failed")
    table.add_row("events per call", f"{_per_call(result):,}", "")
    table.add_row("outage", f"{result.outage_s:.1f} s", "during which the worker held everything back")
    return table


def _fates(report: Report) -> Table:
    counts = report.result.counts
    table = _table()
    table.add_row("applied", f"{counts.get('applied', 0):,}", "their values were sent and confirmed")
    table.add_row("superseded", f"{counts.get('superseded', 0):,}", "a later event of the order says it all")
    table.add_row("duplicate", f"{counts.get('duplicate', 0):,}", "delivered twice by the broker")
    for reason, number in report.dead.items():
        table.add_row("dead-lettered", f"{number:,}", reason)
    table.add_row("still queued", f"{report.queued:,}", "")
    table.add_row("accounted for", f"{report.accounted:,}", f"of {report.result.published:,}")
    table.add_row("  took a detour", f"{counts.get('retried', 0):,}", "through a retry queue: their order was busy")
    return table


def _orders(report: Report) -> Table:
    total = len(final_states(report.result.load.events))
    table = _table()
    table.add_row("right", f"{total - len(report.wrong):,}", f"of {total:,}")
    table.add_row("wrong", f"{len(report.wrong):,}", "")
    return table


def _table() -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(min_width=20, no_wrap=True)
    table.add_column(justify="right", min_width=8)
    table.add_column(style="dim")
    return table
