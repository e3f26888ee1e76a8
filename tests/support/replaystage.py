"""A stage for replays: dead letters in a queue in memory, a journal, an outlet that remembers, and a worker behind it.

Every effect on the world goes through one ``Effects``: so it can break at any of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from msgspec import structs

from tests.builders import NOW_US, applied_record, make_update
from tests.support.fakequeue import Effects, FakeQueue
from worker.adapters.journal.memory import MemoryJournal
from worker.core.bookkeeping import History
from worker.core.deadletter import DeadLetter, letter_key, read_dead_letter
from worker.core.decode import EventSchema
from worker.core.edits import NO_EDITS, Edits
from worker.core.forecast import Grounds
from worker.core.headers import dead_copy
from worker.core.history import IndexedLetter, ItemState, Replay
from worker.core.journal import BatchRecord, OrderOutcome
from worker.core.letterindex import decoded, indexed
from worker.core.model import (
    Ack,
    AckReason,
    Dead,
    Delivery,
    Disposition,
    Properties,
    Reason,
    Settlement,
    Update,
    Version,
)
from worker.core.replayoptions import Options
from worker.core.versions import standing
from worker.replay.books import Books, State
from worker.replay.bringing import FileExecution
from worker.replay.executing import Execution, Result, Tools
from worker.replay.filing import LetterFile, plan_file
from worker.replay.judging import Preparing
from worker.replay.planning import Plan, make_plan

QUEUE = "dead"
ID = "r-1"
LATER_US = NOW_US + 3_600_000_000
TERMINAL = frozenset({64})


def dead_letter(
    order_id: int,
    *,
    status: int = 4,
    at_s: float = 0.0,
    reason: Reason = Reason.REJECTED,
    number: int = 0,
    **given: Any,
) -> DeadLetter:
    """A dead letter of the worker, of an event that happened ``at_s`` after ``NOW_US``."""
    update = make_update(
        order_id, status=status, at=NOW_US / 1_000_000 + at_s, message_id=f"m-{order_id}-{number}", **given
    )
    settlement = Settlement(delivery=update.delivery, update=update, disposition=Dead(reason=reason, detail="why"))
    return _in_queue(settlement, f"copy-{order_id}-{number}")


def invalid_letter(order_id: int, body: bytes = b'{"id":0}') -> DeadLetter:
    """A dead letter that is no event."""
    delivery = structs.replace(make_update(order_id).delivery, body=body)
    settlement = Settlement(delivery=delivery, disposition=Dead(reason=Reason.INVALID_EVENT, detail="id: wrong"))
    return _in_queue(settlement, f"copy-{order_id}-invalid")


def _in_queue(settlement: Settlement, copy_id: str) -> DeadLetter:
    copy = dead_copy(settlement, now_us=NOW_US + 1_000_000, worker="1")
    properties = structs.replace(copy.properties, message_id=copy_id)
    return read_dead_letter(Delivery(generation=0, tag=1, body=copy.body, properties=properties))


@dataclass(slots=True)
class FakeOutlet:
    """Implements ``ports.Outlet``. ``failures`` are raised by the next publishes, one each."""

    effects: Effects
    sent: list[tuple[str, str, bytes, Properties]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    most: int = 0
    _under_way: int = 0

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> None:
        self.effects.step()
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((exchange, routing_key, body, properties))
        self.effects.step()

    async def close(self) -> None:
        """Nothing to close."""


class Effected:
    """Anything, with each call of its methods an effect."""

    def __init__(self, inner: object, stage: "Stage") -> None:
        self._inner = inner
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._stage.effects.of(lambda: method(*arguments, **named))

        return call


class Stage:
    """Everything a replay touches, and what came of it."""

    def __init__(self, letters: Sequence[DeadLetter] = ()) -> None:
        self.schema = EventSchema({}, [])
        self.journal = MemoryJournal()
        self.queue = FakeQueue(letters)
        self.outlet = FakeOutlet(Effects())
        self.effects = Effects()
        self.applied: list[tuple[int, Mapping[str, Any], Version]] = []
        self.verdicts: dict[int, Disposition] = {}
        self._worked = 0

    @property
    def books(self) -> Books:
        """The journal, its calls being effects."""
        return cast("Books", Effected(self.journal, self))

    def break_at(self, effects: Effects) -> None:
        """From now on, these are the effects."""
        self.effects = self.queue.effects = self.outlet.effects = effects

    def grounds(self) -> Grounds:
        """The rules of this worker."""
        return Grounds(terminal=TERMINAL, latest_us=LATER_US + 300_000_000)

    def row(self, letter: DeadLetter) -> IndexedLetter:
        """What the index says of it."""
        return indexed(letter, queue=QUEUE, update=decoded(letter, self.schema, now_us=LATER_US), now_us=LATER_US)

    async def index(self, *letters: DeadLetter) -> None:
        """Put letters into the index; without any, all of the queue."""
        await self.journal.add([self.row(letter) for letter in letters or self.queue.letters])

    async def apply(self, order_id: int, at_s: float, status: int = 8) -> None:
        """The platform confirmed a status of this time."""
        time_us = NOW_US + round(at_s * 1_000_000)
        values = {"status": (Version(time_us, -1, time_us, "applied"), status)}
        await self.journal.record(applied_record({order_id: values}, wall_us=LATER_US))

    # -- the replay ---------------------------------------------------------------------------------------------------

    async def plan(self, *, edits: Edits = NO_EDITS, replay_id: str = ID, **given: Any) -> Plan:
        """Plan what is in the index."""
        options = Options(queue=QUEUE, exchange="work", edits=("x",) if edits else (), **given)
        replay = self._replay(options, replay_id)
        return await make_plan(self.books, replay, grounds=self.grounds(), edits=edits, wall_us=LATER_US)

    async def plan_file(self, path: Path) -> Plan:
        """Plan the letters of a file."""
        options = Options(queue=QUEUE, exchange="work", file=str(path))
        replay = self._replay(options, ID)
        preparing = Preparing(schema=self.schema, replay_id=ID, created_us=replay.created_us, options=options)
        return await plan_file(self.books, replay, LetterFile(path), preparing, grounds=self.grounds())

    def _replay(self, options: Options, replay_id: str) -> Replay:
        return Replay(
            replay_id=replay_id,
            queue=QUEUE,
            author="kim",
            options=options.to_json(),
            state=State.PLANNING,
            created_us=LATER_US,
            changed_us=LATER_US,
        )

    async def execution(
        self, *, edits: Edits = NO_EDITS, replay_id: str = ID, path: Path | None = None, **tools: Any
    ) -> Execution:
        """An execution of the plan, as another process would begin it."""
        replay = await self.journal.replay(replay_id)
        assert replay is not None
        preparing = Preparing(
            schema=self.schema,
            replay_id=replay_id,
            created_us=replay.created_us,
            options=Options.from_json(replay.options),
            edits=edits,
        )
        given = {
            "books": self.books, "queue": self.queue, "outlet": self.outlet, "grounds": self.grounds, "holder": "kim",
            "wall_us": lambda: LATER_US,
        }  # fmt: skip
        tool = Tools(**{**given, **tools})
        if path is not None:
            return FileExecution(replay, preparing, tool, file=LetterFile(path))
        return Execution(replay, preparing, tool)

    async def execute(self, *, edits: Edits = NO_EDITS, **tools: Any) -> Result:
        """Carry the plan out."""
        return await (await self.execution(edits=edits, **tools)).run()

    # -- the worker behind it -----------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Have a worker take the copies that went out since."""
        for _, key, body, properties in self.outlet.sent[self._worked :]:
            delivery = Delivery(
                generation=0, tag=0, body=body,
                properties=structs.replace(properties, message_id="fresh"),
                routing_key=key,
                arrived_us=LATER_US, opened_us=LATER_US,
            )  # fmt: skip
            update = self.schema.decode(delivery)
            assert isinstance(update, Update)
            await self._settle(update)
        self._worked = len(self.outlet.sent)

    async def _settle(self, update: Update) -> None:
        known = (await self.journal.known([update.order_id])).get(update.order_id, {})
        covered = standing(update, known)
        disposition = self.verdicts.get(update.order_id) or Ack(covered or AckReason.APPLIED)
        outcomes = {}
        if disposition == Ack(AckReason.APPLIED):
            self.applied.append((update.order_id, update.fields, update.version))
            values = {name: (update.version, value) for name, value in update.fields.items()}
            outcomes[update.order_id] = OrderOutcome(revision=-1, applied=values)
        settlement = Settlement(delivery=update.delivery, disposition=disposition, update=update)
        rows = History([settlement], wall_us=LATER_US, worker="w")
        await self.journal.record(BatchRecord(wall_us=LATER_US, orders=outcomes, history=rows))

    # -- what came of it ----------------------------------------------------------------------------------------------

    async def states(self, replay_id: str = ID) -> dict[str, ItemState]:
        """By the id of the dead letter."""
        return {item.copy_id: item.state for item in await self.journal.items(replay_id)}

    def left(self) -> list[str]:
        """What is still in the queue."""
        return [letter_key(letter) for letter in self.queue.letters]

    async def state(self) -> str:
        """Of the replay."""
        replay = await self.journal.replay(ID)
        assert replay is not None
        return replay.state

    async def status(self, order_id: int) -> object:
        """What the platform has of this order."""
        known = (await self.journal.known([order_id])).get(order_id, {})
        return known["status"][1] if "status" in known else None
