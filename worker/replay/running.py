"""Replays with the adapters that the settings name: planned under a new id, and made ready to be carried out."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from worker.config import Settings
from worker.core.decode import EventSchema
from worker.core.edits import Edits, parse_edits
from worker.core.errors import UsageError
from worker.core.history import Replay
from worker.core.replayoptions import Options, replay_id
from worker.core.times import format_time
from worker.ports import wall_us
from worker.replay.books import Books, State
from worker.replay.bringing import FileExecution
from worker.replay.executing import Execution, Tools
from worker.replay.filing import LetterFile, plan_file
from worker.replay.judging import Preparing
from worker.replay.moving import Told
from worker.replay.planning import Plan, make_plan
from worker.replay.reaching import at_the_queue, grounds_of, publisher, schema_of

_SALT: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Nothing that looks like something else."""


async def plan_it(books: Books, settings: Settings, options: Options, *, author: str) -> Plan:
    """Plan it, under a new id. Raises UsageError for edits that cannot be."""
    schema = schema_of(settings)
    edits = parse_edits(options.edits, schema.changes)
    now_us = wall_us()
    salt = "".join(secrets.choice(_SALT) for _ in range(4))
    planned = Replay(
        replay_id=replay_id(format_time(now_us), salt),
        queue=options.queue,
        author=author,
        options=options.to_json(),
        state=State.PLANNING,
        created_us=now_us,
        changed_us=now_us,
    )
    grounds = (await grounds_of(books, settings))()
    if options.file is not None:
        preparing = _preparing(schema, planned, options, edits)
        return await plan_file(books, planned, LetterFile(Path(options.file)), preparing, grounds=grounds)
    return await make_plan(books, planned, grounds=grounds, edits=edits, wall_us=now_us)


@asynccontextmanager
async def ready_to_run(
    books: Books, settings: Settings, replay: Replay, options: Options, *, holder: str, told: Told
) -> AsyncIterator[Execution]:
    """The plan, ready to be carried out as these options say, with its connections open until the end.

    Raises UsageError (the file of the plan was changed), ConnectionLost and BrokerRefused at the beginning.
    """
    schema = schema_of(settings)
    edits = parse_edits(options.edits, schema.changes)
    file = _same_file(options)
    grounds = await grounds_of(books, settings)
    async with at_the_queue(settings, options.queue, holders=books) as queue, publisher(settings) as outlet:
        tools = Tools(books=books, queue=queue, outlet=outlet, grounds=grounds, holder=holder, told=told)
        preparing = _preparing(schema, replay, options, edits)
        if file is None:
            yield Execution(replay, preparing, tools)
        else:
            yield FileExecution(replay, preparing, tools, file=file)


def _same_file(options: Options) -> LetterFile | None:
    """The file that the replay was planned with. UsageError where it is another by now."""
    if options.file is None:
        return None
    file = LetterFile(Path(options.file))
    if file.digest() != options.digest:
        raise UsageError(f"{file.path} was changed since this replay was planned: put it back, or plan anew")
    return file


def _preparing(schema: EventSchema, replay: Replay, options: Options, edits: Edits) -> Preparing:
    return Preparing(
        schema=schema, replay_id=replay.replay_id, created_us=replay.created_us, options=options, edits=edits
    )
