"""What people and orchestrators see of a running worker, put together from its parts (``ports.Operations``)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from worker.core.readiness import IntakeStatus, Readiness, readiness
from worker.pipeline import Pipeline


class WorkerOperations:
    """Implements ``ports.Operations``. The callables give a snapshot of now; ``token_age_s`` is None without a token.

    ``stalled`` is what the watchdog found, empty if nothing; ``alive`` is false once it has given up.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        intake: Callable[[], IntakeStatus],
        token_age_s: Callable[[], float | None],
        stalled: Callable[[], str] = str,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._pipeline = pipeline
        self._intake = intake
        self._token_age_s = token_age_s
        self._stalled = stalled
        self._alive = alive

    def alive(self) -> bool:
        """Whether this process can still be brought to work."""
        return self._alive()

    def readiness(self) -> Readiness:
        """See ``core/readiness.py``."""
        return readiness(self._pipeline.activity, self._intake(), stalled=self._stalled())

    def state(self) -> Mapping[str, object]:
        """Readiness, the pipeline, the intake, and the age of the token in seconds."""
        age_s = self._token_age_s()
        activity, intake, ready = asdict(self._pipeline.activity), self._intake(), self.readiness()
        return {
            "ready": ready.ready,
            "role": ready.role,
            **{name: round(value, 3) if isinstance(value, float) else value for name, value in activity.items()},
            "reason": ready.reason,
            "detail": ready.detail,
            "connected": intake.connected,
            "consuming": intake.consuming,
            "generation": intake.generation,
            "partitions": intake.partitions,
            "serving": intake.serving,
            "token_age_s": None if age_s is None else round(age_s, 3),
        }

    async def pause(self, detail: str) -> None:
        """Stop consuming until ``resume``."""
        await self._pipeline.availability.pause(detail)

    async def resume(self) -> bool:
        """Go on; False if it was not paused by hand."""
        return await self._pipeline.availability.resume_by_hand()
