"""The parts of the console that need no server: words, filters, forms, people, sessions, works."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from tests.builders import NOW_US
from tests.support.replaystage import dead_letter, invalid_letter
from worker.console import words
from worker.console.access import is_ours
from worker.console.desk import LONGEST_TARGET, named
from worker.console.forms import tempo_of
from worker.console.looking import LONGEST_KEPT, MOST_KEPT, Looked
from worker.console.people import People, Role, new_token, parse_people
from worker.console.selection import Selection
from worker.console.sessions import Sessions, Throttle
from worker.console.works import Work, Works
from worker.core.audit import Action
from worker.core.errors import QueueHeld, UsageError
from worker.core.history import DAY_US, HOUR_US, GroupBy, Tally
from worker.core.replayoptions import Options

S = 1_000_000
THIN = "\N{NARROW NO-BREAK SPACE}"

# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (1234567, f"1{THIN}234{THIN}567"), (2.25, "2.2"), (3.0, "3"), (1234.5, f"1{THIN}234")],
)
def test_large_numbers_are_grouped(value: float | None, shown: str) -> None:
    """And a dash stands for what is not known."""
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("distance_us", "shown"),
    [(0, "now"), (5 * S, "5 s ago"), (119 * S, "119 s ago"), (120 * S, "2 min ago"), (2 * HOUR_US, "2 h ago"),
     (3 * DAY_US, "3 d ago"), (-70 * S, "in 70 s")],
)  # fmt: skip
def test_times_are_relative(distance_us: int, shown: str) -> None:
    """In the unit that says most."""
    assert words.ago(NOW_US - distance_us, NOW_US) == shown


@pytest.mark.parametrize(("s", "shown"), [(None, "–"), (0.44, "0.4 s"), (42, "42 s"), (600, "10 min"), (7200, "2 h")])
def test_durations_are_short(s: float | None, shown: str) -> None:
    """Two digits are enough."""
    assert words.seconds(s) == shown


def test_the_audit_names_what_a_deed_was_done_to() -> None:
    """Ids of messages are long words, which among foreign words would be masked; passwords still are."""
    query = "?message=582ebf02-39b5-4f65-9181-304930c73893"

    assert named(query) == query
    assert "hunter2" not in named("amqp://kim:hunter2@broker/\u202e")
    assert "\u202e" not in named("amqp://kim:hunter2@broker/\u202e")
    assert len(named("x" * 5000)) == LONGEST_TARGET


def test_what_nobody_sees_is_replaced() -> None:
    """Marks that turn the reading direction, line ends, surrogates."""
    assert words.on_one_line("a\u202eb\nc\udcff") == "a\ufffdb\ufffdc\ufffd"
    assert words.value("x" * 100) == "x" * 79 + "…"
    assert words.value(None) == "null"
    assert words.value(True) == "true"
    assert words.detail("since 2026-11-21T10:00:09.000001Z") == "since 2026-11-21 10:00:09"


# -- filters --------------------------------------------------------------------------------------------------------

SELECTIONS = st.builds(
    Selection,
    reason=st.sampled_from(["", "rejected"]),
    detail=st.text(max_size=20),
    orders=st.lists(st.integers(1, 2**63 - 1), max_size=3, unique=True).map(tuple),
    messages=st.lists(st.text("abc-/&=?#é", min_size=1, max_size=9), max_size=3, unique=True).map(tuple),
    since=st.sampled_from(["", "2026-11-21T10:00:00.000000Z"]),
)


@given(SELECTIONS)
def test_a_filter_survives_its_address_and_its_form(selection: Selection) -> None:
    """Whatever is in it."""
    assert Selection.of(MultiDict(selection.pairs)) == selection


def test_spans_become_times() -> None:
    """Counted back from now."""
    fixed = Selection(since="2h", until="30m").fixed(NOW_US)

    assert (fixed.since, fixed.until) == ("2026-11-21T08:00:00.000000Z", "2026-11-21T09:30:00.000000Z")
    assert fixed.is_fixed
    assert fixed.fixed(0) == fixed


def test_a_group_narrows_the_filter_and_never_widens_it() -> None:
    """An hour of a filter that begins in the middle of it."""
    selection = Selection(since="2026-11-21T10:20:00.000000Z", reason="rejected")
    tally = Tally(key=NOW_US // HOUR_US, count=1, oldest_us=0, newest_us=0, example="")
    narrowed = selection.narrowed(GroupBy.HOUR, tally)

    assert (narrowed.since, narrowed.until) == ("2026-11-21T10:20:00.000000Z", "2026-11-21T11:00:00.000000Z")
    assert narrowed.reason == "rejected"


@pytest.mark.parametrize("field", ["rate", "canary", "max_failures", "canary_wait"])
@pytest.mark.parametrize("text", ["x", "-1", "1e9", "٣", "99999999999"])
def test_a_tempo_that_cannot_be_is_refused(field: str, text: str) -> None:
    """By name."""
    with pytest.raises(UsageError):
        tempo_of(MultiDict({field: text}), Options(queue="q"))


def test_fields_that_are_not_there_change_nothing() -> None:
    """Empty ones mean none."""
    options = Options(queue="q", rate=5.0, canary=3, max_failures=2)

    assert tempo_of(MultiDict(), options) == options
    assert tempo_of(MultiDict({"rate": "", "canary": "", "max_failures": ""}), options) == Options(queue="q")
    assert tempo_of(MultiDict({"rate": "30/m", "canary": "7"}), options).rate == 0.5


# -- people and sessions --------------------------------------------------------------------------------------------


def test_only_hashes_are_in_the_file(tmp_path: Path) -> None:
    """Whoever reads it cannot log in with it."""
    token, line = new_token("kim", Role.OPERATOR)
    (tmp_path / "people").write_text(f"# c\n\n{line}\n")
    people = People(tmp_path / "people")
    kim = people.holder_of(token)

    assert kim is not None
    assert kim.name == "kim"
    assert token not in line
    assert people.holder_of(kim.proof) is None
    assert people.holder_of("") is None
    assert people.named("vic") is None


def test_every_wrong_line_is_named_and_none_is_repeated() -> None:
    """A token in the wrong place must not end in a log."""
    line = new_token("kim", Role.VIEWER)[1]
    with pytest.raises(UsageError) as refused:
        parse_people(f"kim viewer s3cret\n{line}\n{line}\n")

    assert "line 1" in str(refused.value)
    assert "line 3: kim is there twice" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_session_ends_by_time_by_log_out_and_with_its_token() -> None:
    """And never comes back."""
    now = [1000.0]
    sessions = Sessions(clock=lambda: now[0], lifetime_s=10.0)
    cookie = sessions.open("kim", "proof")
    found = sessions.read(cookie, lambda name: "proof" if name == "kim" else None)

    assert found is not None
    assert sessions.read(cookie, lambda _: "another") is None
    assert sessions.read(cookie, lambda _: None) is None
    assert Sessions().read(cookie, lambda _: "proof") is None
    sessions.end(found)
    assert sessions.read(cookie, lambda _: "proof") is None
    second = sessions.open("kim", "proof")
    now[0] = 1010.0
    assert sessions.read(second, lambda _: "proof") is None


@given(st.text(max_size=300))
def test_no_text_is_a_session_by_chance(text: str) -> None:
    """Nor does any break the reading."""
    assert Sessions().read(text, lambda _: "proof") is None


def test_guessing_is_bounded_for_one_and_for_all() -> None:
    """Until the failures are old."""
    now = [0.0]
    throttle = Throttle(most=2, span_s=60.0, clock=lambda: now[0])
    for _ in range(2):
        assert throttle.wait_s("a") == 0
        throttle.failed("a")
    assert throttle.wait_s("a") == 60
    assert throttle.wait_s("b") == 0
    now[0] = 30.0
    for number in range(18):
        throttle.failed(f"x{number}")
    assert throttle.wait_s("b") == 30
    now[0] = 61.0
    assert throttle.wait_s("a") == 0


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/now", True),
        ("/dead?x=//y", True),
        ("//e", False),
        ("/\\e", False),
        ("e", False),
        ("/a\nb", False),
        ("", False),
    ],
)
def test_only_places_here_are_led_to(path: str, ours: bool) -> None:
    """Whatever browsers make of slashes."""
    assert is_ours(path) is ours


# -- works ----------------------------------------------------------------------------------------------------------


async def test_one_work_takes_the_queue_at_a_time_and_each_end_is_told_once() -> None:
    """Others are refused with the name of whoever is there."""
    ended: list[str] = []

    async def tell(work: Work) -> None:
        ended.append(work.told)

    works = Works(ended=tell)
    stopping = asyncio.Event()

    async def job(work: Work) -> str:
        work.stop = stopping.set
        await stopping.wait()
        return "over"

    async def failing(work: Work) -> str:
        raise UsageError("amqp://u:secret@host is wrong")

    first = works.start(Action.EXPORT, job, by="kim", target="q", takes_queue=True)
    with pytest.raises(QueueHeld, match="export of kim"):
        works.start(Action.SYNC, job, by="vic", target="q", takes_queue=True)
    second = works.start(Action.PLAN, failing, by="vic", target="q", takes_queue=False)
    assert second.task is not None
    await second.task
    await works.close()

    assert first.is_over
    assert first.stopped
    assert not first.ask_to_stop()
    assert (second.failed, second.told) == (True, "amqp://u:***@host is wrong")
    assert ended == ["amqp://u:***@host is wrong", "over"]
    assert works.under_way() == []


def test_few_looked_at_letters_are_kept_and_not_for_long() -> None:
    """Bodies must not gather in memory."""
    now = [0]
    looked = Looked(clock_us=lambda: now[0])
    for number in range(MOST_KEPT + 1):
        looked.keep(dead_letter(number + 1))
    looked.keep(invalid_letter(99, b"x" * (LONGEST_KEPT + 1)))

    assert looked.get("copy-1-0") is None
    assert looked.get("copy-99-invalid") is None
    assert looked.get("copy-2-0") is not None
    now[0] = 16 * 60 * S
    assert looked.get("copy-2-0") is None
