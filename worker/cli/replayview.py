"""What people and programs see of a replay: its plan, how it ended, and what became of each message."""

import json
from collections.abc import Mapping
from typing import Any, assert_never

from worker.cli.deadqueue import print_json, print_table, say
from worker.core.forecast import Kind
from worker.core.history import Fate, ItemState, Replay
from worker.core.times import format_time
from worker.replay.books import Books, State
from worker.replay.care import Ended
from worker.replay.executing import Result
from worker.replay.planning import Plan
from worker.replay.telling import Standing, Story, standing, stories

_KINDS: Mapping[Kind, str] = {
    Kind.APPLY: "would apply",
    Kind.SUPERSEDED: "are superseded",
    Kind.RETURNS: "would come straight back",
    Kind.UNJUDGED: "are judged when their bodies are read",
}


def command(name: str, *, yes: bool) -> str:
    """What carries this plan out, or goes on with it."""
    return f"order-worker dead replay {'--plan' if yes else '--resume'} {name}{' --yes' if yes else ''}"


# -- the plan ---------------------------------------------------------------------------------------------------------


def print_plan(plan: Plan, *, as_json: bool, going_on: bool = False) -> None:
    """How many, what would come of them by reason, and the command that does it (unless it is done now)."""
    if as_json:
        print_json(plan_json(plan))
        return
    name, tallies = plan.replay.replay_id, plan.tallies
    if not tallies.total:
        print("no dead letter matches (`order-worker dead sync` brings the index up to date)")
        return
    kinds = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in tallies.by_kind.items() if count)
    print(f"{tallies.total} dead letters match: {kinds}")
    rows = [(cell.reason, str(cell.count), _KINDS[cell.kind], cell.example) for cell in tallies.cells()]
    print_table(("Reason", "Count", "What", "For example"), rows)
    if going_on:
        print(f"replay {name}")
    else:
        print(f"nothing was moved; this carries it out:\n  {command(name, yes=True)}")


def plan_json(plan: Plan) -> dict[str, Any]:
    """The same for programs."""
    name, tallies = plan.replay.replay_id, plan.tallies
    return {
        "replay_id": name,
        "queue": plan.replay.queue,
        "matched": tallies.total,
        **{kind.value: count for kind, count in tallies.by_kind.items()},
        "by_reason": [
            {"reason": cell.reason, "kind": cell.kind.value, "count": cell.count, "example": cell.example}
            for cell in tallies.cells()
        ],
        "execute": command(name, yes=True),
    }


# -- the end ----------------------------------------------------------------------------------------------------------


async def print_outcome(
    books: Books, replay: Replay, result: Result, *, plan: Plan | None = None, as_json: bool
) -> None:
    """How it ended, how far it came, and how to go on."""
    now = await standing(books, await books.replay(replay.replay_id) or replay)
    for problem in result.problems:
        say(problem)
    if result.ended is not Ended.DONE:
        say(_why(result))
        say(f"to go on: {command(replay.replay_id, yes=now.replay.state == State.PLANNED)}")
    if as_json:
        told = {"replay_id": replay.replay_id, "ended": result.ended.value, "detail": result.detail}
        counts = _counts_json(now) | {"problems": list(result.problems)}
        print_json(told | counts | ({} if plan is None else {"plan": plan_json(plan)}))
        return
    print(f"replay {replay.replay_id}: {_states_text(now.states) or 'nothing to do'}")
    if now.states.get(ItemState.MOVED):
        print(f"what becomes of the copies: order-worker dead replay --status {replay.replay_id}")


def _why(result: Result) -> str:
    match result.ended:
        case Ended.DONE:
            return "done"
        case Ended.STOPPED:
            return "stopped"
        case Ended.FAILURES:
            return f"stopped: {result.detail}; look at them with `order-worker dead show`"
        case Ended.NO_OUTCOME:
            return f"stopped: {result.detail}"
        case Ended.UNROUTABLE:
            return f"stopped: {result.detail}; bind a queue there (the worker does when it starts), or give --exchange"
        case Ended.GAVE_UP:
            return f"stopped: broker or journal are away for too long: {result.detail}"
        case Ended.PARTLY | Ended.REFUSED:
            return result.detail
        case _:
            assert_never(result.ended)


# -- the status -------------------------------------------------------------------------------------------------------


async def print_status(books: Books, replay: Replay, *, as_json: bool) -> None:
    """Counts for people; with JSON every message, a page at a time, as one object."""
    now = await standing(books, replay)
    if as_json:
        await _print_messages(books, now)
        return
    print(f"replay {replay.replay_id} of {replay.queue} by {replay.author}, {format_time(replay.created_us)}")
    print(f"{replay.state}, {now.total} messages: {_states_text(now.states) or 'none'}")
    options = {name: value for name, value in replay.options.items() if name != "queue"}
    if options:
        print(f"options: {json.dumps(options, ensure_ascii=False)}")
    if now.fates:
        rows = [(fate.disposition, fate.reason, str(count)) for fate, count in _sorted(now.fates)]
        print_table(("Outcome", "Reason", "Count"), rows)
    if replay.state == State.PLANNED:
        print(f"nothing was moved; this carries it out:\n  {command(replay.replay_id, yes=True)}")
    elif replay.state in (State.RUNNING, State.STOPPED):
        print(f"to go on:\n  {command(replay.replay_id, yes=False)}")


async def _print_messages(books: Books, now: Standing) -> None:
    replay = now.replay
    head = {
        "replay_id": replay.replay_id,
        "queue": replay.queue,
        "state": replay.state,
        "author": replay.author,
        "created_at": format_time(replay.created_us),
        "changed_at": format_time(replay.changed_us),
        "options": dict(replay.options),
        **_counts_json(now),
    }
    # Written piece by piece: there may be a million messages.
    print(json.dumps(head)[:-1] + ', "messages": [', end="")
    before = ""
    async for page in stories(books, replay):
        for story in page:
            print(f"{before}\n{json.dumps(_message_json(story))}", end="")
            before = ","
    print("]}")


def _message_json(story: Story) -> dict[str, Any]:
    item, outcome = story.item, story.outcome
    return {
        "place": item.place,
        "copy_id": item.copy_id,
        "message_id": story.message_id,
        "order_id": story.order_id,
        "state": item.state.value,
        "detail": item.detail,
        "outcome": None
        if outcome is None
        else {
            "disposition": outcome.disposition,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "at": format_time(outcome.at_us),
            "attempt": outcome.attempt,
            "status": outcome.status,
            "status_name": outcome.status_name,
            "worker": outcome.worker,
        },
    }


def _counts_json(now: Standing) -> dict[str, Any]:
    return {
        "messages_planned": now.total,
        "states": {state.value: now.states.get(state, 0) for state in ItemState},
        "fates": [
            {"disposition": fate.disposition, "reason": fate.reason, "count": count}
            for fate, count in _sorted(now.fates)
        ],
    }


def _states_text(states: Mapping[ItemState, int]) -> str:
    return ", ".join(f"{states[state]} {state.value}" for state in ItemState if states.get(state))


def _sorted(fates: Mapping[Fate, int]) -> list[tuple[Fate, int]]:
    return sorted(fates.items(), key=lambda pair: (-pair[1], pair[0]))
