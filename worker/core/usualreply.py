"""The usual reply shows what was sent. Looked at in a few passes over all items at once: a fraction of one by one.

The types matter: to Python ``True`` and ``1.0`` are the number 1, and to us they are no id and no status.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from worker.core.model import Fields

_INTEGERS: Final = frozenset({int})
_INTEGERS_OR_NOTHING: Final = frozenset({int, type(None)})
_id_of: Final = itemgetter("id")
_status_of: Final = itemgetter("status")


def shown_once(items: Sequence[Any], requested: Mapping[int, Fields]) -> Sequence[Mapping[str, Any]] | None:
    """The items in the order of the request, where it is the usual reply: each order once, ids and statuses as numbers.

    None sends whatever else it may be the long way.
    """
    ids = _ids(items)
    if ids is None:
        return None
    if ids == list(requested):
        return items
    by_id = dict(zip(ids, items, strict=True))
    if len(by_id) < len(ids) or by_id.keys() != requested.keys():
        return None
    return [by_id[order_id] for order_id in requested]


def deviating(requested: Mapping[int, Fields], shown: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """The items that do not show just what was requested."""
    return {
        order_id: item
        for (order_id, fields), item in zip(requested.items(), shown, strict=True)
        if not fields.items() <= item.items()
    }


def _ids(items: Sequence[Any]) -> list[int] | None:
    """None where an item is no object, or lacks an id or a status that is a number."""
    try:
        ids, statuses = list(map(_id_of, items)), map(_status_of, items)
        numbers = _INTEGERS.issuperset(map(type, ids)) and _INTEGERS_OR_NOTHING.issuperset(map(type, statuses))
    except (TypeError, KeyError):
        return None
    return ids if numbers else None
