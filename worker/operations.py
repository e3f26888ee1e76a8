"""What people, orchestrators and Prometheus see of a running worker, put together from its parts."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from worker.core.readiness import IntakeStatus, Readiness, readiness
from worker.core.readings import Reading, readings
from worker.core.times import format_time
from worker.core.vitals import Depths, Health, Vitals
from worker.depths import QueueDepths
from worker.pipeline import Pipeline


@dataclass(slots=True, frozen=True, kw_only=True)
class Parts:
    """Where to look, beside the pipeline. Each callable gives a snapshot of now.

    ``token_age_s`` is None without a token; ``stalled`` is what the watchdog found, empty if nothing; ``journal_found``
    says whether the journal has answered at all. ``started_s`` is seconds since 1970.
    """

    intake: Callable[[], IntakeStatus]
    token_age_s: Callable[[], float | None]
    stalled: Callable[[], str]
    health: Callable[[], Health]
    journal_found: Callable[[], bool]
    depths: QueueDepths
    version: str
    started_s: float


class WorkerOperations:
    """Implements ``ports.Operations``, and reads the figures for the metrics."""

    def __init__(self, pipeline: Pipeline, parts: Parts) -> None:
        self._pipeline = pipeline
        self._parts = parts

    def health(self) -> Health:
        """Whether this process can still be brought to work, and what it is connected to."""
        return self._parts.health()

    def readiness(self) -> Readiness:
        """See ``core/readiness.py``."""
        return readiness(self._pipeline.activity, self._parts.intake(), stalled=self._parts.stalled())

    async def readings(self) -> Sequence[Reading]:
        """Every metric that is known now."""
        depths = await self._parts.depths.look()
        return readings(self._pipeline.measures, self._vitals(depths, self.readiness()))

    async def state(self) -> Mapping[str, object]:
        """Readiness, the pipeline, the intake, the queues, health, and the age of the token in seconds."""
        depths = await self._parts.depths.look()
        ready = self.readiness()
        now = self._vitals(depths, ready)
        intake = now.intake
        applied_us = self._pipeline.measures.last_applied_us
        activity = _rounded(asdict(now.activity))
        activity["entries"] = activity.pop("buffered")
        return {
            "ready": ready.ready,
            "role": ready.role,
            **activity,
            "reason": ready.reason,
            "detail": ready.detail,
            "queues": {kind: asdict(depth) for kind, depth in depths.items()},
            "last_applied_at": None if applied_us is None else format_time(applied_us),
            "connected": intake.connected,
            "consuming": intake.consuming,
            "generation": intake.generation,
            "fast_lane": intake.fast_lane,
            "partitions": intake.partitions,
            "serving": intake.serving,
            **_rounded({"token_age_s": now.token_age_s}),
            **_rounded(asdict(now.health)),
            "version": now.version,
        }

    def _vitals(self, depths: Depths, ready: Readiness) -> Vitals:
        parts, activity = self._parts, self._pipeline.activity
        return Vitals(
            activity=replace(activity, journal_up=activity.journal_up and parts.journal_found()),
            intake=parts.intake(),
            health=parts.health(),
            ready=ready.ready,
            token_age_s=parts.token_age_s(),
            depths=depths,
            version=parts.version,
            python=platform.python_version(),
            started_s=parts.started_s,
        )

    async def pause(self, detail: str) -> None:
        """Stop consuming until ``resume``."""
        await self._pipeline.availability.pause(detail)

    async def resume(self) -> bool:
        """Go on; False if it was not paused by hand."""
        return await self._pipeline.availability.resume_by_hand()


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
