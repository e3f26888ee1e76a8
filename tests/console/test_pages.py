"""Every page of the console, read as a browser without script reads it."""

import re
from dataclasses import replace
from urllib.parse import quote

import pytest

from tests.builders import NOW_US
from tests.console.stage import QUEUE, Console, console, some_letters
from tests.support.replaystage import dead_letter
from worker.core.audit import Action, Deed, Outcome
from worker.core.history import HistoryRow, ItemState, Replay, ReplayItem
from worker.core.journal import BatchRecord
from worker.core.model import Reason, Version
from worker.core.times import format_time

EVERY_PAGE = ("/now", "/dead", "/dead/letters", "/replays", "/replays/new", "/orders", "/orders/1", "/audit")


async def with_letters(stage: Console) -> None:
    await stage.index(*some_letters())


@pytest.mark.parametrize("path", EVERY_PAGE)
async def test_every_page_is_there_and_safe_to_show(path: str) -> None:
    """One heading, one main part, and the headers that keep foreign things out."""
    async with console() as stage, stage.browser() as browser:
        await with_letters(stage)
        page = await browser.get(path)

    assert page.status == 200
    assert len(re.findall(r"<h1\b", page.text)) == 1
    assert len(re.findall(r"<main\b", page.text)) == 1
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Server"] == "order-worker"
    assert not re.search(r"<script(?![^>]+src=)|\son\w+=|\sstyle=|<style", page.text)


@pytest.mark.parametrize("path", EVERY_PAGE)
async def test_without_anything_every_page_says_what_to_do(path: str) -> None:
    """No letters, no replays, no deeds: no page is empty, none fails."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get(path)

    assert page.status == (404 if path == "/orders/1" else 200)
    assert len(page.words) > 100


@pytest.mark.parametrize("path", [path for path in EVERY_PAGE if path not in ("/orders", "/now")])
async def test_a_journal_that_is_away_is_a_page_that_says_so(path: str) -> None:
    """503, with what to do; no traceback."""
    async with console() as stage, stage.browser() as browser:
        stage.shelf.away = "no answer within 5 s"
        page = await browser.get(path)

    assert page.status == 503
    assert "The journal does not answer" in page.words
    assert "no answer within 5 s" in page.words
    assert "Traceback" not in page.text


async def test_now_tells_of_a_journal_and_workers_that_are_away() -> None:
    """The page is there all the same."""
    async with console() as stage, stage.browser() as browser:
        stage.shelf.away = "gone"
        page = await browser.get("/now")

    assert page.status == 200
    assert "No worker answers" in page.words
    assert "The journal does not answer: gone" in page.words
    assert "1\N{NARROW NO-BREAK SPACE}234" in page.text


@pytest.mark.parametrize(
    ("by", "told"),
    [("reason", "rejected 3"), ("detail", "why 3"), ("order", "2 2"), ("day", "2026-11-21 4"), ("hour", "10:00 4")],
)
async def test_letters_are_grouped(by: str, told: str) -> None:
    """With counts; a link leads to the letters of the group."""
    async with console() as stage, stage.browser() as browser:
        await with_letters(stage)
        page = await browser.get(f"/dead?by={by}")
        link = re.search(r'href="(/dead/letters\?[^"]+)">' + told.split()[0][:4], page.text)

        assert told in page.words
        assert link or by in ("hour", "day")
        if link:
            shown = await browser.get(link[1].replace("&amp;", "&"))
            assert f"{told.split()[-1]} letters match" in shown.words


async def test_a_filter_lives_in_the_address_with_times_instead_of_spans() -> None:
    """So that a link that is sent means the same later."""
    async with console() as stage, stage.browser() as browser:
        await with_letters(stage)
        page = await browser.get("/dead/letters?since=2h&reason=rejected")

    assert re.fullmatch(r"/dead/letters\?reason=rejected&since=\d{4}-\d\d-\d\dT[\d:.%A]+Z", page.path)


@pytest.mark.parametrize("query", ["order=x", "order=0", "since=yesterday", "order=" + "9" * 30])
async def test_a_filter_that_cannot_be_is_said(query: str) -> None:
    """400, and what is wrong."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get(f"/dead/letters?{query}")

    assert page.status == 400
    assert "That cannot be done" in page.words


async def test_the_table_comes_in_pages_and_says_what_a_replay_would_do() -> None:
    """Fifty at a time; superseded and terminal are told."""
    letters = [dead_letter(order_id) for order_id in range(1, 62)]
    async with console() as stage, stage.browser() as browser:
        await stage.index(*letters)
        await stage.apply(1, at_s=9, status=8)
        first = await browser.get("/dead/letters")
        link = re.search(r'id="next" href="([^"]+)"', first.text)
        assert link is not None
        second = await browser.get(link[1].replace("&amp;", "&"))

    assert "superseded status is 8 since 2026-11-21 10:00:09" in first.words
    assert (first.text.count("/dead/letter?copy="), second.text.count("/dead/letter?copy=")) == (50, 11)
    assert 'id="next"' not in second.text


async def test_one_letter_has_everything_the_index_knows() -> None:
    """Why it failed, what the platform has, what a replay would do."""
    async with console() as stage, stage.browser() as browser:
        [row] = await stage.index(dead_letter(7, reason=Reason.REJECTED))
        await stage.apply(7, at_s=-5, status=1)
        page = await browser.get(f"/dead/letter?copy={quote(row.copy_id)}")
        missing = await browser.get("/dead/letter?copy=nothing")

    assert page.status == 200
    for words in ("Dead letter of order 7", "rejected", "apply", "m-7-0", "Look at body and headers", "status 1 since"):
        assert words in page.words, words
    assert missing.status == 404


async def test_an_order_is_a_story() -> None:
    """From event to the platform's answer, in sentences."""
    version = Version(NOW_US, 3, NOW_US + 5, "m1")
    about = {"order_id": 9, "message_id": "m1", "version": version, "fields": {"status": 8}}
    rows = [
        HistoryRow(at_us=NOW_US + 10, disposition="retry", reason="busy", batch_id="b1", **about),  # type: ignore[arg-type]
        HistoryRow(
            at_us=NOW_US + 20,
            disposition="ack",
            reason="applied",
            status=8,
            status_name="Shipped",
            **about,  # type: ignore[arg-type]
        ),
        HistoryRow(
            at_us=NOW_US + 30, disposition="ack", reason="superseded", order_id=9, message_id="m0", detail="late"
        ),
    ]
    async with console() as stage, stage.browser() as browser:
        await stage.journal.record(BatchRecord(wall_us=NOW_US, history=rows))
        await stage.apply(9, at_s=0)
        found = await browser.get("/orders?id=9")
        page = await browser.get("/orders/9")

    assert found.path == "/orders/9"
    for words in (
        "Tried again later: the platform was busy with this order",
        "The platform has it: it answered status 8 (Shipped)",
        "Not sent: a later value is applied already",
        "What the platform has status 8",
        "sequence 3",
    ):
        assert words in page.words, words


@pytest.mark.parametrize("wanted", ["abc", "-1", "1/../2", "9" * 25])
async def test_an_order_id_that_is_none_is_said(wanted: str) -> None:
    """400 with the reason."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get("/orders", params={"id": wanted})

    assert page.status == 400
    assert "is no order id" in page.words


async def test_the_audit_has_who_did_what_and_leads_there() -> None:
    """The latest first, page by page."""
    deed = Deed(at_us=NOW_US, by="kim", action=Action.REPLAY, outcome=Outcome.DONE, target="r-1", count=12345)
    async with console() as stage, stage.browser() as browser:
        for number in range(150):
            await stage.journal.note(replace(deed, at_us=NOW_US + number))
        first = await browser.get("/audit")
        link = re.search(r'href="(/audit\?before=\d+)"', first.text)
        assert link is not None
        second = await browser.get(link[1])

    assert first.text.count('href="/replays/r-1"') == 100
    assert second.text.count('href="/replays/r-1"') == 50
    assert "12\N{NARROW NO-BREAK SPACE}345" in first.text


@pytest.mark.parametrize(
    ("action", "target", "link"),
    [
        (Action.LOOK, "582ebf02-39b5-4f65", "/dead/letter?copy=582ebf02-39b5-4f65"),
        (Action.DISCARD, "?reason=rejected", "/dead/letters?reason=rejected"),
        (Action.PLAN, "r-1", "/replays/r-1"),
        (Action.DISCARD, "?message=one&message=t…", ""),
        (Action.LOG_IN, "from 127.0.0.1", ""),
    ],
)
async def test_a_deed_leads_to_what_it_was_done_to(action: Action, target: str, link: str) -> None:
    """Unless its filter is too long to be kept whole: what was cut would mean other letters."""
    deed = Deed(at_us=NOW_US, by="kim", action=action, outcome=Outcome.DONE, target=target)
    async with console() as stage, stage.browser() as browser:
        await stage.journal.note(deed)
        page = await browser.get("/audit")

    row = page.text.partition("<tbody>")[2]
    assert re.findall(r'href="([^"]+)"', row.partition("</tbody>")[0]) == [link] * bool(link)


async def test_a_replay_that_nobody_runs_any_more_is_interrupted_and_can_be_resumed() -> None:
    """What a killed console leaves behind."""
    replay = Replay(
        replay_id="r-1", queue=QUEUE, author="kim", options={"queue": QUEUE, "canary": 5}, state="running",
        created_us=NOW_US, changed_us=NOW_US,
    )  # fmt: skip
    async with console() as stage, stage.browser() as browser:
        rows = await stage.index(*some_letters())
        await stage.journal.begin(replay)
        states = (ItemState.MOVED, ItemState.PLANNED, ItemState.SUPERSEDED, ItemState.PLANNED)
        items = [
            ReplayItem(place=n, copy_id=row.copy_id, state=state)
            for n, (row, state) in enumerate(zip(rows, states, strict=True))
        ]
        await stage.journal.plan("r-1", items)
        page = await browser.get("/replays/r-1")
        listed = await browser.get("/replays")
        missing = await browser.get("/replays/r-2")

    assert "interrupted" in listed.words
    assert "2 of 4" in page.words
    assert "What would come of the rest" in page.words
    assert re.search(r'<button id="start">Resume', page.text)
    assert missing.status == 404


async def test_a_replay_with_changes_that_cannot_be_any_more_is_still_shown() -> None:
    """A field that EXTRA_FIELDS had when it was planned: judging says what is missing, the page is there."""
    replay = Replay(
        replay_id="r-1", queue=QUEUE, author="kim", options={"queue": QUEUE, "edits": ["shipping_tracking=1"]},
        state="stopped", created_us=NOW_US, changed_us=NOW_US,
    )  # fmt: skip
    async with console() as stage, stage.browser() as browser:
        [row] = await stage.index(dead_letter(1))
        await stage.journal.begin(replay)
        await stage.journal.plan("r-1", [ReplayItem(place=0, copy_id=row.copy_id)])
        page = await browser.get("/replays/r-1")
        judged = await browser.settled(await browser.post("/replays/r-1/judge"))

    assert page.status == 200
    assert "0 of 1" in page.words
    assert "shipping_tracking" in judged.words


async def test_times_are_relative_with_the_absolute_one_at_hand() -> None:
    """In a ``time`` element that programs read as well."""
    async with console() as stage, stage.browser() as browser:
        [row] = await stage.index(dead_letter(7))
        page = await browser.get("/dead/letters")

    assert f'<time datetime="{format_time(row.failed_us)}" title="2026-11-21 10:00:01 UTC"' in page.text
