"""The ``updateOrders`` mutation: judge every order, write what is accepted, and word the reply as the options say.

Nothing here waits: one mutation is carried out at one moment, as a database transaction would be.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLError

from worker.simulator.options import MASKED, Options
from worker.simulator.orders import Moment, Orders, Values, view
from worker.simulator.replies import RestError
from worker.simulator.rules import INVALID, Absent, Accepted, Judgement, Refused, is_plain, judge, one_copy, unknown

Input = Mapping[str, Any] | None
Entry = dict[str, Any] | GraphQLError | None


@dataclass(slots=True, frozen=True)
class Reply:
    """The value of the field ``updateOrders``, and errors that blame nobody (they carry no path)."""

    entries: list[Entry] | None
    loose_errors: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Updates:
    """Carries out mutations on the orders. Change ``options`` at any time."""

    orders: Orders
    options: Options
    chance: random.Random
    busy_given: Counter[int] = field(default_factory=Counter)

    def run(self, inputs: Sequence[Input], moment: Moment, *, busy_from: int | None = None) -> Reply:
        """Carry out one mutation; orders from index ``busy_from`` on fail with a masked error.

        Raises RestError if the options say that a refusal is an HTTP 400.
        """
        refusal = self._whole_refusal(inputs)
        if refusal:
            return self._refuse_all(refusal)
        if busy_from is None and is_plain(self.options):
            return self._run_plain(inputs, moment)
        if self._is_atomic(inputs, busy_from):
            return self._run_atomic(inputs, moment)
        judgements = [self._judge_and_write(index, given, moment, busy_from) for index, given in enumerate(inputs)]
        return self._reply(judgements)

    def _run_plain(self, inputs: Sequence[Input], moment: Moment) -> Reply:
        """The same as below where no option can refuse or change a value: under load this is what costs."""
        entries: list[Entry] = []
        for index, given in enumerate(inputs):
            order_id = given.get("id") if given else None
            if given is None or order_id is None or order_id < 1:
                entries.append(GraphQLError(INVALID.format(index=index)))
                continue
            after = self._changed(self.orders.get(order_id), given)
            self.orders.write(order_id, after, sent=_sent(given), moment=moment)
            entries.append(view(order_id, after, numeric_strings=self.options.numeric_strings))
        return Reply(self._shuffled(entries))

    def _changed(self, before: Values, given: Mapping[str, Any]) -> Values:
        status, carrier, method, tracking = before
        sent_status = given.get("status")
        return Values(
            status if sent_status is None else sent_status,
            one_copy(given.get("shipping_carrier", carrier)),
            one_copy(given.get("shipping_method", method)),
            one_copy(given.get("shipping_tracking", tracking)),
        )

    def _whole_refusal(self, inputs: Sequence[Input]) -> str | None:
        options = self.options
        if not inputs and options.empty_list == "refuse":
            return "No orders specified"
        if options.max_batch and len(inputs) > options.max_batch:
            return f"Too many orders specified, at most {options.max_batch} are allowed"
        return None

    def _refuse_all(self, text: str) -> Reply:
        match self.options.refusal:
            case "http_400":
                raise RestError(400, text)
            case "path":
                raise GraphQLError(text)
            case "no_path":
                return Reply(None, (text,))

    def _is_atomic(self, inputs: Sequence[Input], busy_from: int | None) -> bool:
        if busy_from is not None and busy_from < len(inputs):
            return False
        return self.options.batch == "atomic" or self.options.refusal == "http_400"

    def _run_atomic(self, inputs: Sequence[Input], moment: Moment) -> Reply:
        judgements = [self._judge(index, given) for index, given in enumerate(inputs)]
        texts = [judgement.text for judgement in judgements if isinstance(judgement, Refused)]
        if not texts:
            return self._reply([self._judge_and_write(index, given, moment) for index, given in enumerate(inputs)])
        if self.options.refusal != "path":
            return self._refuse_all(texts[0])
        return Reply([GraphQLError(item.text) if isinstance(item, Refused) else None for item in judgements])

    def _judge_and_write(self, index: int, given: Input, moment: Moment, busy_from: int | None = None) -> Judgement:
        """One order after the other, so that the second of two entries of one order builds on the first."""
        if busy_from is not None and index >= busy_from:
            return Refused(MASKED)
        judgement = self._judge(index, given)
        if isinstance(judgement, Accepted):
            self.orders.write(judgement.order_id, judgement.values, sent=judgement.sent, moment=moment)
        return judgement

    def _judge(self, index: int, given: Input) -> Judgement:
        order_id = given.get("id") if given else None
        if given is None or order_id is None:
            return Refused(INVALID.format(index=index))
        if not self.is_known(order_id):
            return unknown(index, self.options)
        if self._is_busy(order_id):
            return Refused(self.options.busy_text)
        change = {name: value for name, value in given.items() if name != "id"}
        return judge(order_id, self.orders.get(order_id), change, self.options)

    def is_known(self, order_id: int) -> bool:
        """Whether the order exists and the client may see it."""
        if order_id < 1 or order_id in self.options.inaccessible_orders:
            return False
        return self.options.auto_create or order_id in self.orders

    def _is_busy(self, order_id: int) -> bool:
        times = self.options.busy_orders.get(order_id, 0)
        if not times or 0 < times <= self.busy_given[order_id]:
            return False
        self.busy_given[order_id] += 1
        return True

    def _reply(self, judgements: Sequence[Judgement]) -> Reply:
        kept = [item for item in judgements if not (isinstance(item, Absent) and item.omitted)]
        entries = [self._entry(item) for item in kept]
        loose: tuple[str, ...] = ()
        if self.options.refusal == "no_path":
            loose = tuple(item.text for item in kept if isinstance(item, Refused))
        return Reply(self._shuffled(entries), loose)

    def _entry(self, judgement: Judgement) -> Entry:
        match judgement:
            case Accepted(order_id=order_id, values=values):
                return self._view(order_id, values)
            case Refused(text=text):
                return GraphQLError(text) if self.options.refusal != "no_path" else None
            case Absent():
                return None

    def _view(self, order_id: int, values: Values) -> dict[str, Any]:
        return view(order_id, values, numeric_strings=self.options.numeric_strings)

    def _shuffled(self, entries: list[Entry]) -> list[Entry]:
        """``answered`` leaves errors and nulls at the index of their input, so that an error path can be understood."""
        match self.options.shuffle_replies:
            case "off":
                return entries
            case "all":
                return self.chance.sample(entries, len(entries))
            case "answered":
                answered = [entry for entry in entries if isinstance(entry, dict)]
                self.chance.shuffle(answered)
                return [answered.pop() if isinstance(entry, dict) else entry for entry in entries]


def _sent(given: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in given if name != "id")
