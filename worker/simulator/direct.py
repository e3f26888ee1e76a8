"""The one mutation that every worker sends, carried out without graphql-core: for load, where its field by field work
would cost more than everything else together (30 us for each order; this takes a tenth).

Nothing is decided here. A call goes this way only if its document is ``mutation($x: [OrderInput]) { core {
updateOrders(orders: $x) { plain fields } } }``, valid by the schema, and its variables are exactly what the schema
takes; everything else, above all whatever is wrong, is left to graphql-core. The resolver is the same, so are the
waits, faults and judgements, and a test holds the answers of both ways together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from aiohttp import web
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    located_error,
    print_ast,
)
from msgspec import UNSET, Meta, UnsetType

from worker.simulator.documents import KEPT_DOCUMENTS, read_document
from worker.simulator.orders import Values, view
from worker.simulator.replies import json_reply
from worker.simulator.schema import MAX_ID, Resolvers

_LIST_TYPES = ("[OrderInput]", "[OrderInput]!")
_PATH = ("core", "updateOrders")
_PLAIN = frozenset(view(1, Values()))

_Text = str | UnsetType | None


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    """``OrderInput`` of the schema, its fields in the same order; a field that is not given stays out."""

    id: Annotated[int, Meta(ge=-MAX_ID, le=MAX_ID)] | UnsetType | None = UNSET
    status: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | UnsetType | None = UNSET
    shipping_carrier: _Text = UNSET
    shipping_method: _Text = UNSET
    shipping_tracking: _Text = UNSET


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    variables: dict[str, list[_Order | None]]
    operationName: UnsetType | None = UNSET


_REQUEST = msgspec.json.Decoder(_Request)


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """What of a document matters: the variable with the orders, the fields to answer, and where an error points to."""

    variable: str
    fields: tuple[str, ...]
    node: FieldNode


@dataclass(slots=True, frozen=True, kw_only=True)
class DirectCall:
    """A call that can be carried out directly."""

    plan: Plan
    orders: Sequence[Mapping[str, Any] | None]

    async def answer(self, resolvers: Resolvers, loose_errors: Sequence[str]) -> web.Response:
        """Carry it out. ``loose_errors`` is read afterwards: errors without a path, which the resolver adds to."""
        errors: list[Mapping[str, Any]] = []
        shown: list[dict[str, Any] | None] | None = None
        try:
            entries = await resolvers.update_orders(self.orders)
        except GraphQLError as error:
            errors.append(self._located(error))
        else:
            shown = None if entries is None else self._shown(entries, errors)
        errors += [{"message": text} for text in loose_errors]
        data = {"core": {"updateOrders": shown}}
        return _response({"errors": errors, "data": data} if errors else {"data": data})

    def _shown(
        self, entries: Sequence[dict[str, Any] | GraphQLError | None], errors: list[Mapping[str, Any]]
    ) -> list[dict[str, Any] | None]:
        fields = self.plan.fields
        result: list[dict[str, Any] | None] = []
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                result.append({name: entry[name] for name in fields})
                continue
            if entry is not None:
                errors.append(self._located(entry, index))
            result.append(None)
        return result

    def _located(self, error: GraphQLError, *index: int) -> Mapping[str, Any]:
        return located_error(error, [self.plan.node], [*_PATH, *index]).formatted


def read_direct(body: bytes) -> DirectCall | None:
    """The call that this body asks for; None where graphql-core has to look at it."""
    try:
        request = _REQUEST.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    plan = plan_of(request.query)
    if plan is None or list(request.variables) != [plan.variable]:
        return None
    return DirectCall(plan=plan, orders=msgspec.to_builtins(request.variables[plan.variable]))


@lru_cache(maxsize=KEPT_DOCUMENTS)
def plan_of(text: str) -> Plan | None:
    """How to carry this document out directly, if it has the one form for which that is known."""
    document = read_document(text)
    if not isinstance(document, DocumentNode) or len(document.definitions) != 1:
        return None
    operation = document.definitions[0]
    if not isinstance(operation, OperationDefinitionNode) or operation.operation is not OperationType.MUTATION:
        return None
    variable = _orders_variable(operation)
    core = _only_field(operation.selection_set, "core")
    update = None if core is None else _only_field(core.selection_set, "updateOrders")
    if variable is None or operation.directives or update is None or len(update.arguments or ()) != 1:
        return None
    value = (update.arguments or ())[0].value
    fields = _plain_fields(update.selection_set)
    if not isinstance(value, VariableNode) or value.name.value != variable or not fields:
        return None
    return Plan(variable=variable, fields=fields, node=update)


def _orders_variable(operation: OperationDefinitionNode) -> str | None:
    definitions = operation.variable_definitions or ()
    if len(definitions) != 1:
        return None
    definition = definitions[0]
    if definition.directives or print_ast(definition.type) not in _LIST_TYPES:
        return None
    return definition.variable.name.value


def _only_field(selections: SelectionSetNode | None, name: str) -> FieldNode | None:
    if selections is None or len(selections.selections) != 1:
        return None
    node = selections.selections[0]
    if not isinstance(node, FieldNode) or node.name.value != name or node.alias or node.directives:
        return None
    return node


def _plain_fields(selections: SelectionSetNode | None) -> tuple[str, ...]:
    """The names selected, each once; nothing where one of them is more than a field that every entry has."""
    names: dict[str, None] = {}
    for node in () if selections is None else selections.selections:
        if not isinstance(node, FieldNode) or node.alias or node.directives or node.name.value not in _PLAIN:
            return ()
        names[node.name.value] = None
    return tuple(names)


def _response(payload: Mapping[str, Any]) -> web.Response:
    try:
        body = msgspec.json.encode(payload)
    except UnicodeEncodeError:  # half a surrogate pair, which JSON texts may name and Python's json passes on
        return json_reply(payload)
    return web.Response(body=body, content_type="application/json", charset="utf-8")
