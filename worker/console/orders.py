"""Pages of orders: found by id; what the platform has, and what happened to each event, from the journal."""

from typing import Final

from aiohttp import web

from worker.console.desk import Desk
from worker.console.orderstory import story
from worker.console.selection import Selection, order_id
from worker.core.history import HistoryRow, Sought
from worker.lookups import history_pages
from worker.replay.books import Books

MOST_ROWS: Final = 5000
"""Of an order's history: with more the latest are shown."""
MOST_LETTERS: Final = 50


class OrderPages:
    """The pages under ``/orders``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [web.get("/orders", self.search), web.get("/orders/{id}", self.order)]

    async def search(self, request: web.Request) -> web.Response:
        """By id."""
        if wanted := request.query.get("id", "").strip():
            raise web.HTTPSeeOther(f"/orders/{order_id(wanted)}")
        return self._desk.pages.page(request, "orders.html", title="Find an order")

    async def order(self, request: web.Request) -> web.Response:
        """Everything that is known of one."""
        number = order_id(request.match_info["id"])
        books = await self._desk.books()
        rows, cut = await _history(books, number)
        known = (await books.known([number])).get(number, {})
        letters = await books.page(Sought(queue=self._desk.queue, order_ids=(number,)), limit=MOST_LETTERS)
        status = 200 if rows or known or letters else 404
        return self._desk.pages.page(
            request,
            "order.html",
            status,
            title=f"Order {number}",
            number=number,
            events=story(rows),
            cut=cut,
            known=sorted(known.items()),
            letters=letters,
            query=Selection(orders=(number,)).query(),
        )


async def _history(books: Books, number: int) -> tuple[list[HistoryRow], bool]:
    """The latest rows, and whether there are older ones."""
    rows: list[HistoryRow] = []
    cut = False
    async for page in history_pages(books, number):
        rows += page
        if len(rows) > MOST_ROWS:
            del rows[: len(rows) - MOST_ROWS]
            cut = True
    return rows, cut
