"""What arrives together has a straight line through the coalescer: it leaves as if it had come one by one."""

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_update
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.model import Update

ARRIVALS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from([4, 8, 64]), st.integers(0, 9)), max_size=5),
        st.floats(0.0, 0.5),
        st.booleans(),
    ),
    max_size=8,
)
"""Orders, statuses and times of what comes together; how long that is after the one before; whether calls start."""


def seen(batch: Batch | None) -> tuple[FlushReason, list[tuple[int, list[Update], float]]] | None:
    if batch is None:
        return None
    return batch.reason, [(entry.order_id, entry.updates, entry.since) for entry in batch.entries]


class Twins:
    """Two coalescers that get the same updates, one in lists and one by one."""

    def __init__(self, milestones: Collection[int]) -> None:
        self.lists, self.single = (
            Coalescer(max_batch=3, max_bytes=400, linger_s=0.7, milestones=milestones) for _ in range(2)
        )
        self._out: list[tuple[Batch, Batch]] = []

    def arrive(self, updates: Sequence[Update], now: float) -> None:
        self.lists.add_all(updates, now)
        for update in updates:
            self.single.add(update, now)

    def call(self, now: float) -> None:
        one, other = self.lists.pop_ready(now), self.single.pop_ready(now)

        assert seen(one) == seen(other)
        if one is not None and other is not None:
            self._out.append((one, other))
        elif self._out:
            one, other = self._out.pop(0)
            self.lists.finish_all(one.entries)
            for entry in other.entries:
                self.single.finish(entry)

    def same(self) -> bool:
        """Whether nobody could tell them apart."""
        one, other = self.lists, self.single
        return (one.next_deadline(), one.full, one.idle, one.buffered) == (
            other.next_deadline(),
            other.full,
            other.idle,
            other.buffered,
        )


@pytest.mark.parametrize("milestones", [(), (64,)])
@given(arrivals=ARRIVALS)
def test_updates_that_come_together_leave_as_if_they_had_come_one_by_one(
    milestones: Collection[int], arrivals: Sequence[tuple[Sequence[tuple[int, int, int]], float, bool]]
) -> None:
    """The same batches for the same reasons, the same deadlines; orders that are known already, and new ones."""
    twins, now, tag = Twins(milestones), 0.0, 0
    for events, later_s, calls in arrivals:
        now += later_s
        updates = []
        for order_id, status, at in events:
            tag += 1
            updates.append(make_update(order_id, status=status, at=at, tag=tag))
        twins.arrive(updates, now)
        if calls:
            twins.call(now)

        assert twins.same()
