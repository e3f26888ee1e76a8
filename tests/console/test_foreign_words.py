"""Whatever producers, brokers and people write: pages show it as text, and headers hold none of it."""

import re
from dataclasses import replace

import pytest
from msgspec import structs

from tests.builders import NOW_US
from tests.console.stage import QUEUE, console
from worker.adapters.journal.memory import MemoryJournal
from worker.core.audit import Action, Deed, Outcome
from worker.core.history import HistoryRow, IndexedLetter, Pause, PauseKind, Replay, ReplayItem
from worker.core.journal import BatchRecord
from worker.core.model import Version

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e\x00\udcff"
MARKED = re.compile(r"<script>alert|<img|onerror=alert\(2\)>(?!.*</title>)|49\u202e")


async def poison(journal: MemoryJournal) -> None:
    """Evil words in every place that anybody can write to."""
    version = Version(NOW_US, 1, NOW_US, EVIL)
    letter = IndexedLetter(
        copy_id=EVIL, queue=QUEUE, reason="rejected", failed_us=NOW_US, order_id=7, message_id=EVIL, event_id=EVIL,
        detail=EVIL, fields={"shipping_carrier": EVIL, EVIL: 1}, version=version, exchange=EVIL, routing_key=EVIL,
        batch_id=EVIL, replay_id="r-1", worker=EVIL,
    )  # fmt: skip
    await journal.add([letter, replace(letter, copy_id="c-2", reason=EVIL)])
    row = HistoryRow(
        at_us=NOW_US, disposition="ack", reason="applied", order_id=7, message_id=EVIL, event_id=EVIL, detail=EVIL,
        fields={"shipping_carrier": EVIL}, version=version, batch_id=EVIL, worker=EVIL, status=1, status_name=EVIL,
    )  # fmt: skip
    rows = [row, structs.replace(row, disposition=EVIL, reason=EVIL, replay_id="r-1", replay_place=0)]
    await journal.record(BatchRecord(wall_us=NOW_US, history=rows))
    replay = Replay(
        replay_id="r-1", queue=QUEUE, author=EVIL, options={"queue": QUEUE, "reason": EVIL, "edits": [EVIL]},
        state="stopped", created_us=NOW_US, changed_us=NOW_US,
    )  # fmt: skip
    await journal.begin(replay)
    await journal.plan("r-1", [ReplayItem(place=0, copy_id=EVIL, detail=EVIL)])
    deed = Deed(at_us=NOW_US, by=EVIL, action=Action.PLAN, outcome=Outcome.DONE, target=EVIL, detail=EVIL)
    await journal.note(deed)
    pause = Pause(queue="order-updates.work", kind=PauseKind.MANUAL, detail=EVIL, by=EVIL, since_us=NOW_US)
    await journal.pause(pause)


@pytest.mark.parametrize(
    "path",
    [
        "/now",
        "/dead",
        "/dead?by=detail",
        "/dead/letters",
        "/dead/letter?copy=c-2",
        "/orders/7",
        "/replays",
        "/replays/r-1",
        "/audit",
    ],
)
async def test_markup_in_an_event_is_text(path: str) -> None:
    """Carrier names, ids, details, names of people: escaped wherever they stand."""
    async with console() as stage, stage.browser() as browser:
        await poison(stage.journal)
        page = await browser.get(path)

    assert page.status == 200, page.words
    assert not MARKED.search(page.text)
    assert "\x00" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text or path == "/dead"


async def test_what_is_typed_into_a_filter_is_text(
) -> None:  # fmt: skip
    """In the page that says that it cannot be, too."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get("/dead/letters", params={"reason": "<script>alert(1)</script>"})
        wrong = await browser.get("/dead/letters", params={"order": "<script>alert(1)</script>"})
        missing = await browser.get("/<script>alert(1)</script>")

    assert [each.status for each in (page, wrong, missing)] == [200, 400, 404]
    assert not any(MARKED.search(each.text) for each in (page, wrong, missing))


async def test_a_part_that_is_alive_is_escaped_as_well() -> None:
    """The script puts it into the page as it comes."""
    async with console() as stage, stage.browser() as browser:
        await poison(stage.journal)
        await browser.get("/now")
        async with browser.session.get(f"{browser.base}/now/live") as answer:
            _, _, line = [(await answer.content.readline()).decode() for _ in range(3)]

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert "\\u003cscript" in line or "&lt;script&gt;" in line
    assert "<script>" not in line


@pytest.mark.parametrize("name", ["reason", "detail", "message"])
async def test_no_header_can_be_injected(name: str) -> None:
    """A filter with spans is led to another address: line ends stay inside it."""
    async with console() as stage, stage.browser() as browser:
        url = f"{browser.base}/dead/letters?since=2h&{name}=a%0d%0aX-Evil:%201%0d%0a%0d%0abody"
        async with browser.session.get(url, allow_redirects=False) as answer:
            assert answer.status == 303
            assert "X-Evil" not in answer.headers
            assert "\n" not in answer.headers["Location"]


async def test_a_person_may_have_any_name_that_a_proxy_gives() -> None:
    """It is text on the page, and in the audit."""
    name = "<b>kim</b>"
    given = {"console_proxy_header": "X-User", "console_proxy_from": ("127.0.0.1",)}
    async with console(**given) as stage, stage.browser() as browser:  # type: ignore[arg-type]
        page = await browser.get("/now", headers={"X-User": name})

    assert "&lt;b&gt;kim&lt;/b&gt;" in page.text
    assert "<b>kim" not in page.text
