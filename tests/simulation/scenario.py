"""One seed, one story: the settings of the worker, what producers publish and when, and what goes wrong and when.

Every value of a field names the event that it comes from, so whatever the platform holds or is sent can be traced
back. Times are seconds after the start; stamps are whole seconds, so that equal ones are common.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.builders import NOW_US
from tests.support.modelplatform import Refusal
from tests.support.virtualtime import START_S
from worker.core.model import Scalar
from worker.core.times import format_time

GOOD_FROM, BAD_FROM, DOOMED_FROM = 1_000, 5_000, 7_000
"""Statuses of good events, of those that the platform refuses, and of those that it is for ever too busy for."""
REFUSALS = (Refusal.HTTP_400, Refusal.NO_PATH, Refusal.PATH)
WITNESS, FIRST_WITNESS, WITNESSES = 999, 100, 150
FIELDS = ("status", "shipping_carrier", "shipping_method")


class Kind(StrEnum):
    """What becomes of an event that nothing supersedes: applied, or dead-lettered for one of three reasons."""

    GOOD = "good"
    BAD = "bad"
    DOOMED = "doomed"
    INVALID = "invalid"


class Trouble(StrEnum):
    """Faults. Those of the platform last for a while, those of broker and worker happen at a moment."""

    CUT = "connection cut"
    CONSUMER_GONE = "consumer cancelled by the broker"
    KILL = "worker killed"
    STOP = "worker stopped and started"
    COPIES_FAIL = "copies fail"
    CONFIRMS_FAIL = "copies are stored, confirms are lost"
    DOWN = "connection refused"
    TLS = "bad certificate"
    BUSY_503 = "503"
    THROTTLED = "429"
    RETRY_AFTER = "429 with Retry-After"
    ERROR_500 = "500"
    GONE_404 = "404"
    FORBIDDEN_403 = "403"
    SILENT = "no answer in time"
    RESET = "answers get lost"
    OMITS = "orders left out of the reply"
    MASKED = "internal server error for one order"
    SLOW = "slow"
    PAUSED_BY_HAND = "paused by a person"
    TOKEN_REVOKED = "token revoked"
    TOKEN_REFUSED = "credentials refused"
    TOKEN_AWAY = "token endpoint away"
    # Of two workers only:
    FREEZE = "worker frozen"
    FREEZE_AT = "worker frozen at a step"
    KILL_AT = "worker killed at a step"
    SPLIT = "worker cut off from the broker"
    DEAF = "one worker gets no answers"
    JOURNAL_AWAY = "journal away"
    JOURNAL_SLOW = "journal slow"


MOMENTS = (Trouble.CUT, Trouble.CONSUMER_GONE, Trouble.KILL, Trouble.STOP, Trouble.PAUSED_BY_HAND)
LIFE_ENDS = (Trouble.KILL, Trouble.STOP)
OF_TWO = (
    Trouble.FREEZE,
    Trouble.FREEZE_AT,
    Trouble.KILL_AT,
    Trouble.SPLIT,
    Trouble.DEAF,
    Trouble.JOURNAL_AWAY,
    Trouble.JOURNAL_SLOW,
)
OF_ECHOES = (Trouble.RESET, Trouble.OMITS, Trouble.MASKED, Trouble.ERROR_500, Trouble.DEAF, Trouble.DOWN, Trouble.SLOW)
"""What can become of an echo, while the worker goes on."""
# Plain refusals that come and go would, by the control rule, be taken for those of a message: at most one such window.
ONCE = (Trouble.FORBIDDEN_403,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a producer says. ``occurred_us`` is None for one without a stamp."""

    number: int
    kind: Kind
    order_id: int = 0
    fields: Mapping[str, Scalar]
    occurred_us: int | None = None
    sequence: int = -1
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Trouble from ``at_s`` on, for ``lasts_s``."""

    at_s: float
    trouble: Trouble
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that a seed decides before the first step. ``publications`` are (seconds, event).

    ``shared``: the queue has no single active consumer, so both workers get messages at once.
    ``witnesses`` are events of an order of its own, for when all is well again.
    """

    seed: int
    max_batch: int
    linger_s: float
    max_in_flight: int
    hold_limit_s: float
    max_unsettled_s: float
    prefetch: int
    latency_s: float
    storm_ratio: float
    calls_per_hour: int | None
    milestones: Sequence[int]
    how: Refusal
    takes_empty: bool
    blames_wrongly: bool
    lasts_s: float
    events: Mapping[int, Event]
    publications: Sequence[tuple[float, Event]]
    witnesses: Sequence[Event]

    faults: Sequence[Fault]
    journal_takes_s: float

    @property
    def fast_lane(self) -> bool:
        """Which lane deliveries come by: either, whatever else the seed decides."""
        return self.seed % 4 < 2

    workers: int
    shared: bool


def scenario_of(seed: int) -> Scenario:
    """The story of a seed. Odd ones are of two workers."""
    dice = random.Random(seed)
    workers = 1 + seed % 2
    takes_empty = dice.random() < 0.8
    lasts_s = dice.choice([2.0, 10.0, 40.0] if workers == 1 else [10.0, 40.0, 80.0])
    # Which of two events without a stamp was first is something that one worker remembers, and two cannot know.
    stamped = dice.random() < 0.75 or workers == 2
    events = _events(dice, lasts_s, dice.choice([1, 2, 4, 8] if workers == 1 else [1, 2, 3]), stamped=stamped)
    witnesses = [
        _event(dice, number, Kind.GOOD, order_id=WITNESS, occurred_s=int(START_S) + number)
        for number in range(FIRST_WITNESS, FIRST_WITNESS + WITNESSES)
    ]
    times = [(dice.uniform(0, lasts_s), event) for event in events.values()]
    shared = workers == 2 and dice.random() < 0.5
    if workers == 2:
        times = [(_soon_after(dice, event, at_s, together=shared), event) for at_s, event in times]
    times += [(dice.uniform(0, lasts_s), event) for event in events.values() if stamped and dice.random() < 0.08]
    return Scenario(
        seed=seed,
        max_batch=dice.choice([2, 5, 100]),
        linger_s=dice.choice([0.0, 0.02, 0.5]),
        max_in_flight=dice.choice([1, 2, 4]),
        hold_limit_s=dice.choice([5.0, 60.0]),
        max_unsettled_s=dice.choice([80.0, 900.0]),
        # Without a control call a window full of bad orders would have no witness.
        prefetch=dice.choice([4, 20, 2000]) if takes_empty else 2000,
        latency_s=dice.choice([0.002, 0.05, 1.0]),
        storm_ratio=dice.choice([0.5, 1.0]),
        calls_per_hour=dice.choice([None, None, None, 3600, 36_000]),
        milestones=[GOOD_FROM + number for number in events if dice.random() < 0.1],
        how=dice.choice(REFUSALS),
        takes_empty=takes_empty,
        blames_wrongly=dice.random() < 0.2,
        lasts_s=lasts_s,
        events=events | {event.number: event for event in witnesses},
        witnesses=witnesses,
        publications=sorted(times, key=lambda pair: pair[0]),
        faults=_faults(dice, lasts_s, _pool(workers=workers, lives_end=stamped), most=5 if workers == 1 else 8),
        journal_takes_s=dice.choice([0.001, 0.001, 0.4]),
        workers=workers,
        shared=shared,
    )


def _soon_after(dice: random.Random, event: Event, at_s: float, *, together: bool) -> float:
    """What two workers contend for are events that are news, mostly: so they come about when they happen, and several
    ``together`` where both workers may get them."""
    if event.occurred_us is None:
        return at_s
    at_s = max(0.0, (event.occurred_us - NOW_US) / 1_000_000 - START_S + dice.uniform(-1.0, 3.0))
    return at_s - at_s % 3.0 + dice.choice([0.0, 0.1]) if together else at_s


def _events(dice: random.Random, lasts_s: float, orders: int, *, stamped: bool) -> dict[int, Event]:
    doomed_orders = set(dice.sample(range(1, orders + 1), dice.choice([0, 0, 1])))
    share_bad = dice.choice([0.0, 0.05, 0.2, 0.2, 0.7])
    events = {}
    for number in range(1, dice.randint(5, 40) + 1):
        order_id = dice.randint(1, orders)
        chance = dice.random()
        kind = Kind.GOOD
        if chance < share_bad:
            kind = Kind.BAD
        elif order_id in doomed_orders and chance > 0.8:
            kind = Kind.DOOMED
        elif 0.5 < chance < 0.52:
            kind = Kind.INVALID
        has_stamp = stamped or dice.random() < 0.2
        occurred_s = int(START_S + dice.uniform(-5, lasts_s)) if has_stamp else None
        events[number] = _event(dice, number, kind, order_id=order_id, occurred_s=occurred_s)
    return events


def _event(dice: random.Random, number: int, kind: Kind, *, order_id: int, occurred_s: int | None) -> Event:
    if kind is Kind.INVALID:
        return Event(number=number, kind=kind, fields={}, body=b"poison %d" % number)
    status = {Kind.GOOD: GOOD_FROM, Kind.BAD: BAD_FROM, Kind.DOOMED: DOOMED_FROM}[kind] + number
    every: dict[str, Scalar] = {
        "status": status,
        "shipping_carrier": f"carrier {number}",
        "shipping_method": f"method {number}",
    }
    names = dice.choice([["status"], ["status", "shipping_carrier"], list(FIELDS)])
    if kind is Kind.GOOD and dice.random() < 0.2:
        names = ["shipping_carrier"]
    fields = {name: every[name] for name in names}
    sequence = dice.choice([-1, -1, 0, 1, 2])
    body: dict[str, object] = {"id": order_id, "event_id": number, **fields}
    occurred_us = None if occurred_s is None else NOW_US + occurred_s * 1_000_000
    if occurred_us is not None:
        body["occurred_at"] = format_time(occurred_us)
    if sequence != -1:
        body["sequence"] = sequence
    return Event(
        number=number,
        kind=kind,
        order_id=order_id,
        fields=fields,
        occurred_us=occurred_us,
        sequence=sequence,
        body=json.dumps(body).encode(),
    )


def event_number(value: Scalar) -> int:
    """The event that a value comes from."""
    return value % 1000 if isinstance(value, int) else int(str(value).rpartition(" ")[2])


def _pool(*, workers: int, lives_end: bool) -> list[Trouble]:
    # How a life remembers when it first saw events without a stamp ends with it: stories with such have one life.
    pool = [trouble for trouble in Trouble if trouble not in OF_TWO and (lives_end or trouble not in LIFE_ENDS)]
    pool += [Trouble.CUT, Trouble.RESET, Trouble.OMITS]
    return pool if workers == 1 else [*pool, *OF_TWO * 4, Trouble.KILL, Trouble.SILENT, Trouble.SLOW]


def _faults(dice: random.Random, lasts_s: float, pool: Sequence[Trouble], *, most: int) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(dice.choice([most - 5, 1, 2, 3, most])):
        trouble = dice.choice(pool)
        if trouble in ONCE and any(fault.trouble is trouble for fault in faults):
            continue
        lasts = dice.choice([0.5, 3.0, 10.0, 100.0])
        faults.append(Fault(at_s=dice.uniform(0, lasts_s), trouble=trouble, lasts_s=lasts))
    if most > 5 and dice.random() < 0.3:  # when echoes are due
        faults.append(Fault(at_s=dice.uniform(45.0, 80.0), trouble=dice.choice(OF_ECHOES), lasts_s=30.0))
    return sorted(faults, key=lambda fault: fault.at_s)
