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

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class AckFrame(NamedTuple):
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

    def plan(self, groups: Sequence[Sequence[int]]) -> list[AckFrame]:
        """The frames that settle exactly these tags, in the order they have to be written. They count as settled from
        now on.

        Each group holds the tags of one entry, oldest first. Raises ValueError, and changes nothing, for a tag that
        is not open or named twice.
        """
        self._take(tag for group in groups for tag in group)
        frontier = next(iter(self._open), self._last + 1)
        early: list[int] = []
        covered: list[int] = []
        late: list[int] = []
        for group in groups:
            hurry = _hurried(group, frontier)
            early.extend(group[:hurry])
            for tag in group[hurry:]:
                (covered if tag < frontier else late).append(tag)
        # One tag needs no multiple flag; the plain frame is the same and cannot cover anything.
        multiple = [AckFrame(max(covered), len(covered) > 1)] if covered else []
        return [*map(_single, early), *multiple, *map(_single, late)]

    def _take(self, tags: Iterable[int]) -> None:
        taken: list[int] = []
        try:
            for tag in tags:
                del self._open[tag]
                taken.append(tag)
        except KeyError as error:
            self._put_back(taken)
            raise ValueError(f"tag {error.args[0]} is not open") from None

    def _put_back(self, tags: Sequence[int]) -> None:
        # The dict's order is what makes the frontier cheap, so it is restored; this is the path of a bug, not of a
        # load.
        self._open = dict.fromkeys(sorted([*self._open, *tags]))


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
