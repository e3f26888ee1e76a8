"""What is unsettled, since when, and how it gets settled: the books of the pipeline."""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby, repeat, takewhile

import structlog

from worker.core.errors import CopyFailed
from worker.core.measures import Measures, Outcome
from worker.core.model import Dead, Delivery, Reason, Retry, Settlement, Update, Version
from worker.core.partition import LostGenerations, share
from worker.core.versions import FirstSight
from worker.ports import Index, Settler, WallClock, wall_us
from worker.retrying import forever

log = structlog.get_logger(__name__)

REMEMBERED = 20
"""Prefetch windows of lost deliveries whose first sight is kept."""
EARLY_AT_MOST = 200
"""Settlements that need no call and wait for one that ends; beyond this they are settled by themselves."""


class Unsettled:
    """Every delivery between its arrival and its settlement. Bounded by the prefetch, as the broker hands over no
    more. Dead letters go into ``index`` before they are acknowledged, and ``measures`` hears what was settled. Each of
    ``partitions`` has a share of the prefetch, and channels of its own."""

    def __init__(
        self,
        settler: Settler,
        *,
        prefetch: int,
        index: Index | None = None,
        partitions: int = 1,
        measures: Measures | None = None,
        wall_us: WallClock = wall_us,
    ) -> None:
        self._settler = settler
        self._measures = measures or Measures()
        self._wall_us = wall_us
        self._index = index
        self._open: dict[Delivery, tuple[float, Update | None]] = {}
        self._partitions = partitions
        self._lost = LostGenerations(partitions)
        # Acks are not confirmed: those on their way when a channel is lost come again. The broker counts them as open,
        # so together with what is open here they are never more than the prefetch of that channel, and they are the
        # last written ones on it.
        self._latest = share(prefetch, partitions)
        self._settled: dict[int, deque[Update]] = {}
        self._first_sight = FirstSight(REMEMBERED * prefetch)
        self._stuck: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    @property
    def stuck(self) -> str:
        """Why settlements cannot be carried out: a copy could not be placed, and is tried again. Empty if none is."""
        return next(iter(self._stuck.values()), "")

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._open

    def still_open(self, settlements: Iterable[Settlement]) -> list[Settlement]:
        """Those whose delivery is unsettled."""
        open_ones = self._open
        return [settlement for settlement in settlements if settlement.delivery in open_ones]

    @property
    def oldest(self) -> float | None:
        """When the delivery arrived that waits longest, in monotonic seconds."""
        return next(iter(self._open.values()))[0] if self._open else None

    def before_any_besides(self, decided: Collection[Delivery]) -> Collection[Delivery]:
        """The unsettled deliveries that arrived before the first one that is none of these."""
        return set(takewhile(decided.__contains__, self._open))

    def add(self, arrived: Mapping[Delivery, Update | None], now: float) -> None:
        """These arrived together, in this order; None stands for an update where a body could not be decoded."""
        self._open.update(zip(arrived, zip(repeat(now), arrived.values(), strict=False), strict=False))
        self.counts["delivered"] += len(arrived)

    def version_of(self, delivery: Delivery) -> Version | None:
        """The version that a redelivery had when it was seen first, if this process remembers it. Asked once."""
        return self._first_sight.recall(delivery)

    def lost(self, generation: int) -> None:
        """Forget what the broker delivers again, but not which version it had. That may be what was just settled,
        too."""
        self._lost.add(generation)
        for number in [number for number in self._settled if number in self._lost]:
            for settled in self._settled.pop(number):
                self._first_sight.remember(settled.delivery, settled.version)
        for delivery, (_, update) in list(self._open.items()):
            if delivery.generation in self._lost:
                del self._open[delivery]
                if update is not None:
                    self._first_sight.remember(delivery, update.version)

    def worn(self, returns: int) -> list[Settlement]:
        """What came back so often already: copies that begin anew, at the same attempt.

        Every release counts towards the broker's delivery limit, beyond which it dead-letters by itself. A message must
        not end that way because the platform was away again and again.
        """
        detail = f"came back {returns} times or more; a new copy begins at 0"
        again = Retry(tier=0, reason=Reason.WORN, detail=detail, counts=False)
        return [
            Settlement(delivery=delivery, disposition=again, update=update)
            for delivery, (_, update) in self._open.items()
            if delivery.returns >= returns and update is not None
        ]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Carry out dispositions. A copy that fails is tried again for as long as its delivery is ours to settle."""
        if not settlements:
            return
        try:
            await self._place(settlements)
        finally:
            self._stuck.pop(id(settlements), None)
        taken = [self._open.pop(settlement.delivery, None) for settlement in settlements]
        if None in taken:
            settlements = [each for each, known in zip(settlements, taken, strict=True) if known is not None]
        self._note_settled([known[1] for known in taken if known is not None and known[1] is not None])
        self._count(settlements)

    def _note_settled(self, updates: Sequence[Update]) -> None:
        if not updates:
            return
        # What is open of a single queue is all of its latest channel.
        channels = groupby(updates, _generation_of) if self._partitions > 1 else [(_generation_of(updates[0]), updates)]
        for generation, several in channels:
            latest = self._settled.get(generation)
            if latest is None:
                latest = self._settled[generation] = deque(maxlen=self._latest)
            latest.extend(several)

    async def _place(self, settlements: Sequence[Settlement]) -> None:
        number = id(settlements)  # not the settlements: see retrying.py on what `noticed` keeps alive

        def noticed(error: Exception, attempt: int, wait_s: float) -> None:
            self._stuck[number] = str(error)
            log.error("broker.copy_failed", reason=str(error), attempt=attempt, wait_s=round(wait_s, 3))

        async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(CopyFailed,), noticed=noticed):
            with attempt:
                await self._settler.settle(settlements, self._index)

    def _count(self, settled: Sequence[Settlement]) -> None:
        tally = self._measures.settled(settled, wall_us=self._wall_us())
        for (outcome, reason), times in tally.items():
            self.counts[reason if outcome is Outcome.ACKED else outcome] += times
        if all(outcome is Outcome.ACKED for outcome, _ in tally):
            return
        for settlement in settled:
            match settlement.disposition:
                case Retry(counts=True, reason=reason, detail=detail):
                    log.warning("message.retry", reason=reason, detail=detail, **_about(settlement))
                case Dead(reason=reason, detail=detail):
                    log.warning("message.dead", reason=reason, detail=detail, **_about(settlement))
                case _:
                    pass


class Early:
    """Decided on arrival, because no call is needed: what is covered, and what is no event. Settled in company."""

    def __init__(self, unsettled: Unsettled) -> None:
        self._unsettled = unsettled
        self._waiting: list[Settlement] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, settlements: Iterable[Settlement]) -> None:
        """These are decided."""
        self._waiting.extend(settlements)

    def take(self) -> list[Settlement]:
        """What may be settled now.

        Invalid events wait for what arrived before them and is not settled: the storm guard looks at shares, and of a
        full prefetch all the invalid events would be decided before the first good one.
        """
        if not self._waiting:
            return []
        decided = {settlement.delivery for settlement in self._waiting}
        before = self._unsettled.before_any_besides(decided)
        due: list[Settlement] = []
        later: list[Settlement] = []
        for each in self._waiting:
            waits = isinstance(each.disposition, Dead) and each.delivery not in before
            (later if waits and each.delivery in self._unsettled else due).append(each)
        self._waiting = later
        return due


def _generation_of(update: Update) -> int:
    return update.delivery.generation


def _about(settlement: Settlement) -> dict[str, object]:
    update = settlement.update
    return {
        "order_id": update.order_id if update is not None else None,
        "attempt": update.attempt if update is not None else None,
        "batch_id": settlement.batch_id or None,
    }
