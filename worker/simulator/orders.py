"""Orders of the stand-in and the history of every change, kept compact: a load makes hundreds of thousands of them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from worker.simulator.statuses import NEW_ORDER, status_name


class Values(NamedTuple):
    """What an order says now. The names are those of the platform's order fields."""

    status: int = NEW_ORDER
    shipping_carrier: str | None = ""
    shipping_method: str | None = ""
    shipping_tracking: str | None = ""


_NEW = Values()


class Moment(NamedTuple):
    """When, by whom and in which call something was changed; shared by all changes of one call.

    ``at_s`` is the monotonic clock of the stand-in's process, ``wall_s`` seconds since 1970 (UTC).
    """

    at_s: float
    wall_s: float
    client: str
    call: int


class Change(NamedTuple):
    """One write to one order, also one that changed nothing. ``sent`` names the fields that the caller gave."""

    moment: Moment
    order_id: int
    sent: tuple[str, ...]
    before: Values
    after: Values

    def as_json(self) -> dict[str, Any]:
        """The change as it is shown under ``/_sim/history``."""
        return {
            **self.moment._asdict(),
            "order_id": self.order_id,
            "sent": self.sent,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
        }


class Orders:
    """All orders by id, and every change in the order in which it was made."""

    def __init__(self) -> None:
        self._values: dict[int, Values] = {}
        self._sent: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.history: list[Change] = []
        self.change_count = 0
        self.keep_history = True

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, order_id: int) -> bool:
        return order_id in self._values

    def ids(self) -> Iterable[int]:
        """Ids of all orders, the first one made first."""
        return self._values.keys()

    def get(self, order_id: int) -> Values:
        """Values of an order; those of a new order where nothing was ever written."""
        return self._values.get(order_id, _NEW)

    def write(self, order_id: int, after: Values, *, sent: Iterable[str], moment: Moment) -> None:
        """Set the values of an order and note the change, or only count it where no history is kept."""
        before = self.get(order_id)
        self._values[order_id] = after
        self.change_count += 1
        if not self.keep_history:
            return
        names = tuple(sent)
        self.history.append(Change(moment, order_id, self._sent.setdefault(names, names), before, after))

    def changes(self, wanted: frozenset[int] | None = None) -> Iterator[Change]:
        """The history, of the ``wanted`` orders only if given."""
        return (change for change in self.history if wanted is None or change.order_id in wanted)

    def clear(self) -> None:
        """Forget all orders and their history."""
        self._values.clear()
        self.history.clear()
        self.change_count = 0

    def snapshot(self, order_id: int) -> dict[str, Any]:
        """One order as it is shown under ``/_sim/orders``."""
        return {"id": order_id, **view(order_id, self.get(order_id))}


def view(order_id: int, values: Values, *, numeric_strings: bool = False) -> dict[str, Any]:
    """An order as a reply shows it; with ``numeric_strings`` its integers are strings, as PHP back ends may send."""
    number = str if numeric_strings else int
    return {
        "id": number(order_id),
        "status": number(values.status),
        "status_name": status_name(values.status),
        "shipping_carrier": values.shipping_carrier,
        "shipping_method": values.shipping_method,
        "shipping_tracking": values.shipping_tracking,
    }


def order_ref(order_id: int) -> str:
    """The platform's own reference of an order: 16 hexadecimal digits, here derived from its id."""
    return hashlib.sha256(str(order_id).encode()).hexdigest()[:16].upper()


def matches(order_id: int, values: Values, wanted: Mapping[str, Any]) -> bool:
    """Whether an order fits a filter: for each field one value, or a list of which one fits."""
    shown = {**view(order_id, values), "ref": order_ref(order_id), "external_ref": f"SIM-{order_id}"}
    return all(shown[name] in (value if isinstance(value, list) else [value]) for name, value in wanted.items())


FILTER_FIELDS = ("id", "status", "ref", "external_ref", "shipping_carrier", "shipping_method", "shipping_tracking")
