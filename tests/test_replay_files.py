"""Replays by way of a file, on fakes: what goes, what comes back, of which size; breaking anywhere loses nothing."""

import base64
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakequeue import Broke, Effects
from tests.support.replaynight import BAD_NIGHT, bad_night, whole_story
from tests.support.replaystage import ID, Stage, dead_letter, invalid_letter
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.errors import UsageError
from worker.core.forecast import Kind
from worker.core.history import ItemState
from worker.core.letterfile import letter_line
from worker.core.model import Delivery, Properties
from worker.exportfile import ExportFile
from worker.replay import filing
from worker.replay.care import Ended
from worker.replay.filing import GREATEST_BODY, LONGEST, LetterFile, export_planned, letter_of

Edit = Callable[[dict[str, Any]], None]


def write(path: Path, letters: Sequence[DeadLetter], edit: Edit = lambda line: None) -> None:
    """A file of these letters, each edited."""
    lines = [json.loads(letter_line(letter)) for letter in letters]
    for line in lines:
        edit(line)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")


async def test_planned_letters_are_written_as_they_are(tmp_path: Path) -> None:
    """The plan, not the queue; and they stay."""
    stage = await bad_night()
    await stage.plan(order_ids=(1, 2))
    with ExportFile(tmp_path / "letters.ndjson") as sink:
        async with stage.queue.taking("kim") as taking:
            assert await export_planned(taking, stage.journal, ID, sink) == 3

    [portion] = LetterFile(tmp_path / "letters.ndjson").portions()
    assert [filed.copy_id for filed in portion] == ["copy-1-0", "copy-2-0", "copy-1-1"]
    assert [letter_of(filed).delivery.body for filed in portion] == [
        BAD_NIGHT[number].delivery.body for number in (0, 1, 5)
    ]
    assert len(stage.queue.letters) == 6


async def test_the_letters_of_a_file_go_as_the_file_has_them(tmp_path: Path) -> None:
    """Edited or not; also one that is not in the queue any more, which is said."""
    stage = await bad_night()

    def edit(line: dict[str, Any]) -> None:
        if line["copy_id"] == "copy-2-0":
            line["event"]["status"] = 8
        if line["copy_id"] == "copy-4-invalid":
            line["event"] = {"id": 4, "status": 9}

    path = tmp_path / "letters.ndjson"
    write(path, BAD_NIGHT[:4], edit)
    del stage.queue.letters[1]
    await stage.plan_file(path)
    result = await stage.execute(path=path)
    await stage.work()

    assert result.ended is Ended.DONE
    assert (await stage.status(1), await stage.status(2), await stage.status(4)) == (4, 8, 9)
    items = await stage.journal.items(ID)
    assert [item.state for item in items] == [
        ItemState.MOVED, ItemState.MOVED, ItemState.SUPERSEDED, ItemState.MOVED,
    ]  # fmt: skip
    assert items[0].detail == items[3].detail == "its letter was taken out of the queue"
    assert items[1].detail == "its letter was not in the queue any more"
    assert stage.left() == ["copy-5-0", "copy-1-1"]


async def test_an_edited_time_of_a_file_counts(tmp_path: Path) -> None:
    """Our header of the old one goes; an unedited event keeps it."""
    stage = Stage([dead_letter(1, at_s=1)])
    await stage.apply(1, 5)
    path = tmp_path / "letters.ndjson"

    write(path, stage.queue.letters, lambda line: line["event"].update(occurred_at="2026-11-21T10:00:09Z"))
    await stage.plan_file(path)
    await stage.execute(path=path)
    await stage.work()

    assert await stage.status(1) == 4


async def test_one_edited_line_that_is_no_event_and_nothing_moves(tmp_path: Path) -> None:
    """As with --set."""
    stage = await bad_night()
    path = tmp_path / "letters.ndjson"
    write(path, BAD_NIGHT[:2], lambda line: line["event"].update(status="Dispatched"))
    await stage.plan_file(path)
    result = await stage.execute(path=path)

    assert result.ended is Ended.REFUSED
    assert "status: expected an integer" in result.problems[0]
    assert stage.outlet.sent == []


async def test_killed_at_any_effect_a_file_is_brought_to_its_end(tmp_path: Path) -> None:
    """Nothing leaves the queue before it is at work."""
    path = tmp_path / "letters.ndjson"
    write(path, BAD_NIGHT)
    for point in itertools.count():
        stage = await bad_night()
        await stage.plan_file(path)
        stage.break_at(Effects(point))
        try:
            await stage.execute(path=path)
        except Broke:
            broke = True
        else:
            broke = False
        stage.break_at(Effects())
        await stage.work()
        await stage.execute(path=path)
        await stage.work()
        await whole_story(stage)
        if not broke:
            break

    assert point > 30


HUGE = 5 * 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        random.Random(7).randbytes(HUGE),
        b"\0" * HUGE,
        b'{"id": 1, "status": 4, "note": "' + b"\xc3\xa4" * (HUGE // 2) + b'"}',
    ],
    ids=["bytes", "a text that JSON makes six times as long", "an object"],
)
async def test_a_very_large_letter_is_brought_back_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    """The file takes back whatever an export wrote; that the worker takes no such event is a matter of the plan."""
    letters = [dead_letter(1), invalid_letter(2, body), dead_letter(3)]
    stage = Stage(letters)
    await stage.index()
    await stage.plan(replay_id="r-export")
    path = tmp_path / "letters.ndjson"
    with ExportFile(path) as sink:
        async with stage.queue.taking("kim") as taking:
            assert await export_planned(taking, stage.journal, "r-export", sink) == 3
    plan = await stage.plan_file(path)
    back = [letter_of(filed) for portion in LetterFile(path).portions() for filed in portion]

    assert [letter.delivery.body for letter in back] == [letter.delivery.body for letter in letters]
    assert plan.tallies.by_kind[Kind.RETURNS] == 1
    assert (await stage.execute(path=path)).ended is Ended.DONE
    assert stage.left() == ["copy-2-invalid"]


def test_long_lines_are_few_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portion is bounded by its bytes as well; a line beyond the bound is one by itself."""
    path = tmp_path / "letters.ndjson"
    write(path, [dead_letter(1), invalid_letter(2, b"x" * 5000), dead_letter(3), dead_letter(4)])
    monkeypatch.setattr(filing, "PORTION_BYTES", 4000)

    assert [len(portion) for portion in LetterFile(path).portions()] == [1, 1, 2]
    assert [len(portion) for portion in LetterFile(path).portions(most=1)] == [1, 1, 1, 1]


def test_the_greatest_message_of_a_broker_fits_into_a_line(tmp_path: Path) -> None:
    """As base64, and with headers that JSON makes many times as long."""
    headers = {"x": ["\0" * 60_000, [{} for _ in range(12_000)]], "ow-detail": "\0" * 120_000}
    letter = read_dead_letter(Delivery(generation=0, tag=1, body=b"", properties=Properties(headers=headers)))

    assert len(letter_line(letter)) + len(base64.b64encode(bytes(GREATEST_BODY))) < LONGEST


def test_a_line_longer_than_any_letter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end."""
    path = tmp_path / "letters.ndjson"
    path.write_text("\n" + "x" * 10_000)
    monkeypatch.setattr(filing, "LONGEST", 5000)

    with pytest.raises(UsageError, match="line 2: longer than 5000 bytes"):
        list(LetterFile(path).portions())


@pytest.mark.parametrize("text", ["{", "[]", '{"copy_id": "x"}'])
def test_a_line_that_is_no_letter_is_named(tmp_path: Path, text: str) -> None:
    """With its number."""
    path = tmp_path / "letters.ndjson"
    path.write_text(f"\n{text}\n")

    with pytest.raises(UsageError, match="line 2: "):
        list(LetterFile(path).portions())
