"""Who takes which partition first, what each may hold, and which channels a lost one takes along."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.partition import (
    MOST,
    STANDBY_S,
    LostGenerations,
    Partition,
    assigned,
    generation_number,
    heeds_priorities,
    other_queues,
    partition_of,
    queue_names,
    share,
    standby_s,
)

MANY = st.integers(2, MOST)
WORKERS = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8, unique=True)


def active(partitions: int, workers: list[str]) -> list[str]:
    """Which of the workers the broker makes active on each partition: the one of the highest priority."""
    each = {worker: assigned("q", partitions, worker=worker) for worker in workers}
    return [max(workers, key=lambda worker: each[worker][number].priority or 0) for number in range(partitions)]


def test_one_partition_is_the_queue_itself() -> None:
    """Nothing changes for those who have one, down to the arguments of the consumer."""
    assert queue_names("q", 1) == ("q",)
    assert assigned("q", 1, worker="w") == (Partition(number=0, queue="q", priority=None, own=True),)


def test_several_are_numbered_behind_the_name() -> None:
    """So that they sort together, and none has the name of the exchange in front of them."""
    assert queue_names("q", 3) == ("q.0", "q.1", "q.2")


@given(st.integers(1, MOST))
def test_other_queues_are_all_names_of_other_numbers_of_partitions(partitions: int) -> None:
    """Wherever a migration came from, its queues are among them, and none that is in use is."""
    others = set(other_queues("q", partitions))

    assert others.isdisjoint(queue_names("q", partitions))
    for before in range(1, MOST + 1):
        assert set(queue_names("q", before)) <= others | set(queue_names("q", partitions))


@given(MANY, WORKERS)
def test_every_worker_registers_on_every_partition(partitions: int, workers: list[str]) -> None:
    """None is without a worker as long as there is one."""
    for worker in workers:
        assert [each.queue for each in assigned("q", partitions, worker=worker)] == list(queue_names("q", partitions))


@given(MANY, st.text(max_size=30))
def test_a_worker_has_each_partition_at_a_place_of_its_own(partitions: int, worker: str) -> None:
    """Its priorities are all different, fit 31 bits, and are above the mover's."""
    priorities = [each.priority or 0 for each in assigned("q", partitions, worker=worker)]

    assert len({priority >> 16 for priority in priorities}) == partitions
    assert all(0 < priority < 2**31 for priority in priorities)


@given(MANY, WORKERS)
def test_priorities_are_the_same_whenever_they_are_asked_for(partitions: int, workers: list[str]) -> None:
    """A channel that is opened anew gets back what it had."""
    for worker in workers:
        assert assigned("q", partitions, worker=worker) == assigned("q", partitions, worker=worker)


@given(MANY, WORKERS, st.text(min_size=1, max_size=30))
def test_a_worker_that_comes_takes_and_moves_nothing_else(partitions: int, workers: list[str], new: str) -> None:
    """What it does not take stays where it is; and when it goes again, all is as it was."""
    if new in workers:
        return
    before, after = active(partitions, workers), active(partitions, [*workers, new])

    assert all(now in {was, new} for was, now in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("workers", "partitions", "mean", "worst"),
    [(2, 12, 0.58, 0.75), (3, 12, 0.44, 0.59), (4, 16, 0.34, 0.5), (2, 4, 0.64, 1.0), (6, 32, 0.25, 0.35)],
)
def test_partitions_spread_evenly(workers: int, partitions: int, mean: float, worst: float) -> None:
    """The share of the busiest worker, over 500 sets of names: on average, and in all but 1 % of them."""
    shares = sorted(
        max(Counter(active(partitions, [f"pod-{seed}-{n}" for n in range(workers)])).values()) / partitions
        for seed in range(500)
    )

    assert sum(shares) / len(shares) <= mean
    assert shares[-6] <= worst


@given(MANY, st.integers(1, 8), st.integers(0, 20))
def test_an_index_makes_partitions_ones_own(partitions: int, workers: int, index: int) -> None:
    """Those whose number modulo the workers is the index; each of them is before every other one."""
    made = assigned("q", partitions, worker="w", index=index, workers=workers)
    own = [each.priority or 0 for each in made if each.own]
    others = [each.priority or 0 for each in made if not each.own]

    assert {each.number for each in made if each.own} == set(range(index % workers, partitions, workers))
    assert not own or not others or min(own) > max(others)


@given(st.integers(1, 6), st.integers(1, 6))
def test_numbered_workers_have_exactly_even_shares(workers: int, each_has: int) -> None:
    """As long as all of them are there."""
    partitions = max(2, workers * each_has)
    made = [assigned("q", partitions, worker=f"w{n}", index=n, workers=workers) for n in range(workers)]

    for number in range(partitions):
        first = max(range(workers), key=lambda n: made[n][number].priority or 0)
        assert first == number % workers


@given(st.integers(1, 2000), st.integers(1, MOST))
def test_shares_are_equal_and_within_the_whole(prefetch: int, partitions: int) -> None:
    """The prefetch bounds the memory of the worker, however many partitions it is active on."""
    part = share(prefetch, partitions)

    assert part >= 1
    assert part * partitions <= prefetch or part == 1


@pytest.mark.parametrize(
    ("version", "heeds"),
    [("3.10.8", False), ("3.13.7", False), ("4.0.5", True), ("4.3.6", True), ("10.1", True), ("", True)],
)
def test_priorities_are_heeded_from_4_0_on(version: str, heeds: bool) -> None:
    """A broker that does not tell is taken for a new one: then nobody waits in vain."""
    mine, theirs = Partition(number=0, queue="q.0", own=True), Partition(number=1, queue="q.1", own=False)

    assert heeds_priorities(version) is heeds
    assert standby_s(mine, version) == 0.0
    assert standby_s(theirs, version) == (0.0 if heeds else STANDBY_S)


@given(st.integers(1, MOST), st.integers(1, 10**6))
def test_a_generation_tells_its_partition(partitions: int, counter: int) -> None:
    """And no two channels of a worker have the same number."""
    numbers = [generation_number(counter, number, partitions) for number in range(partitions)]

    assert [partition_of(number, partitions) for number in numbers] == list(range(partitions))
    assert generation_number(counter + 1, 0, partitions) > max(numbers)


@given(st.integers(1, 5), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 60))
def test_a_lost_channel_takes_older_ones_of_its_partition_along_only(
    partitions: int, gone: list[int], generation: int
) -> None:
    """With one partition: every older one."""
    lost = LostGenerations(partitions)
    for each in gone:
        lost.add(each)

    same = [each for each in gone if partition_of(each, partitions) == partition_of(generation, partitions)]
    assert (generation in lost) is any(generation <= each for each in same)
