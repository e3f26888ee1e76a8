"""One look at a running worker: what its gauges and its ``/state`` are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.core.readiness import Activity, IntakeStatus


class QueueKind(StrEnum):
    """The queues of a worker by what they are for; there may be several of a kind."""

    WORK = "work"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(slots=True, frozen=True, kw_only=True)
class Depth:
    """Messages in the queues of a kind: ready ones, and those a consumer has in hand (None: the broker was not asked,
    or did not say)."""

    ready: int
    unacked: int | None = None


Depths = Mapping[QueueKind, Depth]
"""Kinds that are not known at the moment are absent."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Health:
    """Of the process. ``alive`` is false where only a new one will do; ``loop_lag_s`` is how late the event loop came
    at most in the last minute; ``connections`` says which of those to the broker stand."""

    alive: bool
    loop_lag_s: float = 0.0
    connections: Mapping[str, bool] = field(default_factory=dict)


@dataclass(slots=True, frozen=True, kw_only=True)
class Vitals:
    """Everything at one moment. ``token_age_s`` is None without a token; ``started_s`` is seconds since 1970."""

    activity: Activity
    intake: IntakeStatus
    health: Health
    ready: bool
    token_age_s: float | None
    depths: Depths
    version: str
    python: str
    started_s: float
