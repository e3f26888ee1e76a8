"""What the benchmarks are kept with is right itself; these run with all other tests."""

import asyncio
from array import array
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks.feeding import Refused
from tests.benchmarks.figures import Figures, Median
from tests.benchmarks.loads import FIRST_ORDER, Event, Load, even, load_named, zipf
from tests.benchmarks.plotting import plot
from tests.benchmarks.queues import Queues
from tests.benchmarks.record import Delays, Growth, Record, at_least, at_most, none_wrong
from tests.benchmarks.report import BEGIN, END, README, newest, replaced
from tests.benchmarks.standin import Platform
from tests.builders import make_delivery
from worker.adapters.privatebroker import PrivateBroker
from worker.core.decode import EventSchema
from worker.core.model import Update

EVENTS = 3_000


def run(*, cpu_s: float = 1.0, wrong: int = 0, peak_mb: float = 50.0) -> Figures:
    """One round of 100,000 events in two seconds."""
    return Figures(
        name="worker", load="A", events=100_000, seconds=2.0, cpu_s=cpu_s, start_cpu_s=0.5, peak_mb=peak_mb,
        calls=200, entries=100_000, wrong=wrong,
    )  # fmt: skip


@pytest.fixture
def record() -> Record:
    """A session that measured one thing of each kind."""
    made = Record.begin()
    made.compare([run(), run(cpu_s=2.0), run(cpu_s=3.0)])
    made.grew("backlog", [(10_000, [run()]), (100_000, [run()])])
    made.delayed(
        Delays(
            name="worker", load="A", rate=10.0, platform="20 ms", events=200,
            applied_p50=10.0, applied_p99=20.0, answered_p50=22.0, answered_p99=24.0,
        )
    )  # fmt: skip
    made.judge(at_most("CPU", 3.0, 2.0, " s"))
    return made


@pytest.mark.parametrize("letter", ["A", "B", "C"])
def test_events_are_what_a_worker_decodes(letter: str) -> None:
    """Bodies of about 180 bytes; the later event of an order has the later stamp."""
    load = load_named(letter, EVENTS)
    schema = EventSchema({}, ())
    seen: dict[int, Update] = {}
    for event in load:
        update = schema.decode(make_delivery(event.body))
        assert isinstance(update, Update)
        assert (update.order_id, update.fields) == (event.order_id, event.fields)
        assert event.order_id not in seen or seen[event.order_id].version < update.version
        seen[event.order_id] = update

    assert len(load) == EVENTS
    assert 160 <= len(Event(FIRST_ORDER, 0).body) <= 200


def test_loads_have_the_orders_that_their_names_say() -> None:
    """A: one event each; B: ten each; C: the first order has about a sixth of all, the last ones nearly none."""
    a, b, c = (load_named(letter, EVENTS).newest for letter in "ABC")

    assert (len(a), set(a.values())) == (EVENTS, {0})
    assert (len(b), set(b.values())) == (EVENTS // 10, {9})
    assert EVENTS // 10 < max(c.values()) == c[FIRST_ORDER] < EVENTS // 4


def test_shuffling_keeps_every_event() -> None:
    """Only their order is another."""
    load = even("B", orders=20, per_order=10, seed=1)
    shuffled = load.shuffled(seed=2)

    assert list(shuffled) != list(load)
    assert sorted((event.order_id, event.number) for event in shuffled) == sorted(
        (event.order_id, event.number) for event in load
    )


def test_an_order_that_misses_its_newest_event_is_wrong() -> None:
    """Fields that nobody sent do not matter."""
    load = Load.of("two", array("q", [1, 2, 1]))

    assert load.is_right({"id": 1, **Event(1, 1).fields, "status_name": "Unknown"})
    assert load.is_right({"id": 2, **Event(2, 0).fields})
    assert not load.is_right({"id": 3, **Event(3, 0).fields})
    assert not load.is_right({"id": 1, **Event(1, 0).fields})
    assert not load.is_right({"id": 1, **Event(1, 1).fields, "shipping_carrier": "Pigeon"})


async def test_orders_that_the_platform_never_saw_are_wrong(tmp_path: Path) -> None:
    """All of them, before anything was sent."""
    async with Platform.start(tmp_path) as platform:
        assert await platform.wrong(Load.of("two", array("q", [1, 2, 1]))) == [1, 2]


def test_medians_are_of_figures_and_sums_are_of_what_must_not_be() -> None:
    """One round in which an order ends wrong is enough."""
    median = Median.of([run(cpu_s=1.0), run(cpu_s=9.0, wrong=1), run(cpu_s=2.0)])

    assert (median.cpu_per_100k_s, median.rate, median.wrong, median.rounds) == (2.0, 50_000.0, 1, 3)
    assert (median.calls_per_1000, median.fill) == (2.0, 500.0)
    assert not none_wrong(median).held


def test_a_session_fails_for_its_missed_targets_and_keeps_them_all(record: Record) -> None:
    """Everything is said first."""
    with pytest.raises(pytest.fail.Exception, match="MISSED  rate"):
        record.judge(at_most("CPU", 1.0, 1.0), at_least("rate", 3.5, 3.4))

    assert [target.held for target in record.targets] == [True, True, False]


def test_the_table_of_the_readme_comes_from_the_file(record: Record, tmp_path: Path) -> None:
    """Written, read again, and put between the two comments."""
    path = record.write(tmp_path)
    again = msgspec.json.decode(newest(tmp_path).read_bytes(), type=Record)
    text = replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", again)

    assert path == newest(tmp_path)
    assert "old" not in text
    assert (text.startswith("before\n"), text.endswith(f"{END}\nafter\n")) == (True, True)
    for part in (record.conditions.commit, "2.00", "held", "24.0 ms", "10,000"):
        assert part in text


def test_readme_has_a_place_for_the_results(record: Record) -> None:
    """Once, and nowhere else."""
    assert replaced(README.read_text(), record).count(BEGIN) == 1
    with pytest.raises(ValueError, match="no place"):
        replaced("nothing here", record)


def test_a_picture_is_drawn_of_whatever_was_measured(record: Record, tmp_path: Path) -> None:
    """All kinds of panels, and one alone."""
    plot(record, tmp_path / "all.png")
    plot(Record(conditions=record.conditions, growth=[Growth(axis="x", step=1, median=Median.of([run()]))]),
         tmp_path / "one.png")  # fmt: skip

    assert {path.read_bytes()[:8] for path in tmp_path.glob("*.png")} == {b"\x89PNG\r\n\x1a\n"}


@pytest.mark.broker
async def test_producers_for_load_are_confirmed_one_by_one(broker: PrivateBroker) -> None:
    """What was published is in the queue when publishing is over."""
    load = zipf("C", events=2_500, seed=1)
    async with Queues.made(broker) as queues:
        await queues.publish(load)

        assert await queues.left() == len(load)
        await queues.purge()
        assert await queues.left() == 0


@pytest.mark.broker
async def test_a_message_that_no_queue_takes_spoils_the_measurement(broker: PrivateBroker) -> None:
    """The broker closes the channel of a producer whose exchange is gone."""
    async with Queues.made(broker) as queues:
        await queues.delete()  # twice is harmless
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.timeout(10):
                await queues.publish(load_named("A", 10))

        assert caught.group_contains(Refused)
