"""Random loads with faults that heal: in the end the worker is idle, and every delivery was settled exactly once.

A lost wake-up shows as a deadlock of the virtual clock or as a message that is never settled; a wrong decision as a
good event that is dead-lettered or an order that is left behind.
"""

import json
import random
from collections.abc import Callable

import pytest

from tests.pipeline.fakes import AWAY, BUSY, FORBIDDEN, LOST
from tests.pipeline.world import FIRST_STATUS, World
from tests.support.modelplatform import ModelPlatform, Refusal, rest_error
from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.model import Fields
from worker.core.report import Insecure, Reply

SEEDS = range(300)
BAD = FIRST_STATUS + 500
"""Events from here on are refused."""
LOAD_S = 20.0
WITNESS = 999
REFUSALS = (Refusal.HTTP_400, Refusal.NO_PATH, Refusal.PATH)
FLICKERS = (
    AWAY,
    BUSY,
    Reply(status=429),
    Reply(status=429, retry_after="7"),
    Reply(status=503, retry_after="90"),
    Reply(status=500),
    rest_error("gone", 404),
    rest_error("Internal server error", 400),
    Insecure(cause="bad certificate"),
)
OUTAGES = (*FLICKERS, FORBIDDEN, rest_error("odd", 400))
"""Plain refusals that come and go would, by the control rule, be taken for those of a message."""


def is_bad(_order_id: int, fields: Fields) -> bool:
    status = fields["status"]
    return isinstance(status, int) and status >= BAD


class Chaos:
    """One seed: what is published and what goes wrong, and when."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.how = self.dice.choice(REFUSALS)
        self.orders = self.dice.randint(1, 25)
        self.good: list[tuple[int, int]] = []

    def world(self) -> World:
        dice = self.dice
        takes_empty = dice.random() < 0.8
        model = ModelPlatform(is_bad, self.how, takes_empty=takes_empty)
        return World(
            model=model,
            max_batch=dice.choice([2, 5, 100]),
            linger_s=dice.choice([0.0, 0.02, 0.5]),
            max_in_flight=dice.choice([1, 2, 4]),
            hold_limit_s=dice.choice([5.0, 60.0]),
            max_unsettled_s=dice.choice([80.0, 900.0]),
            # Without a control call a window full of bad orders would have no witness.
            prefetch=dice.choice([3 if takes_empty else 200, 20 if takes_empty else 400, 2000]),
        )

    async def play(self, world: World) -> None:
        """A load of some seconds with a few faults in it; then everything is well again."""
        dice = self.dice
        world.queue.reorder = lambda messages: dice.sample(messages, len(messages))
        faults = [dice.choice(self.FAULTS) for _ in range(dice.randint(0, 5))]
        steps: list[Callable[[Chaos, World], None]] = [*faults, *[Chaos.publish] * dice.randint(1, 120)]
        dice.shuffle(steps)
        for step in steps:
            world.platform.latency_s = dice.choice([0.001, 0.05, 1.0])
            step(self, world)
            await world.advance(dice.expovariate(len(steps) / LOAD_S))
        self.heal(world)

    async def come_to_rest(self, world: World) -> None:
        """A platform that takes no empty lists needs other orders as witnesses against a bad one: so there is a little
        traffic."""
        for number in range(1, 151):
            world.publish(WITNESS, number)
            await world.advance(20.0)
            if world.queue.quiet and world.coalescer.idle:
                return
        pytest.fail("never at rest")

    def publish(self, world: World) -> None:
        order_id = self.dice.randint(1, self.orders)
        kind = self.dice.random()
        if kind < 0.05:
            world.publish_raw(b"poison")
        elif kind < 0.1:
            del world.events[world.publish(order_id, BAD - FIRST_STATUS + world.queue.published)]
        else:
            self.good.append((order_id, self.dice.randint(1, 400)))
            world.publish(*self.good[-1])

    def outage(self, world: World) -> None:
        world.platform.down = self.dice.choice(OUTAGES)

    def answers_get_lost(self, world: World) -> None:
        world.platform.script.extend([LOST] * self.dice.randint(1, 8))

    def flicker(self, world: World) -> None:
        world.platform.script.extend(self.dice.choice([None, *FLICKERS]) for _ in range(self.dice.randint(1, 8)))

    def lose_channel(self, world: World) -> None:
        world.intake.lose()

    def hang(self, world: World) -> None:
        world.platform.hangs = True

    def refuse_copies(self, world: World) -> None:
        world.settler.refuses = lambda _: self.dice.random() < 0.7

    def refuse_credentials(self, world: World) -> None:
        world.tokens.failure = self.dice.choice([TokenRefused("no"), TokenUnavailable("away")])

    def revoke_token(self, world: World) -> None:
        revoked = f"t{world.tokens.number}"
        world.platform.good_tokens = lambda token: token != revoked

    def heal(self, world: World) -> None:
        world.platform.down = None
        world.platform.hangs = False
        world.platform.latency_s = 0.05
        world.settler.refuses = lambda _: False
        world.tokens.failure = None

    FAULTS = (
        outage,
        outage,
        answers_get_lost,
        flicker,
        lose_channel,
        hang,
        refuse_copies,
        refuse_credentials,
        revoke_token,
        heal,
        heal,
    )


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_faults_that_heal_everything_is_settled_exactly_once(seed: int) -> None:
    """And the worker is idle, every good event is applied or superseded, and only bad ones are dead."""
    random.seed(seed)
    chaos = Chaos(seed)
    async with chaos.world() as world:
        # An update whose outcome stayed unknown waits in a tier; meanwhile an older one may be applied over it.
        world.may_step_back = True
        await world.start()
        await chaos.play(world)
        await chaos.come_to_rest(world)
        dead = [json.loads(copy.body) for copy in world.queue.dead if copy.body != b"poison"]

        assert set(world.queue.acked) == set(range(1, world.queue.published + 1))
        assert [event for event in dead if event["status"] < BAD] == []
        for order_id, number in chaos.good:
            assert world.status_of(order_id) >= number  # type: ignore[operator]
        assert world.coalescer.idle
        assert len(world.pipeline._unsettled) == 0
        assert world.breaker.running
