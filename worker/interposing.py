"""Another sink between an intake and the one that it is opened with."""

from collections.abc import Callable

from worker.ports import Intake, Sink


class InterposedIntake:
    """Implements ``ports.Intake``: the same intake, but what comes goes to ``before(sink)``, and from there on."""

    def __init__(self, intake: Intake, before: Callable[[Sink], Sink]) -> None:
        self._intake = intake
        self._before = before

    async def open(self, sink: Sink) -> None:
        """See ``ports.Intake``."""
        await self._intake.open(self._before(sink))

    async def cancel(self) -> None:
        """See ``ports.Intake``."""
        await self._intake.cancel()

    async def release(self) -> None:
        """See ``ports.Intake``."""
        await self._intake.release()
