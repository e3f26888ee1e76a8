"""The check that every test under faults ends with: where is every event that was ever published?

    accounting = Accounting(simulator.platform)
    key = accounting.make(order_id)         # publish accounting.body(key); where that fails: accounting.unsure(key)
    accounting.note_dead(body); accounting.note_queued(body)
    accounting.verdict().assert_good()

Each event is at exactly one place: applied or superseded on the platform, dead-lettered, or still queued; one whose
publish failed may be nowhere. What was superseded cannot be told from what was lost without harm (a later value of all
its fields is applied), so *lost* means: a confirmed event whose field shows an older version, and that is nowhere else.

Repeatable at any time, and flat in memory: the platform's history is folded into a few bits per event and forgotten.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.orderbooks import FIELDS, Key, OrderBook, body_of, key_in, version_in, versions_in
from worker.simulator.exchange import Platform

SHOWN = 10
"""Cases of each kind of problem that a failure names."""
DOUBLE = "unknown delivery tag"
"""What the broker says when a delivery is settled for the second time."""
SETTLED = ("applied", "superseded", "duplicate", "retried", "dead")
"""Counters of a worker's last line that are each one delivery, settled."""


@dataclass(slots=True)
class Verdict:
    """``figures`` count events by place; ``problems`` are by kind, each naming events or orders, empty if all is well.

    ``duplicates`` (further copies of a dead letter) and ``stepped_back`` (a value that an older one replaced
    for a while) are figures: at-least-once delivery may cause the first, two workers the second. ``relapsed`` are those
    steps back where the same client had written both.
    """

    figures: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def blame(self, kind: str, case: str) -> None:
        """Note a problem."""
        self.problems.setdefault(kind, []).append(case)

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        return not self.problems

    def assert_good(self) -> None:
        """AssertionError that says which events and orders are wrong, and how."""
        told = [f"{kind} ({len(cases)}): {'; '.join(cases[:SHOWN])}" for kind, cases in self.problems.items()]
        assert self.good, "\n".join(["the accounts do not balance", *told, str(dict(self.figures))])


class Accounting:
    """Books of one run. ``platform`` is the stand-in's; its history is taken over, so nobody else can read it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._books: dict[int, OrderBook] = {}
        self._foreign: list[str] = []
        self._doubles: list[str] = []
        self._duplicates = 0

    # -- what producers know --------------------------------------------------------------------------------------

    def make(self, order_id: int, *, refused: bool = False, invalid: bool = False) -> Key:
        """The next event of this order, taken as confirmed until ``unsure`` is said."""
        book = self._books.setdefault(order_id, OrderBook())
        book.made += 1
        if refused:
            book.refused |= 1 << book.made
        if invalid:
            book.invalid |= 1 << book.made
        return Key(order_id, book.made)

    def body(self, key: Key) -> bytes:
        """What is published for it."""
        book = self._books[key.order_id]
        return body_of(
            key, refused=bool(book.refused >> key.version & 1), invalid=bool(book.invalid >> key.version & 1)
        )

    def unsure(self, key: Key) -> None:
        """Its publish was not confirmed: it may be there or not."""
        self._books[key.order_id].unknown |= 1 << key.version

    def forgive(self) -> None:
        """Whatever is not applied or dead-lettered yet may be gone: somebody deleted the queue."""
        self.fold()
        for book in self._books.values():
            book.unknown |= book.all & ~book.applied & ~book.dead

    # -- what was found -------------------------------------------------------------------------------------------

    def note_dead(self, body: bytes) -> None:
        """This was in the dead-letter queue."""
        if (key := self._known(body, "dead letter")) is not None:
            book, bit = self._books[key.order_id], 1 << key.version
            self._duplicates += bool(book.dead & bit)
            book.dead |= bit

    def replace_queued(self, bodies: Iterable[bytes]) -> None:
        """These, and nothing else, are in the work queue and the retry tiers now."""
        for book in self._books.values():
            book.queued = 0
        for body in bodies:
            if (key := self._known(body, "queued message")) is not None:
                self._books[key.order_id].queued |= 1 << key.version

    def note_broker(self, log_text: str) -> None:
        """What the broker logged."""
        self._doubles += [f"broker log: {line}" for line in log_text.splitlines() if DOUBLE in line]

    def note_worker(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """What one life of a worker logged."""
        for line in lines:
            if line.get("event") == "broker.channel_gone" and DOUBLE in str(line.get("detail")):
                self._doubles.append(f"worker log: {line['detail']}")
            if line.get("event") == "worker.stopped":
                counts = line["counts"]
                settled = sum(counts.get(name, 0) for name in SETTLED)
                if settled > counts.get("delivered", 0):
                    self._doubles.append(f"worker counts: {settled} settled of {counts.get('delivered', 0)} delivered")

    def _known(self, body: bytes, what: str) -> Key | None:
        key = key_in(body)
        book = None if key is None else self._books.get(key.order_id)
        if key is None or book is None or not 0 < key.version <= book.made or body != self.body(key):
            self._foreign.append(f"{what} {body[:200]!r}")
            return None
        return key

    # -- the balance ----------------------------------------------------------------------------------------------

    def fold(self) -> int:
        """Take over what the platform wrote since the last time; how many changes these were."""
        history = self._platform.orders.history
        count = len(history)
        for change in history:
            book = self._books.get(change.order_id)
            if book is None or not book.note_applied(change.sent, change.after._asdict(), change.moment.client):
                self._foreign.append(f"order {change.order_id} was given {change.after} ({', '.join(change.sent)})")
        history.clear()
        return count

    def arrived(self) -> bool:
        """Whether nothing is on its way any more: every order at its greatest version, what is refused dead-lettered.

        An event whose publish was not confirmed may still come.
        """
        self.fold()
        return not any(book.lost or book.backwards for book in self._books.values())

    def backwards(self) -> bool:
        """Whether an order shows an older value than it once did."""
        self.fold()
        return any(book.backwards for book in self._books.values())

    def resident_bytes(self) -> int:
        """What the books take in memory, names and empty tables left out."""
        return sum(book.resident_bytes for book in self._books.values())

    def verdict(self, *, alone: bool = True) -> Verdict:
        """The accounts as they are now. ``alone``: only one worker ran at a time, so no two calls may overlap."""
        self.fold()
        verdict = Verdict(Counter(duplicates=self._duplicates))
        for order_id, book in self._books.items():
            self._balance(verdict, order_id, book)
        for kind, cases in (("not one of ours", self._foreign), ("settled twice", self._doubles)):
            for case in cases:
                verdict.blame(kind, case)
        for order_id, times in self._platform.calls.overlaps.items() if alone else ():
            verdict.blame("two calls at once", f"order {order_id}, {times} times")
        return verdict

    def _balance(self, verdict: Verdict, order_id: int, book: OrderBook) -> None:
        for kind, mask in (
            ("both applied and dead", book.applied & book.dead),
            ("both queued and dead", book.queued & book.dead),
            ("dead without cause", book.dead & ~book.refused & ~book.invalid),
            ("invalid, yet applied", book.applied & book.invalid),
            ("lost", book.lost),
        ):
            for version in versions_in(mask):
                verdict.blame(kind, f"order {order_id} version {version}")
        for name in book.backwards:
            told = f"order {order_id} {name} shows version {book.latest[name]}, once had {book.greatest[name]}"
            verdict.blame("went backwards", told)
        values = self._platform.orders.get(order_id)._asdict()
        if any(version_in(values[name]) != book.latest.get(name, 0) for name in FIELDS):
            verdict.blame("not one of ours", f"order {order_id} shows {values}, written were versions {book.latest}")
        _count(verdict.figures, book)


def _count(figures: Counter[str], book: OrderBook) -> None:
    """Adds up: each event is in exactly one of applied, superseded, dead, queued, unconfirmed, lost."""
    settled = book.due & ~book.lost
    masks = {
        "events": book.all,
        "applied": settled & book.applied,
        "superseded": settled & ~book.applied,
        "dead": book.dead,
        "queued": book.queued & ~book.dead,
        "unconfirmed": book.unknown & ~book.applied & ~book.dead & ~book.queued,
        "lost": book.lost,
    }
    figures.update({name: mask.bit_count() for name, mask in masks.items()})
    figures.update(orders=1, stepped_back=book.stepped_back, relapsed=book.relapsed)
