"""Deliberate bugs, planted from outside into the product's classes: each is a mistake that somebody could make.

A bug is a function that gets pytest's monkeypatch. Nothing in the product knows of any of this.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.generation import Generation
from worker.adapters.amqp.settler import BrokerSettler
from worker.core import request as request_module
from worker.core.acks import AckFrame, AckLedger
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.entry import Entry, FlushReason
from worker.core.model import AckReason, Dead, Delivery, Settlement, Update
from worker.core.values import Values
from worker.core.versions import FirstSight, KnownVersions
from worker.settling import Unsettled

Patch = pytest.MonkeyPatch
Bug = Callable[[Patch], None]
BUGS: dict[str, Bug] = {}


def bug(plant: Bug) -> Bug:
    """Put it on the list, under its name."""
    BUGS[plant.__name__] = plant
    return plant


# -- settling -----------------------------------------------------------------------------------------------------


@bug
def ack_before_the_copy_is_confirmed(patch: Patch) -> None:
    """Acks first, copies afterwards."""

    async def settle(self: BrokerSettler, settlements: Sequence[Any], _index: Any = None) -> None:
        groups = self._groups(settlements)
        await self._acknowledge([settlement for group in groups for settlement in group])
        for group in groups:
            for settlement in group:
                await self._place(settlement)

    patch.setattr(BrokerSettler, "settle", settle)


@bug
def ack_although_the_copy_failed(patch: Patch) -> None:
    """A copy without a confirm counts as placed."""
    place = BrokerSettler._place

    async def hopeful(self: BrokerSettler, settlement: Any) -> Any:
        try:
            return await place(self, settlement)
        except Exception:  # noqa: BLE001 - that is the bug
            return None

    patch.setattr(BrokerSettler, "_place", hopeful)


@bug
def ignore_the_generation(patch: Patch) -> None:
    """A tag of the last channel is acked on the new one."""

    def holds(self: Consumer, delivery: Delivery) -> bool:
        return self._current is not None and self._current.ledger.is_open(delivery.tag)

    async def acknowledge(self: Consumer, _generation: int, groups: Sequence[Sequence[int]]) -> bool:
        if self._current is not None:
            await self._current.acknowledge(groups, timeout_s=5.0)
        return True

    def lost(_self: Unsettled, _generation: int) -> None:
        return

    def still_held(self: Consumer, settlements: Iterable[Settlement]) -> Sequence[Settlement]:
        return [each for each in settlements if holds(self, each.delivery)]

    patch.setattr(Consumer, "holds", holds)
    patch.setattr(Consumer, "still_held", still_held)
    patch.setattr(Consumer, "acknowledge", acknowledge)
    patch.setattr(Unsettled, "lost", lost)


@bug
def ack_a_middle_run_with_multiple(patch: Patch) -> None:
    """One frame for the highest tag of a plan, whatever is open below it."""

    def plan(self: AckLedger, groups: Sequence[Sequence[int]]) -> list[AckFrame]:
        tags = [tag for group in groups for tag in group]
        self._take(tags)
        return [AckFrame(max(tags), len(tags) > 1)] if tags else []

    patch.setattr(AckLedger, "plan", plan)


@bug
def settle_twice(patch: Patch) -> None:
    """The ledger forgets to cross off what it has planned."""

    async def acknowledge(self: Generation, groups: Sequence[Sequence[int]], *, timeout_s: float) -> int:
        for tag in [tag for group in groups for tag in group]:
            await self.channel.basic_ack(tag)
            await self.channel.basic_ack(tag)
        return len(groups)

    patch.setattr(Generation, "acknowledge", acknowledge)


@bug
def forget_when_a_redelivery_was_first_seen(patch: Patch) -> None:
    """An event without a stamp grows younger with every channel."""
    patch.setattr(FirstSight, "recall", lambda _self, _delivery: None)


@bug
def forget_what_was_settled_last(patch: Patch) -> None:
    """The same, only for acks that were on their way."""
    settle = Unsettled.settle

    async def forgetful(self: Unsettled, settlements: Sequence[Any]) -> None:
        await settle(self, settlements)
        self._settled.clear()

    patch.setattr(Unsettled, "settle", forgetful)


@bug
def forget_the_version_in_a_retry_copy(patch: Patch) -> None:
    """A copy loses its headers but for the attempt: unstamped events become new ones."""
    decode = EventSchema.decode

    def anew(self: EventSchema, delivery: Delivery) -> Update | Dead:
        headers = delivery.properties.headers
        if "ow-occurred-at" not in headers:
            return decode(self, delivery)
        kept = {name: value for name, value in headers.items() if name == "ow-attempt"}
        properties = replace(delivery.properties, headers=kept)
        decoded = decode(self, replace(delivery, properties=properties))
        return replace(decoded, delivery=delivery) if isinstance(decoded, Update) else decoded

    patch.setattr(EventSchema, "decode", anew)


@bug
def a_release_counts_as_an_attempt(patch: Patch) -> None:
    """The broker's delivery count is added to the attempts."""
    decode = EventSchema.decode

    def counted(self: EventSchema, delivery: Delivery) -> Update | Dead:
        decoded = decode(self, delivery)
        if isinstance(decoded, Update):
            return replace(decoded, attempt=decoded.attempt + delivery.properties.headers.get("x-delivery-count", 0))
        return decoded

    patch.setattr(EventSchema, "decode", counted)


# -- order --------------------------------------------------------------------------------------------------------


@bug
def two_calls_for_one_order(patch: Patch) -> None:
    """The lane is not held while an entry is out."""
    take = Coalescer._take

    def loose(self: Coalescer, most: int, reason: FlushReason) -> Any:
        batch = take(self, most, reason)
        for entry in batch.entries:
            self._lanes[entry.order_id].out = False
        return batch

    patch.setattr(Coalescer, "_take", loose)


@bug
def compare_versions_with_at_least(patch: Patch) -> None:
    """What is applied already, in this very version, is news."""

    def news(entry: Entry, values: Values) -> dict[str, Any]:
        return {
            name: update.fields[name]
            for name, update in entry.winners.items()
            if name not in values or values[name][0] <= update.version
        }

    patch.setattr(request_module, "_news", news)
    patch.setattr(KnownVersions, "standing", lambda _self, _update: None)


@bug
def send_what_is_stale(patch: Patch) -> None:
    """The check against what is applied is turned round."""

    def news(entry: Entry, values: Values) -> dict[str, Any]:
        return {
            name: update.fields[name]
            for name, update in entry.winners.items()
            if name not in values or not values[name][0] < update.version
        }

    patch.setattr(request_module, "_news", news)


@bug
def the_last_to_arrive_wins(patch: Patch) -> None:
    """Merging goes by arrival."""

    def merge(self: Entry, update: Update) -> None:
        self.updates.append(update)
        self.winners.update(dict.fromkeys(update.fields, update))

    patch.setattr(Entry, "merge", merge)


@bug
def any_newer_field_supersedes(patch: Patch) -> None:
    """An update counts as covered as soon as one of its fields is."""

    def standing(self: Any, update: Update) -> AckReason | None:
        known = self._orders.get(update.order_id, {})
        newer = any(known[name] >= update.version for name in update.fields if name in known)
        return AckReason.SUPERSEDED if newer else None

    patch.setattr(KnownVersions, "standing", standing)
