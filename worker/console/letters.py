"""Pages of dead letters: groups, the table behind a group, and one letter with everything that is known of it.

They read the journal's index, a page at a time, so they are as quick with a hundred thousand letters as with ten. Only
the body and the headers of a letter are in the queue alone: ``looking.py`` takes one out to be looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from worker.console.desk import Desk, who
from worker.console.looking import Looked, shown_letter
from worker.console.selection import Selection, group_name, number_in
from worker.core.forecast import Forecast, forecast_letter
from worker.core.history import GroupBy, IndexedLetter, LetterState, Sought, Tally
from worker.lookups import reasons_of, total
from worker.ports import wall_us
from worker.replay.books import Books
from worker.replay.foretelling import story_of, story_of_row
from worker.replay.reaching import grounds_of

MOST_GROUPS: Final = 100
ROWS: Final = 50
"""Letters on a page."""


@dataclass(slots=True, frozen=True, kw_only=True)
class GroupRow:
    """One group in the list: ``query`` leads to its letters, ``share`` is that of all that match, 0 to 100."""

    name: str
    count: int
    share: float
    oldest_us: int
    newest_us: int
    example: str
    query: str


@dataclass(slots=True, frozen=True, kw_only=True)
class LetterRow:
    """One letter in the table, and what a replay would do to it."""

    letter: IndexedLetter
    forecast: Forecast


class LetterPages:
    """The pages under ``/dead``."""

    def __init__(self, desk: Desk, looked: Looked) -> None:
        self._desk = desk
        self._looked = looked

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/dead", self.groups),
            web.get("/dead/letters", self.table),
            web.get("/dead/letter", self.letter),
        ]

    async def groups(self, request: web.Request) -> web.Response:
        """Counts by reason, error, order, day or hour."""
        selection, now_us = _fixed(request), wall_us()
        by = GroupBy(request.query["by"]) if request.query.get("by") in set(GroupBy) else GroupBy.REASON
        books = await self._desk.books()
        sought = selection.sought(self._desk.queue, now_us)
        reasons, matching = await self._counted(books, selection, sought)
        if selection.anything and by is GroupBy.REASON:
            tallies = reasons[:MOST_GROUPS]
        else:
            tallies = await books.tallies(sought, by, limit=MOST_GROUPS)
        return self._desk.pages.page(
            request,
            "dead.html",
            title="Dead letters",
            selection=selection,
            by=by,
            kinds=list(GroupBy),
            rows=[_group(selection, by, tally, matching) for tally in tallies],
            total=matching,
            all=total(reasons),
            reasons=[tally.key for tally in reasons[:MOST_GROUPS]],
            cut=len(tallies) == MOST_GROUPS,
        )

    async def table(self, request: web.Request) -> web.Response:
        """The letters that the filter matches, the first indexed first, and what can be done with all of them."""
        selection, now_us = _fixed(request), wall_us()
        after = number_in(request.query, "after")
        books = await self._desk.books()
        sought = selection.sought(self._desk.queue, now_us)
        reasons, matching = await self._counted(books, selection, sought)
        letters = await books.page(sought, after=after, limit=ROWS + 1)
        return self._desk.pages.page(
            request,
            "letters.html",
            title="Dead letters",
            selection=selection,
            rows=await self._judged(books, letters[:ROWS]),
            total=matching,
            after=after,
            following=letters[ROWS - 1].seq if len(letters) > ROWS else None,
            reasons=[tally.key for tally in reasons[:MOST_GROUPS]],
        )

    async def letter(self, request: web.Request) -> web.Response:
        """One letter: what the index says, and body and headers where somebody looked."""
        books = await self._desk.books()
        found = await find_letter(books, self._desk.queue, request.query.get("copy", ""))
        if found is None:
            raise web.HTTPNotFound(text="the index knows no such dead letter; it may have been forgotten meanwhile")
        looked = self._looked.get(found.copy_id)
        payloads = self._desk.shows_payloads(who(request))
        if looked is None:
            story = await story_of_row(books, found, self._desk.settings)
        else:
            story = await story_of(books, looked, self._desk.settings)
        return self._desk.pages.page(
            request,
            "letter.html",
            title=f"Dead letter of order {found.order_id}" if found.order_id else "Dead letter",
            letter=found,
            story=story,
            known=sorted(story.known.items()),
            payloads=payloads,
            body=None if looked is None or not payloads else shown_letter(looked),
            query=Selection(messages=(found.copy_id,)).query(),
            is_dead=found.state is LetterState.DEAD,
        )

    async def _counted(self, books: Books, selection: Selection, sought: Sought) -> tuple[Sequence[Tally], int]:
        """All letters by reason, and how many match. Counting goes through all of them, so it is done no more often
        than it has to be."""
        reasons = await reasons_of(books, Sought(queue=self._desk.queue))
        return reasons, total(reasons if selection.anything else await reasons_of(books, sought))

    async def _judged(self, books: Books, letters: Sequence[IndexedLetter]) -> list[LetterRow]:
        grounds = (await grounds_of(books, self._desk.settings))()
        orders = list(dict.fromkeys(letter.order_id for letter in letters if letter.order_id is not None))
        known = await books.known(orders) if orders else {}
        return [
            LetterRow(
                letter=letter,
                forecast=forecast_letter(
                    letter, None if letter.order_id is None else known.get(letter.order_id), grounds
                ),
            )
            for letter in letters
        ]


async def find_letter(books: Books, queue: str, copy_id: str) -> IndexedLetter | None:
    """The letter of this copy, wherever it is now."""
    if not copy_id:
        return None
    for state in LetterState:
        letters = await books.page(Sought(queue=queue, message_ids=(copy_id,), state=state), limit=100)
        for letter in letters:
            if letter.copy_id == copy_id:
                return letter
    return None


def _fixed(request: web.Request) -> Selection:
    """The filter of the address. Where it holds spans the browser is led to the same with times."""
    selection = Selection.of(request.query)
    if selection.is_fixed:
        return selection
    by = request.query.get("by", "")
    raise web.HTTPSeeOther(request.path + selection.fixed(wall_us()).query(by=by if by in set(GroupBy) else ""))


def _group(selection: Selection, by: GroupBy, tally: Tally, matching: int) -> GroupRow:
    return GroupRow(
        name=group_name(by, tally.key),
        count=tally.count,
        share=100 * tally.count / matching if matching else 0.0,
        oldest_us=tally.oldest_us,
        newest_us=tally.newest_us,
        example=tally.example,
        query=selection.narrowed(by, tally).query(),
    )
