"""When a consumer changes its width, where the order of events is what matters. No broker."""

import asyncio
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.builders import make_delivery
from worker.adapters.amqp.generation import Company, Generation, Phase
from worker.adapters.amqp.width import Steps, Width
from worker.core.errors import ConnectionLost
from worker.core.model import Delivery

pytestmark = pytest.mark.usefixtures("no_leaks")


class Bench:
    """A width on a generation without a channel; ``done`` says what it did."""

    def __init__(self, *, fails: bool = False, company: Company | None = None) -> None:
        closing: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        channel = cast("Any", SimpleNamespace(closing=closing))
        self.generation = Generation(1, channel, opened_us=0, company=company)
        self.fails = fails
        self.done: list[tuple[str, object]] = []
        steps = Steps(
            turn=asyncio.Lock(),
            listen=self._listen,
            deafen=self._deafen,
            consume=self._consume,
            hand_over=lambda _, deliveries: self.done.extend(("hand over", each.tag) for each in deliveries),
            end=self._end,
        )
        self.width = Width(steps, prefetch=10, alone_from=5)
        if company is not None:
            company.join(self.generation, partial(self.width.hush, self.generation))

    def deliver(self, tag: int, returns: int = 0) -> Delivery:
        self.generation.ledger.delivered(tag)
        delivery = make_delivery(tag=tag, redelivered=returns > 0)
        delivery.returns = delivery.unexplained = returns
        self.width.sort(self.generation, delivery)
        return delivery

    async def settle(self, tags: Sequence[int]) -> None:
        self.generation.ledger.plan([[tag] for tag in tags])
        await self.generation.acknowledge([], timeout_s=1.0)
        await self.rest()

    async def rest(self) -> None:
        """Let everything run that can."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _listen(self, _: Generation, prefetch: int) -> None:
        if self.fails:
            raise ConnectionLost("gone")
        self.done.append(("listen", prefetch))

    async def _deafen(self, _: Generation, consumer_tag: str) -> None:
        self.done.append(("deafen", consumer_tag))

    async def _consume(self, _: Generation) -> None:
        self.done.append(("consume", 1))

    def _end(self, generation: Generation, cause: str) -> None:
        generation.phase = Phase.GONE
        self.done.append(("end", cause))


async def test_a_delivery_before_the_consume_ok_widens_after_it() -> None:
    """It may be handled before the answer to our own request is."""
    bench = Bench()
    bench.deliver(1)
    await bench.rest()
    assert bench.done == [("hand over", 1)]

    bench.generation.phase = Phase.CONSUMING
    await bench.rest()
    assert bench.done[1:] == [("listen", 10), ("deafen", "order-worker-1-0")]


async def test_a_generation_that_never_opened_is_not_widened() -> None:
    """The task ends with it."""
    bench = Bench()
    bench.deliver(1)
    bench.generation.phase = Phase.GONE
    await bench.rest()

    assert bench.done == [("hand over", 1)]
    assert not bench.generation.shifts


async def test_a_consumer_that_cannot_be_widened_is_the_end_of_its_channel() -> None:
    """Everything comes again on the next."""
    bench = Bench(fails=True)
    bench.generation.phase = Phase.CONSUMING
    bench.deliver(1)
    await bench.rest()

    assert bench.done == [("hand over", 1), ("end", "gone")]


async def test_suspects_wait_for_all_else_and_then_for_each_other() -> None:
    """And intake begins again, narrow, when the last of them is settled."""
    bench = Bench()
    bench.generation.phase = Phase.CONSUMING
    bench.deliver(1)
    await bench.rest()
    bench.deliver(2, returns=5)
    bench.deliver(3)
    bench.deliver(4, returns=6)
    await bench.rest()
    bench.done.clear()

    await bench.settle([1])
    assert bench.done == []
    await bench.settle([3])
    assert bench.done == [("hand over", 2)]
    await bench.settle([2])
    assert bench.done == [("hand over", 2), ("hand over", 4)]
    await bench.settle([4])
    assert bench.done[2:] == [("consume", 1)]


async def test_a_lost_channel_ends_the_waiting() -> None:
    """What was set aside comes again with the rest."""
    bench = Bench()
    bench.generation.phase = Phase.CONSUMING
    bench.deliver(1)
    bench.deliver(2, returns=5)
    await bench.rest()
    bench.generation.phase = Phase.GONE
    await bench.rest()

    assert ("hand over", 2) not in bench.done
    assert not bench.generation.shifts


async def side_by_side(count: int) -> list[Bench]:
    """The channels of one worker, all consuming."""
    company = Company(shared=True)
    benches = [Bench(company=company) for _ in range(count)]
    for bench in benches:
        bench.generation.phase = Phase.CONSUMING
    return benches


async def test_a_suspect_waits_for_what_is_unsettled_on_the_channels_at_its_side() -> None:
    """They are without a consumer meanwhile; all begin narrow when it is settled, and not before."""
    one, other, third = await side_by_side(3)
    other.deliver(1)
    third.deliver(1)
    await other.rest()
    one.deliver(1, returns=5)
    await one.rest()
    for bench in (one, other, third):
        bench.done.clear()

    await other.settle([1])
    assert one.done == []
    await third.settle([1])
    assert one.done == [("hand over", 1)]
    assert other.done == third.done == []
    await one.settle([1])
    assert one.done[1:] == other.done == third.done == [("consume", 1)]


async def test_suspects_of_several_channels_are_handed_over_one_after_the_other() -> None:
    """Two at a time would blame each other."""
    one, other = await side_by_side(2)
    one.deliver(1, returns=5)
    other.deliver(1, returns=6)
    await one.rest()
    handed = [bench for bench in (one, other) if ("hand over", 1) in bench.done]
    assert len(handed) == 1

    await handed[0].settle([1])
    assert all(("hand over", 1) in bench.done for bench in (one, other))
    assert all(("consume", 1) not in bench.done for bench in (one, other))
    await (other if handed[0] is one else one).settle([1])
    assert all(bench.done[-1] == ("consume", 1) for bench in (one, other))


async def test_a_channel_that_is_lost_frees_those_at_its_side() -> None:
    """Its suspect comes again, and they go on."""
    one, other = await side_by_side(2)
    other.deliver(1)
    one.deliver(1, returns=5)
    await one.rest()
    one.generation.phase = Phase.GONE
    await other.settle([1])

    assert other.done[-1] == ("consume", 1)
    assert ("hand over", 1) not in one.done
    assert not one.generation.shifts
    assert not other.generation.shifts


async def test_a_channel_that_is_opened_meanwhile_consumes_later() -> None:
    """Otherwise what it is handed would be lost with the suspect."""
    one, other = await side_by_side(2)
    other.deliver(1)
    one.deliver(1, returns=5)
    await one.rest()
    late = Bench(company=one.generation.company)
    late.generation.phase = Phase.CONSUMING
    await late.rest()
    assert late.generation.alone
    late.done.clear()

    await other.settle([1])
    await one.settle([1])
    assert late.done == [("consume", 1)]
