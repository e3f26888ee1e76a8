"""Which acknowledgements to write for a set of settled deliveries: few frames, never a wrong one.

Theory of operation
-------------------
The broker numbers the deliveries of one channel 1, 2, 3 ... (*tags*). ``ack(tag, multiple)`` settles every open tag
up to ``tag`` in one frame; ``ack(tag)`` settles that one. A frame that names a tag which is not open is a channel
error: the channel dies and everything unsettled on it comes again (RabbitMQ, PRECONDITION_FAILED "unknown delivery
tag"). So the rules are

    1. a multiple frame names a tag not acked yet, and no tag at or below it is open outside the plan;
    2. everything above that is acked singly;
    3. no tag is named or covered twice;
    4. of the tags of one entry (a *group*, oldest first) none is acked before an older one: else a crash between two
       frames lets an older value of the order come again after the newer one was forgotten.

Rules 1 and 4 can pull apart. With the frontier (the lowest tag that stays open) at 5 and the group [7, 3], tag 3 may
go into the multiple frame, but 7 is older and must not go later. Then the older ones leave *early*, singly, and
before them whatever is older still, even if the multiple frame could have had it:

    early singles (group order)  ->  one multiple frame  ->  late singles (group order)

At least one tag of each such group stays for the multiple frame, the one that made the others hurry, so a plan never
has more frames than tags. The frontier comes from the open tags in the order they were delivered, the first of which
is the lowest: a plan costs time for its own tags only, never for the whole window.
"""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from itertools import chain

from msgspec import Struct


class AckFrame(Struct, frozen=True, gc=False):
    """One ``basic.ack``: settles ``tag``, with ``multiple`` also every open tag below it."""

    tag: int
    multiple: bool


class AckLedger:
    """The open tags of one channel generation. A lost channel's ledger is thrown away with it."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}
        self._last = 0

    @property
    def open_count(self) -> int:
        """How many tags the broker has handed over and not seen acknowledged; bounded by the prefetch."""
        return len(self._open)

    @property
    def open_tags(self) -> Collection[int]:
        """The tags that the broker has handed over and not seen acknowledged; a view, not a copy."""
        return self._open.keys()

    @property
    def delivered_count(self) -> int:
        """The highest tag so far: how many deliveries this channel has brought."""
        return self._last

    def is_open(self, tag: int) -> bool:
        """Whether ``tag`` was delivered and is in no plan yet."""
        return tag in self._open

    def delivered(self, tag: int) -> None:
        """Note a delivery. Tags rise; one that was skipped counts as open for ever, so that no multiple frame covers
        it.

        Raises ValueError for a tag that is not higher than all before.
        """
        if tag <= self._last:
            raise ValueError(f"tag {tag} after tag {self._last}")
        for number in range(self._last + 1, tag + 1):
            self._open[number] = None
        self._last = tag

    def delivered_many(self, tags: Sequence[int]) -> None:
        """Note deliveries, rising as ``delivered`` has it. Where none was skipped they cost nothing by themselves."""
        first, end = self._last + 1, self._last + 1 + len(tags)
        if list(range(first, end)) == tags:
            self._open.update(dict.fromkeys(tags))
            self._last = end - 1
            return
        for tag in tags:
            self.delivered(tag)

    def plan(self, groups: Sequence[Sequence[int]]) -> list[AckFrame]:
        """The frames that settle exactly these tags, in the order they have to be written. They count as settled from
        now on.

        Each group holds the tags of one entry, oldest first. Raises ValueError, and changes nothing, for a tag that
        is not open or named twice.
        """
        tags = list(chain.from_iterable(groups))
        self._take(tags)
        frontier = next(iter(self._open), self._last + 1)
        top = max(tags, default=0)
        if top < frontier:
            # The usual case: all leave in one frame, so no order among them can be broken. One tag needs no multiple
            # flag; the plain frame is the same and cannot cover anything.
            return [AckFrame(top, multiple=len(tags) > 1)] if tags else []
        early: list[int] = []
        covered: list[int] = []
        late: list[int] = []
        for group in groups:
            hurry = _hurried(group, frontier) if len(group) > 1 else 0
            early.extend(group[:hurry])
            for tag in group[hurry:]:
                (covered if tag < frontier else late).append(tag)
        multiple = [AckFrame(max(covered), multiple=len(covered) > 1)] if covered else []
        return [*map(_single, early), *multiple, *map(_single, late)]

    def _take(self, tags: Sequence[int]) -> None:
        """All or none. Raises ValueError; nothing is done in Python for a single tag where that does not happen."""
        wanted = set(tags)
        if len(wanted) < len(tags) or not self._open.keys() >= wanted:
            named = Counter(tags)
            wrong = next(tag for tag in tags if tag not in self._open or named[tag] > 1)
            raise ValueError(f"tag {wrong} is not open")
        if len(tags) == len(self._open):
            self._open.clear()
        else:
            deque(map(self._open.__delitem__, tags), maxlen=0)


def _single(tag: int) -> AckFrame:
    return AckFrame(tag, multiple=False)


def _hurried(group: Sequence[int], frontier: int) -> int:
    """How many of the oldest tags of a group have to leave before the multiple frame.

    All up to the last tag at or above the frontier that has a younger mate below it.
    """
    below = False
    for index in range(len(group) - 1, -1, -1):
        if group[index] < frontier:
            below = True
        elif below:
            return index + 1
    return 0
