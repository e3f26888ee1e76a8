"""A model of the platform in pure Python: keeps values, and refuses what it is told to refuse, in a chosen way."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, Reply

Refuses = Callable[[int, Fields], bool]
"""Whether the platform refuses this order with these fields."""


class Refusal(StrEnum):
    """How the model says no."""

    HTTP_400 = "http 400, nothing done"
    NO_PATH = "data null and an error without a path, nothing done"
    PATH = "null in the list and an error that points at it, the others are done"
    OMIT = "left out of the list without a word, the others are done"


class ModelPlatform:
    """Call it like the platform: fields by order id in, a report out. ``values`` is what it holds."""

    def __init__(
        self,
        refuses: Refuses = lambda _order_id, _fields: False,
        how: Refusal = Refusal.HTTP_400,
        *,
        text: str = "Invalid order status",
        takes_empty: bool = True,
    ) -> None:
        self.refuses = refuses
        self.how = how
        self.text = text
        self.takes_empty = takes_empty
        self.values: dict[int, dict[str, Scalar]] = {}
        self.history: list[tuple[int, Fields]] = []

    def __call__(self, orders: Mapping[int, Fields]) -> CallReport:
        """One mutation."""
        bad = [order_id for order_id, fields in orders.items() if self.refuses(order_id, fields)]
        if not orders and not self.takes_empty:
            return rest_error("Nothing to update")
        if bad and self.how is Refusal.HTTP_400:
            return rest_error(self.text)
        if bad and self.how is Refusal.NO_PATH:
            return reply(None, [{"message": self.text}])
        return self._each(orders, bad)

    def _each(self, orders: Mapping[int, Fields], bad: Sequence[int]) -> CallReport:
        good = {order_id: fields for order_id, fields in orders.items() if order_id not in bad}
        for order_id, fields in good.items():
            self.values.setdefault(order_id, {}).update(fields)
            self.history.append((order_id, fields))
        if self.how is Refusal.OMIT:
            return reply(shown(good))
        items = [None if order_id in bad else {"id": order_id, **fields} for order_id, fields in orders.items()]
        errors = [
            {"message": self.text, "path": ["core", "updateOrders", place]}
            for place, order_id in enumerate(orders)
            if order_id in bad
        ]
        return reply(items, errors)


def shown(orders: Mapping[int, Fields]) -> list[dict[str, Any]]:
    """The list with which the platform confirms these orders."""
    return [{"id": order_id, **fields} for order_id, fields in orders.items()]


def reply(items: Sequence[Any] | None, errors: Sequence[Any] = (), status: int = 200) -> Reply:
    """An answer in GraphQL's shape; without a list ``data`` is null."""
    payload: dict[str, Any] = {"data": None if items is None else {"core": {"updateOrders": list(items)}}}
    if errors:
        payload["errors"] = list(errors)
    return Reply(status=status, payload=payload)


def rest_error(message: str, status: int = 400, code: int = 0) -> Reply:
    """An answer in the shape of the platform's REST interface."""
    return Reply(status=status, payload={"error": {"message": message, "code": code}})
