"""What the console does with a real dead-letter queue: look, edit, replay, stop, resume, export, discard."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from tests.builders import make_delivery
from tests.console.stage import Browser, Console, Page, console
from tests.support.broker import Outside
from tests.support.replaystage import dead_letter, invalid_letter
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.audit import Action, Outcome
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.model import Reason

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]


class Scene:
    """A console at a queue of a test's own, and somebody in front of it."""

    def __init__(self, stage: Console, browser: Browser, outside: Outside, names: Topology, folder: Path) -> None:
        self.stage = stage
        self.browser = browser
        self.outside = outside
        self.names = names
        self.folder = folder

    async def bury(self, *letters: DeadLetter, index: bool = True) -> None:
        """Put letters into the queue."""
        before = await self.outside.ready(self.names.dead_queue)
        for letter in letters:
            properties = replace(letter.delivery.properties, content_type="application/json")
            await self.outside.publish("", self.names.dead_queue, letter.delivery.body, properties=properties)
        await self.outside.until_ready(self.names.dead_queue, before + len(letters))
        if index:
            await self.stage.index(*letters)

    async def look(self, copy_id: str) -> Page:
        """The letter's page, with its body."""
        page = await self.browser.post("/dead/look", {"copy": copy_id})
        return await self.browser.settled(page)

    async def planned(self, **form: str) -> Page:
        """The page of a new plan."""
        page = await self.browser.settled(await self.browser.post("/replays", {"canary": "0", "rate": "", **form}))
        assert page.path.startswith("/replays/r-"), page.words
        return page

    async def deeds(self) -> list[tuple[Action, Outcome, int | None]]:
        """What was noted, the first first."""
        deeds = await self.stage.journal.deeds()
        return [(deed.action, deed.outcome, deed.count) for deed in reversed(deeds)]


@asynccontextmanager
async def staged(broker: PrivateBroker, outside: Outside, names: Topology, folder: Path) -> AsyncIterator[Scene]:
    given = {
        "amqp_url": (broker.url,), "exchange": names.exchanges[0].name, "queue": names.work_queue,
        "dead_letter_queue": names.dead_queue, "console_files": str(folder / "files"),
    }  # fmt: skip
    async with console(**given) as stage, stage.browser() as browser:  # type: ignore[arg-type]
        yield Scene(stage, browser, outside, names, folder / "files")


@pytest.fixture
async def scene(broker: PrivateBroker, outside: Outside, queues: Topology, tmp_path: Path) -> AsyncIterator[Scene]:
    """Nothing in the queue yet."""
    async with staged(broker, outside, queues, tmp_path) as found:
        yield found


async def test_a_look_shows_body_and_headers_and_leaves_the_letter_where_it_is(scene: Scene) -> None:
    """The look is noted; what was seen stays on the page for a while."""
    await scene.bury(dead_letter(1), dead_letter(2))
    page = await scene.look("copy-2-0")
    again = await scene.browser.get("/dead/letter?copy=copy-2-0")

    for words in ('"status": 4', "ow-reason", "rejected", "Edit and replay"):
        assert words in page.words, words
        assert words in again.words, words
    await scene.outside.until_ready(scene.names.dead_queue, 2)
    assert (Action.LOOK, Outcome.DONE, None) in await scene.deeds()


async def test_a_letter_that_is_gone_is_said(scene: Scene) -> None:
    """The index may be behind; the page says what finds out."""
    await scene.stage.index(dead_letter(1))
    page = await scene.look("copy-1-0")

    assert "it is not in the queue any more" in page.words


async def test_a_replay_is_planned_first_and_then_carried_out(scene: Scene) -> None:
    """The plan moves nothing; then copies are at work, what is superseded is dropped, the rest stays and says why."""
    await scene.bury(dead_letter(1), dead_letter(2), invalid_letter(3))
    await scene.stage.apply(2, at_s=5)
    plan = await scene.planned()

    assert "1 would apply 1 superseded 1 would come straight back" in plan.words
    assert await scene.outside.ready(scene.names.dead_queue) == 3
    await scene.browser.post(f"{plan.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
    await scene.outside.until_ready(scene.names.work_queue, 1)
    await scene.outside.until_ready(scene.names.dead_queue, 1)
    page = await scene.browser.until(plan.path, "done")

    assert "1 back at work 1 superseded, dropped 1 left in the queue" in page.words
    taken = await scene.outside.take(scene.names.work_queue)
    assert taken.header.properties.headers is not None
    assert taken.header.properties.headers["ow-replay-id"] == plan.path.rpartition("/")[2]
    assert await scene.deeds() == [
        (Action.PLAN, Outcome.DONE, 3), (Action.REPLAY, Outcome.BEGUN, None), (Action.REPLAY, Outcome.DONE, 3),
    ]  # fmt: skip


async def test_only_what_the_filter_matches_goes_and_all_of_it(scene: Scene) -> None:
    """More than a page shows."""
    await scene.bury(*(dead_letter(order_id) for order_id in range(1, 61)), dead_letter(99, reason=Reason.BUSY))
    plan = await scene.planned(reason="rejected")
    await scene.browser.post(f"{plan.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
    await scene.outside.until_ready(scene.names.work_queue, 60)
    await scene.outside.until_ready(scene.names.dead_queue, 1)


async def test_a_replay_stops_in_good_order_and_goes_on(scene: Scene) -> None:
    """Stopped while a canary waits for its outcome; meanwhile nobody else gets at the queue; then the rest follows."""
    await scene.bury(*(dead_letter(order_id) for order_id in range(1, 7)))
    plan = await scene.planned(canary="2")
    await scene.browser.post(f"{plan.path}/start", {"canary": "2"})
    await scene.outside.until_ready(scene.names.work_queue, 2)
    async with scene.stage.browser() as other:
        second = await other.post("/dead/sync")
    stopped = await scene.browser.post(f"{plan.path}/stop")
    page = await scene.browser.until(plan.path, "Resume")
    assert (second.status, stopped.status) == (409, 200)
    assert re.search("replay of .* is at the dead-letter queue; stop it, or wait", second.words)
    assert "2 of 6" in page.words
    await scene.browser.post(f"{plan.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
    await scene.outside.until_ready(scene.names.work_queue, 6)
    await scene.outside.until_ready(scene.names.dead_queue, 0)

    assert [deed[:2] for deed in await scene.deeds()][:4] == [
        (Action.PLAN, Outcome.DONE), (Action.REPLAY, Outcome.BEGUN),
        (Action.STOP, Outcome.DONE), (Action.REPLAY, Outcome.STOPPED),
    ]  # fmt: skip


async def test_messages_are_told_as_they_move(scene: Scene) -> None:
    """With the progress, and those of the part of the plan that the page shows."""
    await scene.bury(*(dead_letter(order_id) for order_id in range(1, 7)))
    plan = await scene.planned(canary="2")
    await scene.browser.post(f"{plan.path}/start", {"canary": "2"})
    await scene.outside.until_ready(scene.names.work_queue, 2)
    await scene.browser.until(plan.path, "2 of 6")
    parts = [await scene.browser.first_parts(f"{plan.path}/live?name=running&after={after}") for after in (0, 1, 6)]
    await scene.browser.post(f"{plan.path}/stop")

    assert all("2 of 6" in part["progress"] for part in parts)
    assert [re.findall("planned|moved", part["messages-rows"]) for part in parts] == [
        ["moved", "moved", *["planned"] * 4], ["moved", *["planned"] * 4], [],
    ]  # fmt: skip


async def test_a_page_that_shows_an_old_state_is_told_at_once(scene: Scene) -> None:
    """Between its making and its watching the replay may have ended."""
    await scene.bury(dead_letter(1))
    plan = await scene.planned()
    await scene.browser.post(f"{plan.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
    await scene.browser.until(plan.path, "done")

    await scene.browser.over(f"{plan.path}/live?name=running")


async def test_an_event_is_edited_checked_and_replayed(scene: Scene) -> None:
    """What is typed is checked by the rules of the worker; only an event is planned; the edited copy goes to work."""
    await scene.bury(invalid_letter(7, b'{"id": 7, "status": "eight"}'), dead_letter(8))
    await scene.look("copy-7-invalid")
    editing = await scene.browser.get("/dead/edit?copy=copy-7-invalid")
    assert "status: expected an integer, got a string" in editing.words

    async def check(body: str) -> dict[str, object]:
        form = {"copy": "copy-7-invalid", "body": body, "form_token": editing.token}
        headers = {"Origin": scene.browser.base, "X-Form-Token": editing.token, "Accept": "application/json"}
        url = f"{scene.browser.base}/dead/edit/check"
        async with scene.browser.session.post(url, data=form, headers=headers) as answer:
            found: dict[str, object] = await answer.json()
            return found

    assert (await check("{"))["ok"] is False
    assert str((await check("{"))["problem"]).startswith("not JSON")
    assert (await check("[1]"))["problem"] == "not a JSON object"
    assert await check('{"id": 7, "status": 8}') == {
        "ok": True, "problem": "", "would": "apply", "detail": "", "order": 7, "changes": ["status: 8"],
    }  # fmt: skip
    refused = await scene.browser.post("/dead/edit", {"copy": "copy-7-invalid", "body": '{"id": 7}'})
    page = await scene.browser.settled(
        await scene.browser.post("/dead/edit", {"copy": "copy-7-invalid", "body": '{"id": 7, "status": 8}'})
    )
    await scene.browser.post(f"{page.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
    await scene.outside.until_ready(scene.names.work_queue, 1)
    await scene.outside.until_ready(scene.names.dead_queue, 1)
    taken = await scene.outside.take(scene.names.work_queue)

    assert refused.status == 400
    assert json.loads(taken.body) == {"id": 7, "status": 8}
    assert all(file.stat().st_mode & 0o077 == 0 for file in scene.folder.iterdir())


async def test_discarding_exports_first(scene: Scene) -> None:
    """What matches goes into a file, then out of the queue; the file can be had, by its name alone."""
    await scene.bury(dead_letter(1), dead_letter(2), invalid_letter(3))
    asked = await scene.browser.get("/dead/discard?reason=rejected")
    until = re.search(r'name="until" value="([^"]+)"', asked.text)
    assert until is not None
    assert "2 letters" in asked.words
    form = {"reason": "rejected", "until": until[1], "count": "2"}
    wrong = await scene.browser.post("/dead/discard", {**form, "count": "3"})
    page = await scene.browser.settled(await scene.browser.post("/dead/discard", form))
    await scene.outside.until_ready(scene.names.dead_queue, 1)
    link = re.search(r'href="(/files/discarded-[^"]+)"', page.text)
    assert link is not None
    file = await scene.browser.get(link[1])
    outside = await scene.browser.get("/files/" + quote("../secret.ndjson", safe=""))

    assert wrong.status == 400
    assert "2 of 3 dead letters discarded" in page.words
    assert [json.loads(line)["copy_id"] for line in file.text.splitlines()] == ["copy-1-0", "copy-2-0"]
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert outside.status == 404
    assert (Action.DISCARD, Outcome.DONE, 2) in await scene.deeds()


async def test_an_export_leaves_everything_where_it_is(scene: Scene) -> None:
    """All of it in a file."""
    await scene.bury(dead_letter(1), dead_letter(2))
    page = await scene.browser.settled(await scene.browser.post("/dead/export"))

    assert "2 of 2 dead letters exported" in page.words
    await scene.outside.until_ready(scene.names.dead_queue, 2)


async def test_the_index_is_brought_up_to_date(scene: Scene) -> None:
    """Letters that others put there are listed afterwards."""
    foreign = read_dead_letter(make_delivery({"id": 5, "status": 4}, message_id="theirs"))
    await scene.bury(foreign, index=False)
    page = await scene.browser.settled(await scene.browser.post("/dead/sync"))
    listed = await scene.browser.get("/dead/letters")

    assert "1 found, 1 added to the index, 0 gone from the queue" in page.words
    assert "1 letter matches" in listed.words


async def test_a_broker_that_is_away_is_a_page_that_says_so(tmp_path: Path) -> None:
    """What needs it fails with a sentence; what the index knows is there."""
    async with console(console_files=str(tmp_path)) as stage, stage.browser() as browser:
        await stage.index(dead_letter(1))
        listed = await browser.get("/dead/letters")
        plan = await browser.settled(await browser.post("/replays", {"canary": "0", "rate": ""}))

    assert "1 letter matches" in listed.words
    assert "1 would apply" in plan.words
