"""Which dead letters are meant, as it stands in an address, so that a link can be sent; and in the fields of a form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from multidict import MultiMapping

from worker.core.errors import UsageError
from worker.core.fields import INT64_MAX
from worker.core.history import DAY_US, HOUR_US, GroupBy, Sought, Tally
from worker.core.replayoptions import Options
from worker.core.span import moment_us
from worker.core.times import format_time

MOST_GIVEN: Final = 1000
"""Orders and message ids of one selection."""
_SPANS: Final = frozenset("smhdw")


@dataclass(slots=True, frozen=True, kw_only=True)
class Selection:
    """The filter as it was typed: spans like ``2h`` become times (``fixed``), so that a link means the same later."""

    reason: str = ""
    detail: str = ""
    orders: tuple[int, ...] = ()
    messages: tuple[str, ...] = ()
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, given: MultiMapping[str]) -> "Selection":
        """From the query of an address, or a form. Raises UsageError."""
        orders = _words(given, "order")
        messages = _words(given, "message")
        if max(len(orders), len(messages)) > MOST_GIVEN:
            raise UsageError(f"at most {MOST_GIVEN} orders or message ids at a time")
        return cls(
            reason=given.get("reason", "").strip(),
            detail=given.get("detail", ""),
            orders=tuple(dict.fromkeys(map(order_id, orders))),
            messages=tuple(dict.fromkeys(messages)),
            since=given.get("since", "").strip(),
            until=given.get("until", "").strip(),
        )

    @classmethod
    def of_options(cls, options: Options) -> "Selection":
        """What a replay was planned with."""
        return cls(
            reason=options.reason or "",
            detail=options.detail or "",
            orders=options.order_ids,
            messages=options.message_ids,
            since="" if options.since_us is None else format_time(options.since_us),
            until="" if options.until_us is None else format_time(options.until_us),
        )

    @property
    def anything(self) -> bool:
        """Nothing is narrowed down."""
        return self == Selection()

    @property
    def is_fixed(self) -> bool:
        """It holds no spans back from now."""
        return not any(text and text[-1] in _SPANS for text in (self.since, self.until))

    def fixed(self, now_us: int) -> "Selection":
        """With times instead of spans. Raises UsageError where a text is neither."""
        times = {
            name: format_time(moment_us(text, now_us=now_us))
            for name, text in (("since", self.since), ("until", self.until))
            if text
        }
        return replace(self, since=times.get("since", ""), until=times.get("until", ""))

    def sought(self, queue: str, now_us: int) -> Sought:
        """As the index is asked for them. Raises UsageError."""
        return Sought(
            queue=queue,
            reason=self.reason or None,
            detail=self.detail or None,
            order_ids=self.orders,
            message_ids=self.messages,
            since_us=moment_us(self.since, now_us=now_us) if self.since else None,
            until_us=moment_us(self.until, now_us=now_us) if self.until else None,
        )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names and values, as an address or hidden fields have them."""
        return [
            *((name, text) for name, text in (("reason", self.reason), ("detail", self.detail)) if text),
            *(("order", str(each)) for each in self.orders),
            *(("message", each) for each in self.messages),
            *((name, text) for name, text in (("since", self.since), ("until", self.until)) if text),
        ]

    def query(self, **more: object) -> str:
        """The query of an address, with ``?``; empty for everything."""
        pairs = [*self.pairs, *((name, str(text)) for name, text in more.items() if text not in ("", None))]
        return f"?{urlencode(pairs, errors='backslashreplace')}" if pairs else ""

    def narrowed(self, by: GroupBy, tally: Tally) -> "Selection":
        """To the letters of one group."""
        key = tally.key
        match by:
            case GroupBy.REASON:
                return replace(self, reason=str(key))
            case GroupBy.DETAIL:
                return replace(self, detail=str(key))
            case GroupBy.ORDER:
                return self if key is None else replace(self, orders=(int(key),))
            case GroupBy.DAY | GroupBy.HOUR:
                span_us = DAY_US if by is GroupBy.DAY else HOUR_US
                start = int(key or 0) * span_us
                since, until = format_time(start), format_time(start + span_us)
                # Such texts sort like times.
                narrower = min(self.until, until) if self.until else until
                return replace(self, since=max(self.since, since), until=narrower)


def order_id(text: str) -> int:
    """The id of an order. Raises UsageError."""
    if text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= INT64_MAX:
        return int(text)
    raise UsageError(f"{text[:40]!r} is no order id: a whole number above 0")


def group_name(by: GroupBy, key: str | int | None) -> str:
    """What the key of a group is called."""
    if by is GroupBy.DAY and isinstance(key, int):
        return format_time(key * DAY_US)[:10]
    if by is GroupBy.HOUR and isinstance(key, int):
        return format_time(key * HOUR_US)[:13].replace("T", " ") + ":00"
    return "unknown" if key is None else str(key) or "(none)"


def number_in(given: Mapping[str, str], name: str, *, least: int = 0, default: int = 0) -> int:
    """A number of an address; the default where it is none."""
    text = given.get(name, "")
    return max(least, int(text)) if text.isascii() and text.isdigit() and len(text) <= 18 else default


def _words(given: MultiMapping[str], name: str) -> list[str]:
    """Repeated, or several in one, with blanks or commas between."""
    return [word for text in given.getall(name, []) for word in text.replace(",", " ").split()]
