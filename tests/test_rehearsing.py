"""What stands in for the world in a dry run: it is believed, counted, and bounded."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from tests.builders import make_delivery, make_update
from worker.caller import Caller
from worker.cli.dryview import rows
from worker.core.model import Ack, AckReason, Dead, Delivery, Fields, Reason, Release, Retry, Settlement
from worker.core.verdict import Call, Item, Rules
from worker.ports import Sink
from worker.rehearsing import Books, LimitedIntake, NoTokens, Orders, PretendedPlatform, RehearsedSettler

CARRIER = "Planted Carrier Ltd"
REQUESTED: Mapping[int, Fields] = {
    1: {"status": 8, "shipping_carrier": CARRIER},
    2: {"status": 128},
    3: {"shipping_method": None, "weight": 1.5},
}


async def test_every_call_is_judged_applied_and_logged_without_values() -> None:
    """Terminal statuses, nulls and further fields included; the control call is answered and not told."""
    books, shown = Books(), list[Orders]()
    caller = Caller(PretendedPlatform(books, shown.append), NoTokens(), Rules())
    with structlog.testing.capture_logs() as lines:
        control, judgement = await caller.call({}), await caller.call(REQUESTED)

    assert control.call is judgement.call is Call.ANSWERED
    assert {order_id: verdict.item for order_id, verdict in judgement.items.items()} == dict.fromkeys(
        REQUESTED, Item.APPLIED
    )
    assert [line["event"] for line in lines] == ["dryrun.call"]
    assert lines[0]["sends"] == {str(order_id): list(fields) for order_id, fields in REQUESTED.items()}
    assert CARRIER not in str(lines)
    assert shown == [[{"id": order_id, **fields} for order_id, fields in REQUESTED.items()]]
    assert (books.calls, books.orders_sent) == (1, 3)


def settlements() -> list[Settlement]:
    """One of each kind."""
    decisions: Sequence[Any] = (
        *(Ack(reason) for reason in AckReason),
        Dead(reason=Reason.NOT_ALLOWED, detail="why"),
        Retry(tier=0, reason=Reason.UNCONFIRMED, detail="why"),
        Release(),
    )
    updates = [make_update(order_id) for order_id in range(1, len(decisions) + 1)]
    return [
        Settlement(delivery=update.delivery, disposition=decision, update=update)
        for update, decision in zip(updates, decisions, strict=True)
    ]


async def test_decisions_are_counted_and_only_acknowledged() -> None:
    """The copy is acknowledged whatever became of the event; needless ones are told by order."""
    books, acknowledged, heard = Books(), list[Delivery](), list[int]()

    async def acknowledge(deliveries: Sequence[Delivery]) -> None:
        acknowledged.extend(deliveries)

    settler = RehearsedSettler(books, acknowledge, heard=lambda: heard.append(books.decided))
    given = settlements()
    with structlog.testing.capture_logs() as lines:
        await settler.settle(given)

    assert acknowledged == [settlement.delivery for settlement in given]
    assert heard == [5]
    assert {(line["order_id"], line["reason"]) for line in lines} == {(2, "superseded"), (3, "duplicate")}
    assert books.as_json() == {
        "read": 0, "calls": 0, "orders_sent": 0, "applied": 1, "superseded": 1, "duplicate": 1,
        "dead": {"not-allowed": 1}, "retried": {"unconfirmed": 1},
    }  # fmt: skip
    assert list(rows(books))[-2:] == [
        ("would be a dead letter: not-allowed", 1),
        ("would be tried again later: unconfirmed", 1),
    ]


class Hatch:
    """Implements ``ports.Intake`` and ``ports.Sink``."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.done: list[object] = []

    async def open(self, sink: Sink) -> None:
        """See ``ports.Intake``."""
        self.sink = sink

    async def cancel(self) -> None:
        """See ``ports.Intake``."""
        self.done.append("cancel")

    async def release(self) -> None:
        """See ``ports.Intake``."""
        self.done.append("release")

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See ``ports.Sink``."""
        self.done.extend(delivery.tag for delivery in deliveries)

    def lost(self, generation: int) -> None:
        """See ``ports.Sink``."""
        self.done.append("lost")


async def test_no_more_events_are_handed_over_than_were_asked_for() -> None:
    """The rest stays unsettled, and goes with the queue; everything else passes."""
    hatch, books = Hatch(), Books()
    intake = LimitedIntake(hatch, books, 2)
    await intake.open(hatch)
    assert hatch.sink is not None
    hatch.sink.deliver([make_delivery(tag=1)])
    hatch.sink.deliver([make_delivery(tag=tag) for tag in (2, 3)])
    hatch.sink.lost(1)
    await intake.cancel()
    await intake.release()

    assert hatch.done == [1, 2, "lost", "cancel", "release"]
    assert books.read == 2
