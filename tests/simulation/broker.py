"""The model broker: a work queue, retry tiers and dead letters, and channels with tags, prefetch and redelivery.

It outlives workers. What was unsettled on a channel that is gone is ready again, in front or at the end, in its order
or another: brokers do all of that. An ack of a tag that is not open is a channel error, as in RabbitMQ.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from tests.builders import NOW_US
from tests.simulation.oracle import Oracle
from tests.simulation.processes import nobodys
from tests.simulation.scenario import Event
from tests.simulation.trace import Trace
from worker.core.model import Properties, Reason

DELAYS_S = (5.0, 30.0)
"""Of the retry tiers."""
DELIVERY_LIMIT = 100


def wall_us() -> int:
    """Wall clock: it goes with the virtual one."""
    return NOW_US + round(asyncio.get_running_loop().time() * 1_000_000)


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """A message in the work queue."""

    event: Event
    properties: Properties
    handed_over: int = 0


Hand = Callable[[int, Message], None]
"""Called with tag and message when the broker writes a delivery."""


class Session:
    """The broker's side of one consuming channel."""

    def __init__(self, broker: "Broker", name: str) -> None:
        self.name = name
        self.open: dict[int, Message] = {}
        self.prefetch = 0
        self.hand: Hand | None = None
        self.dead = False
        self._broker = broker
        self._last = 0

    @property
    def has_room(self) -> bool:
        """Whether the prefetch allows one more."""
        return self.hand is not None and not self.dead and len(self.open) < self.prefetch

    def give(self, message: Message) -> None:
        """Hand it over."""
        assert self.hand is not None
        self._last += 1
        self.open[self._last] = message
        message.handed_over += 1
        if message.handed_over > DELIVERY_LIMIT:
            self._broker.trace.violation(f"event {message.event.number} was delivered {DELIVERY_LIMIT} times")
        self.hand(self._last, message)

    def ack(self, tag: int, *, multiple: bool) -> bool:
        """A frame arrived. False: it was wrong, and the channel is to be closed."""
        tags = [number for number in self.open if number <= tag] if multiple else [tag]
        if tag not in self.open:
            self._broker.trace.violation(f"{self.name}: ack of tag {tag}, which is not open")
            return False
        for number in tags:
            message = self.open.pop(number)
            self._broker.trace.note("acked", self.name, f"tag {number}", f"event {message.event.number}")
            self._broker.oracle.acked(message.event)
        self._broker.pump()
        return True

    def end(self) -> None:
        """The channel is gone: what was open is ready again."""
        if self.dead:
            return
        self.dead = True
        handed, self.open = list(self.open.values()), {}
        self._broker.leave(self)
        self._broker.requeue(handed)


class Broker:
    """Queues and books. Of the registered consumers the one that came first gets everything (single active consumer),
    or, if the queue is ``shared``, they take turns."""

    def __init__(self, oracle: Oracle, trace: Trace, dice: random.Random, *, shared: bool) -> None:
        self.oracle = oracle
        self.trace = trace
        self.ready: deque[Message] = deque()
        self.consumers: list[Session] = []
        self.sessions: dict[str, Session] = {}
        self._shared = shared
        self.delayed = 0
        self._dice = dice
        self._copies = 0

    def publish(self, event: Event, properties: Properties | None = None) -> None:
        """A message for the work queue."""
        if properties is None:
            fate = self.oracle.fates[event.number]
            fate.published += 1
            fate.renewed = fate.published > 1
            properties = Properties(message_id=f"m{event.number}", content_type="application/json")
            self.trace.note("published", f"event {event.number}", event.body.decode())
        self.ready.append(Message(event=event, properties=properties))
        self.pump()

    def pump(self) -> None:
        """Hand over what can be."""
        while self.ready and (session := self._next()) is not None:
            session.give(self.ready.popleft())

    def _next(self) -> Session | None:
        consumers = self.consumers
        if not self._shared:
            return consumers[0] if consumers and consumers[0].has_room else None
        found = next((place for place, session in enumerate(consumers) if session.has_room), None)
        if found is None:
            return None
        session = consumers.pop(found)
        consumers.append(session)
        return session

    def store(self, tier: int | None, body: bytes, properties: Properties) -> None:
        """A copy arrived: for a retry tier, or (None) for the dead-letter queue."""
        event = self.oracle.by_body[body]
        reason = Reason(properties.headers["ow-reason"])
        attempt = properties.headers["ow-attempt"]
        where = "dead" if tier is None else f"tier {tier}"
        self.trace.note("copy stored", where, f"event {event.number}", reason, f"attempt {attempt}")
        self.oracle.copied(event, reason, attempt, dead=tier is None)
        if tier is not None:
            self._copies += 1
            self.delayed += 1
            named = structs.replace(properties, message_id=f"copy {self._copies}")
            asyncio.get_running_loop().call_later(DELAYS_S[tier], self._return, event, named, context=nobodys())

    def _return(self, event: Event, properties: Properties) -> None:
        self.delayed -= 1
        self.publish(event, properties)

    def open(self, worker: str, name: str) -> Session:
        """A channel of a worker. It has one at a time."""
        if worker in self.sessions:
            self.sessions[worker].end()
        self.sessions[worker] = Session(self, name)
        return self.sessions[worker]

    def leave(self, session: Session) -> None:
        """None of its consumers is there any more."""
        self.consumers = [other for other in self.consumers if other is not session]

    def requeue(self, messages: list[Message]) -> None:
        """Put back what was handed over."""
        if not messages:
            return
        self.trace.note("requeued", *(f"event {message.event.number}" for message in messages))
        how = self._dice.random()
        if how < 0.5:
            self._dice.shuffle(messages)
        if how < 0.8:
            self.ready.extendleft(reversed(messages))
        else:
            self.ready.extend(messages)
        self.pump()

    @property
    def quiet(self) -> bool:
        """Nothing ready, unsettled or waiting in a tier."""
        return not self.ready and not self.delayed and not any(session.open for session in self.sessions.values())
