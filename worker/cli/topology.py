"""``order-worker topology``: what the broker must have, for people and for the tools that set brokers up."""

import asyncio
import json
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.moving import Mover, Standing
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.switching import switch
from worker.adapters.amqp.topology import planned
from worker.cli.config import WIDTH, start
from worker.config import Settings

TOLD_EVERY_S = 5.0

Migrate = Annotated[
    bool,
    typer.Option(
        "--migrate",
        help="Bring the broker to this number of PARTITIONS: feed the new work queues, then empty the others.",
    ),
]


def topology(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, migrate: Migrate = False
) -> None:
    """Show the exchanges, queues and bindings that the settings ask for. The broker is not contacted.

    With --migrate: bring it there from any other number of partitions, while workers run or not. First the new queues
    are fed and the old ones no longer; then the old ones are emptied, by the workers that still consume them (start
    those with the new PARTITIONS now) and, once they are gone, by this command. It ends when all is moved, and may be
    stopped and run again at any time. The empty queues stay; delete them when nothing needs them any more.
    """
    settings = start()
    if migrate:
        done = asyncio.run(_migrate(settings, quiet=as_json))
        _show_migrated(settings, done, as_json=as_json)
        return
    plan = planned(settings.broker)
    if as_json:
        print(json.dumps(plan.to_json(), indent=2))
        return
    table = Table("Kind", "Name", "Details")
    for row in plan.rows():
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False, width=WIDTH).print(table)


async def _migrate(settings: Settings, *, quiet: bool) -> dict[str, int]:
    """How many messages were moved out of each queue that is no longer fed."""
    broker = settings.broker
    endpoint = Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s, fast_lane=broker.fast_lane)
    taking, giving = (Link(endpoint, name=f"order-worker migrate {role}") for role in ("take", "give"))
    publisher = Publisher(giving)
    try:
        others = await switch(await taking.get(), planned(broker))
        if not quiet:
            print(f"fed are now: {', '.join(planned(broker).work_queues)}", flush=True)
        async with asyncio.TaskGroup() as group:
            movers = {
                queue: group.create_task(
                    Mover(
                        taking,
                        publisher,
                        queue=queue,
                        exchange=broker.queue,
                        version=version("order-update-worker"),
                    ).run(_Teller(quiet=quiet)),
                    name=f"move {queue}",
                )
                for queue in others
            }
        return {queue: mover.result() for queue, mover in movers.items()}
    finally:
        await publisher.close()
        await giving.close()
        await taking.close()


class _Teller:
    """Says what is going on in a queue, at most once in a while and only what is new."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told: Standing | None = None
        self._told_at = 0.0

    def __call__(self, standing: Standing) -> None:
        now = asyncio.get_running_loop().time()
        if self._quiet or standing == self._told or (self._told and now - self._told_at < TOLD_EVERY_S):
            return
        self._told, self._told_at = standing, now
        who = "a worker finishes it" if standing.consumers else "nobody else consumes it"
        print(f"{standing.queue}: {standing.ready:,} ready, {standing.moved:,} moved; {who}", flush=True)


def _show_migrated(settings: Settings, done: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"fed": planned(settings.broker).work_queues, "moved": done}))
        return
    for queue, moved in done.items():
        print(f"{queue}: empty and no longer fed, {moved:,} moved; delete it when no worker uses it any more")
    print("migrated")
