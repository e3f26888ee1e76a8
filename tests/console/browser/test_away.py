"""A broker that is away: a page that says so and what still works, not a stack trace."""

import re

import pytest
from playwright.async_api import Browser

from tests.console.browser.person import person_at
from tests.console.process import at_work
from tests.support.graveyard import Graveyard
from tests.support.proxy import TcpProxy
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

AWAY = re.compile(r"broker|connect", re.IGNORECASE)


async def test_a_broker_that_is_away_is_said_and_nothing_else_is_lost(
    chrome: Browser, broker: PrivateBroker, yard: Graveyard
) -> None:
    """Lists and plans come from the journal; what needs the queue says why not, and works once the broker is back."""
    async with TcpProxy(broker.port) as proxy:
        yard.tool.use({"AMQP_URL": proxy.url()})
        async with at_work(yard.tool) as (_, base), person_at(chrome, base) as person:
            await proxy.refuse()
            await proxy.cut()
            await person.open("/dead/letters?order=7")
            assert len(await person.rows("letters")) == 1
            await person.follow("Open the letter of order 7")
            place = person.path
            await person.press("Look at body and headers")
            await person.until_settled()
            said = await person.words()
            assert AWAY.search(said), said
            assert "Traceback" not in said
            assert "fault of this program" not in said
            await person.follow("Now")
            assert "Traceback" not in await person.words("body")
            await proxy.heal()
            await person.open(place)
            await person.press("Look at body and headers")
            await person.until('"id": 7')
