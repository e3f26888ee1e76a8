"""The ack planner against a model of the broker: every planned tag settled once, nothing else, entries in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from worker.core.acks import AckFrame, AckLedger


def ledger_with(count: int) -> AckLedger:
    ledger = AckLedger()
    for tag in range(1, count + 1):
        ledger.delivered(tag)
    return ledger


def apply(frames: list[AckFrame], unsettled: set[int]) -> list[set[int]]:
    """What a broker settles with each frame, in turn. Fails where the broker would close the channel."""
    steps = []
    for frame in frames:
        assert frame.tag in unsettled, f"unknown delivery tag {frame.tag}"
        step = {tag for tag in unsettled if tag <= frame.tag} if frame.multiple else {frame.tag}
        unsettled -= step
        steps.append(step)
    return steps


def assert_keeps_order(groups: list[list[int]], steps: list[set[int]]) -> None:
    when = {tag: number for number, step in enumerate(steps) for tag in step}
    for group in groups:
        times = [when[tag] for tag in group]

        assert times == sorted(times)


def test_a_full_prefix_is_one_multiple_frame() -> None:
    """A batch with nothing open below it costs one frame."""
    assert ledger_with(5).plan([[1, 2], [3]]) == [AckFrame(3, multiple=True)]


def test_multiple_never_covers_an_open_tag() -> None:
    """Tags above an open one are acked singly."""
    assert ledger_with(5).plan([[1], [2], [4]]) == [AckFrame(2, multiple=True), AckFrame(4, multiple=False)]


def test_closing_a_gap_names_a_tag_not_acked_yet() -> None:
    """The tag above the gap was acked before; the multiple frame names the highest of this plan."""
    ledger = ledger_with(4)
    ledger.plan([[3], [4]])

    assert ledger.plan([[1], [2]]) == [AckFrame(2, multiple=True)]


def test_an_older_mate_above_the_frontier_leaves_before_the_multiple_frame() -> None:
    """Group [7, 3]: 7 is the older value, so it must not be acked after 3."""
    frames = ledger_with(8).plan([[1], [2], [7, 3]])

    assert frames == [AckFrame(7, multiple=False), AckFrame(3, multiple=True)]


def test_mates_older_than_a_hurried_one_leave_before_it() -> None:
    """Group [3, 7, 2]: 3 could be covered, but is older than 7, which has to hurry for 2."""
    frames = ledger_with(8).plan([[1], [3, 7, 2]])

    assert frames == [AckFrame(3, multiple=False), AckFrame(7, multiple=False), AckFrame(2, multiple=True)]


def test_a_tag_is_planned_once() -> None:
    """Planning it again is refused, and the refusal changes nothing."""
    ledger = ledger_with(3)
    ledger.plan([[2]])

    with pytest.raises(ValueError, match="tag 2 is not open"):
        ledger.plan([[1, 2]])
    assert ledger.is_open(1)
    assert ledger.plan([[1], [3]]) == [AckFrame(3, multiple=True)]


def test_a_tag_named_twice_in_one_plan_is_refused() -> None:
    """Two groups with the same tag are a bug of the caller."""
    with pytest.raises(ValueError, match="tag 1 is not open"):
        ledger_with(2).plan([[1], [1]])


def test_a_skipped_tag_is_never_covered() -> None:
    """A delivery that we never saw stays open at the broker."""
    ledger = AckLedger()
    ledger.delivered(1)
    ledger.delivered(3)

    assert ledger.open_count == 3
    assert ledger.plan([[1], [3]]) == [AckFrame(1, multiple=False), AckFrame(3, multiple=False)]


def test_many_are_noted_as_each_would_be() -> None:
    """In one go where none was skipped, else one by one."""
    ledger = AckLedger()
    ledger.delivered_many([1, 2])
    ledger.delivered_many([])
    ledger.delivered_many([3, 5])

    assert (ledger.open_count, ledger.delivered_count) == (5, 5)
    with pytest.raises(ValueError, match="tag 5 after tag 5"):
        ledger.delivered_many([5, 6])
    with pytest.raises(ValueError, match="tag 6 after tag 7"):
        ledger.delivered_many([7, 6])
    assert ledger.plan([[3], [2], [1], [5]]) == [AckFrame(3, multiple=True), AckFrame(5, multiple=False)]


def test_tags_rise() -> None:
    """A tag that comes a second time belongs to another channel."""
    with pytest.raises(ValueError, match="tag 2 after tag 2"):
        ledger_with(2).delivered(2)


def test_an_empty_plan_has_no_frames() -> None:
    """Nothing to settle, nothing to write."""
    assert ledger_with(2).plan([]) == []


@given(st.data())
def test_a_plan_never_has_more_frames_than_tags(data: st.DataObject) -> None:
    """The order of the entries may cost single frames, never additional ones."""
    tags = data.draw(st.permutations(range(1, 20)))
    chosen = tags[: data.draw(st.integers(0, 19))]
    cut = data.draw(st.integers(0, len(chosen)))

    assert len(ledger_with(19).plan([chosen[:cut], chosen[cut:]])) <= len(chosen)


class AckPlanning(RuleBasedStateMachine):
    """Deliver and settle in any order; the model broker holds the truth."""

    tags: Bundle[int] = Bundle("tags")

    @initialize()
    def channel(self) -> None:
        self.ledger = AckLedger()
        self.unsettled: set[int] = set()
        self.waiting: set[int] = set()
        self.last = 0

    @rule(target=tags, count=st.integers(1, 8), together=st.booleans())
    def deliver(self, count: int, *, together: bool) -> MultipleResults[int]:
        """The broker hands over some more."""
        new = range(self.last + 1, self.last + count + 1)
        if together:
            self.ledger.delivered_many(list(new))
        else:
            for tag in new:
                self.ledger.delivered(tag)
        self.last += count
        self.unsettled.update(new)
        self.waiting.update(new)
        return multiple(*new)

    @rule(chosen=st.lists(tags, unique=True, max_size=12), data=st.data())
    def settle(self, chosen: list[int], data: st.DataObject) -> None:
        """A batch is settled: some entries with their deliveries in any version order."""
        wanted = [tag for tag in chosen if tag in self.waiting]
        groups: list[list[int]] = []
        while wanted:
            size = data.draw(st.integers(1, len(wanted)))
            groups.append(wanted[:size])
            wanted = wanted[size:]
        self._settle(groups)

    @rule()
    def settle_all(self) -> None:
        """Everything at once, the newest first."""
        self._settle([sorted(self.waiting, reverse=True)])

    def _settle(self, groups: list[list[int]]) -> None:
        planned = {tag for group in groups for tag in group}
        before = set(self.unsettled)
        frames = self.ledger.plan(groups)
        steps = apply(frames, self.unsettled)
        self.waiting -= planned

        assert before - self.unsettled == planned
        assert sum(map(len, steps)) == len(planned)
        assert_keeps_order(groups, steps)

    @invariant()
    def counts_agree(self) -> None:
        """The ledger and the broker agree on what is open."""
        assert getattr(self, "unsettled", set()) == getattr(self, "waiting", set())
        if hasattr(self, "ledger"):
            assert self.ledger.open_count == len(self.unsettled)


TestAckPlanning = AckPlanning.TestCase
