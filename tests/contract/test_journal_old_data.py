"""A journal with data that an older version of the tables holds: after the upgrade everything is there, and in use.

The rows are texts as the older programs wrote them, not as this one would: their encoding must stay readable too.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from msgspec.structs import replace
from sqlalchemy import Connection, text

from tests.contract.journals import CLAIM_S, CLAIM_US, NOW, SECOND, AnyJournal, opened
from tests.support.postgres import PrivatePostgres
from worker.adapters.journal import upgrading
from worker.adapters.journal.database import Database
from worker.adapters.journal.sql import SqlJournal
from worker.core.errors import JournalUnavailable
from worker.core.history import (
    Fate,
    HistoryRow,
    Holder,
    IndexedLetter,
    ItemState,
    LetterState,
    Pause,
    PauseKind,
    Replay,
    ReplayItem,
    Sought,
)
from worker.core.journal import BatchRecord, Claim, OrderOutcome
from worker.core.model import Version

ODD = "m\x00\udcff"
VERSION = Version(NOW, 17, NOW + 5, ODD)
VERSION_TEXT = f'[{NOW},17,{NOW + 5},"m\\u0000\\udcff"]'
VALUES = {
    "status": (VERSION, 4),
    "shipping_carrier": (Version(NOW - SECOND, -1, NOW, "m-1"), "Königliche Post"),
    "shipping_method": (Version(NOW, -1, NOW, "m-2"), None),
}
VALUES_TEXT = (
    f'{{"status":[{VERSION_TEXT},4],"shipping_carrier":[[{NOW - SECOND},-1,{NOW},"m-1"],"Königliche Post"],'
    f'"shipping_method":[[{NOW},-1,{NOW},"m-2"],null]}}'
)
CLAIMED, QUIET, OWING = 2, 1, 3
BIG = 2**63 - 1
"""An order's greatest number."""

Rows = Mapping[str, list[dict[str, object]]]


def order(order_id: int, **given: object) -> dict[str, object]:
    return {"order_id": order_id, "applied": "{}", "revision": 1, "touched_us": NOW} | given


FIRST: Rows = {
    "orders": [
        order(QUIET, applied=VALUES_TEXT, newest_us=NOW, revision=41),
        order(
            CLAIMED, revision=7, claimed_by="them", claim_expires_us=NOW + 9, prior_by="us", prior_expires_us=NOW - 9
        ),
        order(OWING, applied=VALUES_TEXT, newest_us=NOW, echo_us=NOW - SECOND),
        order(BIG, applied=VALUES_TEXT, newest_us=NOW, revision=3),
    ],
    "history": [
        {
            "order_id": QUIET, "at_us": NOW + number, "disposition": "dead", "reason": "rejected",
            "message_id": "m\\x00\\udcff", "event_id": "e", "fields": '{"status":4}', "version": VERSION_TEXT,
            "attempt": 2, "detail": "why", "batch_id": f"b-{number}", "replay_id": "r-1", "worker": "w", "status": 64,
            "status_name": "Dispatched",
        }
        for number in range(3)
    ],
    "dead_letters": [
        {
            "copy_id": f"copy-{state}", "queue": "q", "state": state, "state_us": since_us, "reason": "rejected",
            "detail": "why", "order_id": QUIET, "message_id": "m", "event_id": None, "fields": '{"status":4}',
            "version": VERSION_TEXT, "failed_us": NOW, "attempt": 2, "exchange": "x", "routing_key": "1",
            "batch_id": "b", "replay_id": None, "worker": "w",
        }
        for state, since_us in (("dead", None), ("replayed", NOW), ("removed", NOW))
    ],
    "pauses": [{"queue": "q", "kind": kind, "detail": "why", "by": "kim", "since_us": NOW} for kind in PauseKind],
    "replays": [
        {"replay_id": "r-1", "queue": "q", "author": "kim", "options": '{"reason":"rejected","order_ids":[1,2]}',
         "state": "running", "created_us": NOW, "changed_us": NOW + 1},
    ],
    "replay_items": [
        {"replay_id": "r-1", "place": place, "copy_id": f"c-{place}", "state": state.value, "detail": "d"}
        for place, state in enumerate(ItemState)
    ],
    "horizon": [{"only": 1, "before_us": NOW - 90 * SECOND}],
}  # fmt: skip
SECOND_TOO: Rows = {
    "history": [dict(FIRST["history"][0], batch_id="b-3", replay_place=0)],
    "holders": [{"queue": "q", "by": "kim", "since_us": NOW}],
}
THIRD_TOO: Rows = {
    "history_new": [dict(FIRST["history"][0], batch_id="b-4", replay_id=None)],
}
FOURTH_TOO: Rows = {
    "audit": [
        {"at_us": NOW, "by": "kim", "action": "discard", "outcome": "done", "target": "q", "detail": "", "count": 3},
    ],
}
WRITTEN: Mapping[str, tuple[Rows, ...]] = {
    "0001": (FIRST,),
    "0002": (FIRST, SECOND_TOO),
    "0003": (FIRST, SECOND_TOO, THIRD_TOO),
    "0004": (FIRST, SECOND_TOO, THIRD_TOO, FOURTH_TOO),
    "0005": (FIRST, SECOND_TOO, FOURTH_TOO),
}
"""By the version of the tables: what is in them."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def untouched(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return await asyncio.to_thread(server.create, f"o{uuid4().hex}")


@pytest.fixture(params=list(WRITTEN))
def began_at(request: pytest.FixtureRequest) -> str:
    """A version of the tables."""
    return str(request.param)


@pytest.fixture
async def old(untouched: str, began_at: str) -> AsyncIterator[AnyJournal]:
    """A journal that was of that version, brought to the newest."""
    await fill(untouched, began_at)
    await upgrading.upgrade(untouched)
    await upgrading.check(untouched)
    async with opened(untouched, "us") as [journal]:
        yield journal


async def fill(url: str, version: str, *more: Rows) -> None:
    """Make the tables of this version, with all there can be in them; or with only these rows."""

    def work(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(upgrading.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        for rows in more or WRITTEN[version]:
            for table, some in rows.items():
                for row in some:
                    insert(connection, table, row)

    database = Database(url)
    await database.run(work)
    await database.close()


def insert(connection: Connection, table: str, row: Mapping[str, object]) -> None:
    names, places = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), dict(row))  # noqa: S608 - our names


async def test_orders_keep_values_revisions_claims_and_echoes(old: AnyJournal) -> None:
    """Promise 2 holds across an upgrade: versions exactly, whose call is under way, and what is owed."""
    assert await old.known([QUIET, CLAIMED, OWING, BIG]) == {QUIET: VALUES, CLAIMED: {}, OWING: VALUES, BIG: VALUES}
    assert await old.due_echoes(NOW, 10) == [OWING]
    rows = await old.claim([QUIET, CLAIMED, OWING, BIG], wall_us=NOW)

    assert {order_id: (row.revision, row.standing, row.echo_us) for order_id, row in rows.items()} == {
        QUIET: (42, None, None),
        CLAIMED: (8, Claim("them", NOW + 9), None),
        OWING: (2, None, NOW - SECOND),
        BIG: (4, None, None),
    }
    assert rows[BIG].values == VALUES
    assert rows[BIG].expires_us == NOW + CLAIM_US


async def test_history_keeps_its_rows_in_their_order_and_new_ones_come_behind(old: AnyJournal, began_at: str) -> None:
    """Numbers go on where they were."""
    there = {"0001": 3, "0003": 5, "0004": 5}.get(began_at, 4)
    new = HistoryRow(at_us=NOW, disposition="ack", reason="applied", order_id=QUIET, batch_id="new")
    await old.record(BatchRecord(wall_us=NOW, history=[new]))
    found = await old.history(QUIET)
    numbers = [number for number, _ in found]

    assert [row.batch_id for _, row in found] == [*(f"b-{number}" for number in range(there)), "new"]
    assert numbers == sorted(set(numbers))
    assert found[1][1] == HistoryRow(
        at_us=NOW + 1, disposition="dead", reason="rejected", order_id=QUIET, message_id="m\\x00\\udcff", event_id="e",
        fields={"status": 4}, version=VERSION, attempt=2, detail="why", batch_id="b-1", replay_id="r-1", worker="w",
        status=64, status_name="Dispatched",
    )  # fmt: skip


async def test_the_index_keeps_its_letters_wherever_they_are(old: AnyJournal) -> None:
    """Those in the queue can be seen and gone from there on, the new ones beside them."""
    pages = {state: await old.page(Sought(queue="q", state=state)) for state in LetterState}

    assert {state: [letter.copy_id for letter in page] for state, page in pages.items()} == {
        state: [f"copy-{state}"] for state in LetterState
    }
    [dead] = pages[LetterState.DEAD]
    assert dead == IndexedLetter(
        copy_id="copy-dead", queue="q", reason="rejected", failed_us=NOW, order_id=QUIET, message_id="m", detail="why",
        fields={"status": 4}, version=VERSION, attempt=2, exchange="x", routing_key="1", batch_id="b", worker="w",
        seq=dead.seq,
    )  # fmt: skip
    await old.add([IndexedLetter(copy_id="copy-new", queue="q", reason="busy", failed_us=NOW + SECOND)])
    assert await old.seen(["copy-dead", "copy-new"], wall_us=NOW + SECOND) == 2
    assert await old.forget_unseen("q", NOW + 2 * SECOND, wall_us=NOW + 2 * SECOND) == 2


async def test_pauses_replays_and_the_horizon_stay(old: AnyJournal, began_at: str) -> None:
    """A paused worker stays paused, a broken replay can be resumed, and what was forgotten is still known as that."""
    assert await old.pauses("q") == [
        Pause(queue="q", kind=kind, detail="why", by="kim", since_us=NOW) for kind in PauseKind
    ]
    assert await old.replay("r-1") == Replay(
        replay_id="r-1", queue="q", author="kim", options={"reason": "rejected", "order_ids": [1, 2]}, state="running",
        created_us=NOW, changed_us=NOW + 1,
    )  # fmt: skip
    items = [ReplayItem(place=at, copy_id=f"c-{at}", state=state, detail="d") for at, state in enumerate(ItemState)]
    assert await old.items("r-1") == items
    assert await old.find("r-1", ["c-1", "c-9"]) == {"c-1": items[1]}
    assert await old.horizon_us() == NOW - 90 * SECOND
    seen = began_at != "0001"  # before that no history row said which message of the replay it was
    assert await old.fates("r-1") == ({Fate("dead", "rejected"): 1} if seen else {})
    assert await old.holder("q") == (Holder(by="kim", since_us=NOW) if seen else None)


async def test_an_upgraded_journal_is_worked_with(old: AnyJournal) -> None:
    """Claims, records and pruning do what they do on a new one."""
    newer = {"status": (replace(VERSION, time_us=NOW + SECOND), 8)}
    claimed = await old.claim([QUIET], wall_us=NOW)
    outcome = OrderOutcome(revision=claimed[QUIET].revision, applied=newer)
    assert await old.record(BatchRecord(wall_us=NOW, orders={QUIET: outcome})) == {}

    assert (await old.known([QUIET]))[QUIET] == {**VALUES, **newer}
    while await old.prune(NOW + 100 * SECOND):
        pass
    assert sorted(await old.known([QUIET, OWING, BIG])) == [QUIET, OWING]  # a letter, an echo
    assert await old.horizon_us() == NOW + 1
    assert await old.replay("r-1") is None


async def test_an_upgrade_that_fails_leaves_the_older_tables(untouched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one transaction: the older program can go on, and the next upgrade finds everything."""
    await fill(untouched, "0001")
    real = command.upgrade

    def breaks(config: Config, revision: str) -> None:
        real(config, revision)
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(command, "upgrade", breaks)
        with pytest.raises(JournalUnavailable, match="the disk is full"):
            await upgrading.upgrade(untouched)
    database = Database(untouched)
    assert await database.run(upgrading.standing) is upgrading.Standing.BEHIND
    await database.close()
    await upgrading.upgrade(untouched)

    journal = SqlJournal(untouched, worker="us", claim_s=CLAIM_S)
    assert (await journal.known([QUIET])) == {QUIET: VALUES}
    await journal.close()


async def test_what_sqlite_keeps_since_0005_stays_readable(tmp_path: Path) -> None:
    """Batches of history as packs, found and not yet found; values that all have one version."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    body = (
        '{"count":2,"same":{"disposition":"ack","reason":"applied","batch_id":"b-9","message_id":null,"attempt":2},'
        f'"each":{{"order_id":[{QUIET},{BIG}],"fields":[{{"status":4}},{{"status":5}}],"at_us":[{NOW},{NOW + 1}],'
        f'"version":[{VERSION_TEXT},[{NOW},-1,{NOW},"m-1"]]}}}}'
    )
    packs: list[dict[str, object]] = [{"first_row": number, "rows": 2, "at_us": NOW, "body": body} for number in (1, 3)]
    await fill(
        url,
        "0005",
        {
            "orders": [order(QUIET, applied=f'[{VERSION_TEXT},{{"status":4,"shipping_carrier":null}}]')],
            "history_packs": packs,
            "history_found": [{"order_id": order_id, "first_row": 1} for order_id in (QUIET, BIG)],
            "history_unsorted": [{"first_row": 3, "orders": f"[{QUIET},{BIG}]"}],
        },
    )
    await upgrading.upgrade(url)
    row = HistoryRow(
        at_us=NOW + 1, disposition="ack", reason="applied", order_id=BIG, message_id="m-1", fields={"status": 5},
        version=Version(NOW, -1, NOW, "m-1"), attempt=2, batch_id="b-9",
    )  # fmt: skip

    async with opened(url, "us") as [journal]:
        assert await journal.history(BIG) == [(2, row), (4, row)]
        assert [each.message_id for _, each in await journal.history(QUIET)] == [ODD, ODD]
        assert await journal.known([QUIET]) == {QUIET: {"status": (VERSION, 4), "shipping_carrier": (VERSION, None)}}
