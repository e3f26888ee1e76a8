"""Who did what, the same on every journal (``journalports.AuditTrail``)."""

from dataclasses import replace

from tests.contract.journals import NOW, Pair, fresh_id
from worker.core.audit import Action, Deed, Outcome


def deed(by: str, at_us: int = NOW, count: int | None = None) -> Deed:
    return Deed(at_us=at_us, by=by, action=Action.DISCARD, outcome=Outcome.DONE, target="q", detail="d", count=count)


async def test_deeds_come_back_the_latest_first(pair: Pair) -> None:
    """Every field of them, page by page."""
    name = f"kim{fresh_id()}"
    for count in (None, 3, 2**40):
        await pair.a.note(deed(name, count=count))

    found = [each for each in await pair.b.deeds(limit=1000) if each.by == name]
    older = [each for each in await pair.b.deeds(before=found[0].number, limit=1000) if each.by == name]

    assert [replace(each, number=0) for each in found] == [deed(name, count=count) for count in (2**40, 3, None)]
    assert older == found[1:]
    assert len(await pair.b.deeds(limit=2)) == 2


async def test_foreign_texts_in_a_deed_are_kept_readable(pair: Pair) -> None:
    """A name may hold what no database takes."""
    name = f"kim{fresh_id()}"
    await pair.a.note(deed(f"{name}\x00\udcff"))

    [found] = [each for each in await pair.b.deeds(limit=1000) if each.by.startswith(name)]
    assert found.by in (f"{name}\x00\udcff", f"{name}\\x00\\udcff")


async def test_deeds_are_forgotten_with_the_rest(pair: Pair) -> None:
    """Those that are older than the retention."""
    name = f"kim{fresh_id()}"
    await pair.a.note(deed(name, at_us=1000))
    await pair.a.note(deed(name))
    while await pair.a.prune(2000):
        pass

    assert [each.at_us for each in await pair.b.deeds(limit=1000) if each.by == name] == [NOW]
