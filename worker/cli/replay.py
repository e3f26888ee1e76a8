"""``order-worker dead replay``: plan which dead letters go back to work, and carry the plan out."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.adapters.journal.opening import checked_journal
from worker.cli.config import start
from worker.cli.deadqueue import AsJson, Given, MessageIds, OfDetail, OfReason, Orders, Queue, Since, Until, durable
from worker.cli.replayrun import carry_out, planned, sought_replay, write_planned
from worker.cli.replayview import print_outcome, print_plan, print_status
from worker.config import Settings
from worker.core.errors import UsageError
from worker.core.history import Replay
from worker.core.replayoptions import CANARY_WAIT_S, Options, parse_rate
from worker.replay.books import State
from worker.replay.care import Ended
from worker.replay.executing import Result
from worker.replay.filing import LetterFile
from worker.replay.reaching import home_of

Limit = Annotated[int | None, typer.Option(min=1, help="Only so many, the oldest of the index first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Carry it out; without it nothing is moved.")]
PlanId = Annotated[str | None, typer.Option("--plan", metavar="ID", help="Carry this plan out (with --yes).")]
ResumeId = Annotated[str | None, typer.Option("--resume", metavar="ID", help="Go on with a replay that was stopped.")]
StatusId = Annotated[str | None, typer.Option("--status", metavar="ID", help="What became of a replay.")]
_RUN_ONLY = "With --plan or --resume: for that run only."
Rate = Annotated[str | None, typer.Option(metavar="N/s", help=f"Most copies per second (N/m: per minute). {_RUN_ONLY}")]
Canary = Annotated[
    int | None,
    typer.Option(min=0, help=f"So many copies first; the rest when each of them has a good outcome. {_RUN_ONLY}"),
]
CanaryWait = Annotated[
    float | None, typer.Option(min=0, help=f"Seconds to wait for them; {CANARY_WAIT_S:g}. {_RUN_ONLY}")
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        min=0, help=f"Stop when more copies are dead letters again. With a canary: 0 unless given. {_RUN_ONLY}"
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of each event. Repeatable.")
]
AllowTerminal = Annotated[
    bool, typer.Option("--allow-terminal", help="Also for orders whose status is one that they never leave.")
]
KeepSuperseded = Annotated[
    bool, typer.Option("--keep-superseded", help="Leave letters in the queue that a later value made pointless.")
]
ToFile = Annotated[
    Path | None, typer.Option(metavar="F", help="Write the planned letters to this file, and leave them in the queue.")
]
FromFile = Annotated[
    Path | None, typer.Option(metavar="F", help="Replay the letters of this file, as they are there (edited or not).")
]
Exchange = Annotated[str | None, typer.Option(metavar="E", help="Where copies go, instead of where they came from.")]
RoutingKey = Annotated[str | None, typer.Option(metavar="K", help="With this key, instead of the producer's.")]


@dataclass(slots=True, frozen=True, kw_only=True)
class Tempo:
    """How quickly and how carefully, as it was typed; None: not said."""

    rate: str | None = None
    canary: int | None = None
    canary_wait: float | None = None
    max_failures: int | None = None

    def applied_to(self, options: Options) -> Options:
        """The options with what was said. Raises UsageError."""
        given: dict[str, Any] = {
            "rate": None if self.rate is None else _rate(self.rate),
            "canary": self.canary,
            "canary_wait_s": self.canary_wait,
            "max_failures": self.max_failures,
        }
        return replace(options, **{name: value for name, value in given.items() if value is not None})


def replay(
    *,
    reason: OfReason = None,
    detail: OfDetail = None,
    order: Orders = None,
    since: Since = None,
    until: Until = None,
    message_id: MessageIds = None,
    limit: Limit = None,
    yes: Yes = False,
    plan: PlanId = None,
    resume: ResumeId = None,
    status: StatusId = None,
    rate: Rate = None,
    canary: Canary = None,
    canary_wait: CanaryWait = None,
    max_failures: MaxFailures = None,
    set_: Set = None,
    allow_terminal: AllowTerminal = False,
    keep_superseded: KeepSuperseded = False,
    queue: Queue = None,
    exchange: Exchange = None,
    routing_key: RoutingKey = None,
    to_file: ToFile = None,
    from_file: FromFile = None,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back to work. Without --yes it only plans: what would apply, what is superseded and by what.

    The planned set is frozen in the journal; copies carry the replay's id, so --status tells what became of each.
    An old value never overwrites a newer one: what is superseded is dropped (and noted), or left (--keep-superseded).
    Ctrl-C stops in good order; --resume goes on, after that or whatever else ended it. Exit code 1: stopped or failed.
    The plan keeps the tempo it was made with: what is said beside --plan or --resume holds for that run, not the next.
    """
    settings = start()
    url = durable(settings)
    given = Given(
        queue=queue, reason=reason, detail=detail, orders=order, message_ids=message_id, since=since, until=until
    )
    tempo = Tempo(rate=rate, canary=canary, canary_wait=canary_wait, max_failures=max_failures)
    named = [each for each in (plan, resume, status) if each is not None]
    selecting = any((given != Given(), limit, set_, allow_terminal, keep_superseded, exchange, routing_key))
    if len(named) > 1 or (named and selecting):
        raise UsageError("--plan, --resume and --status take a replay as it was planned: no selection beside them")
    if to_file is not None and (named or yes or from_file is not None):
        raise UsageError("--to-file writes what a selection would replay; --from-file --yes brings it back")
    if from_file is not None and (set_ or limit or given != Given(queue=queue)):
        raise UsageError("--from-file takes every letter of the file as it is: no selection and no --set beside it")
    if status is not None:
        asyncio.run(_status(url, status, as_json=as_json))
    elif named:
        asyncio.run(_go_on(settings, url, named[0], tempo, yes=yes, resuming=plan is None, as_json=as_json))
    else:
        options = tempo.applied_to(
            Options(
                exchange=exchange if exchange is not None else home_of(settings, queue),
                routing_key=routing_key,
                limit=limit,
                edits=tuple(set_ or ()),
                allow_terminal=allow_terminal,
                keep_superseded=keep_superseded,
                **_selection(given, settings),
            )
        )
        if from_file is not None:
            file = LetterFile(from_file.absolute())
            options = replace(options, file=str(file.path), digest=file.digest())
        asyncio.run(_plan(settings, url, options, yes=yes, to_file=to_file, as_json=as_json))


def _rate(text: str) -> float:
    rate = parse_rate(text)
    if rate is None:
        raise UsageError(f"--rate takes copies per second or minute, like 5, 5/s or 30/m, not {text!r}")
    return rate


def _selection(given: Given, settings: Settings) -> dict[str, Any]:
    sought = given.sought(settings)
    names = ("queue", "reason", "detail", "order_ids", "message_ids", "since_us", "until_us")
    return {name: getattr(sought, name) for name in names}


async def _status(url: str, replay_id: str, *, as_json: bool) -> None:
    async with checked_journal(url) as journal:
        await print_status(journal, await sought_replay(journal, replay_id), as_json=as_json)


async def _plan(
    settings: Settings, url: str, options: Options, *, yes: bool, to_file: Path | None, as_json: bool
) -> None:
    async with checked_journal(url) as journal:
        plan = await planned(journal, settings, options)
        if to_file is not None:
            await write_planned(journal, settings, plan.replay, to_file)
        if not yes:
            print_plan(plan, as_json=as_json)
            return
        if not as_json:
            print_plan(plan, as_json=False, going_on=True)
        begun = replace(plan.replay, state=State.PLANNED)
        result = await carry_out(journal, settings, begun, options)
        await print_outcome(journal, begun, result, plan=plan, as_json=as_json)
    _leave(result)


async def _go_on(
    settings: Settings, url: str, replay_id: str, tempo: Tempo, *, yes: bool, resuming: bool, as_json: bool
) -> None:
    async with checked_journal(url) as journal:
        found = await sought_replay(journal, replay_id)
        _check_state(found, resuming=resuming)
        if not (yes or resuming):
            await print_status(journal, found, as_json=as_json)
            return
        options = tempo.applied_to(Options.from_json(found.options))
        result = await carry_out(journal, settings, found, options)
        await print_outcome(journal, found, result, as_json=as_json)
    _leave(result)


def _check_state(found: Replay, *, resuming: bool) -> None:
    name, state = found.replay_id, found.state
    if state == State.DONE:
        raise UsageError(f"{name} is done already; `order-worker dead replay --status {name}` tells what became of it")
    if state == State.PLANNING:
        raise UsageError(f"the plan of {name} was never finished; plan anew, nothing of it was moved")
    if not resuming and state != State.PLANNED:
        raise UsageError(f"{name} was begun already; `order-worker dead replay --resume {name}` goes on")


def _leave(result: Result) -> None:
    if result.ended is not Ended.DONE:
        raise typer.Exit(1)
