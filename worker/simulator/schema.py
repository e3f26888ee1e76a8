"""The GraphQL schema: everything hangs off ``core``, mutations in camelCase, fields in snake_case, as documented.

Names of the documented fields are the platform's; which other fields an order has is taken from its other interfaces
(callback and push), and all types are read off samples. What is assumed is listed in ``behaviours.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
)

from worker.simulator.orders import order_ref

Info = GraphQLResolveInfo[Any]
MAX_ID = 2**63 - 1


class Resolvers(Protocol):
    """What the schema asks of the call that it is executed for (the ``context`` of graphql-core)."""

    async def update_orders(self, orders: Sequence[Mapping[str, Any] | None]) -> Any:
        """The value of ``core.updateOrders``; raises GraphQLError for a refusal."""
        ...

    async def find_orders(self, wanted: Mapping[str, Any], *, page: int, count: int) -> Any:
        """The value of ``core.orders``; raises GraphQLError for a filter that cannot be used."""
        ...


def _int64(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -MAX_ID <= value <= MAX_ID:
        raise GraphQLError(f"Int64 cannot represent value: {str(value)[:40]}")
    return value


def _status_out(value: Any) -> Any:
    """Pass an integer through, and a string too: the option ``numeric_strings`` is the point of it."""
    return value


# GraphQL's Int ends at 32 bits and item ids of 14 digits were seen; which scalar the platform uses is not known.
INT64 = GraphQLScalarType(
    "Int64", serialize=_status_out, parse_value=_int64, description="Whole number, up to 64 bits."
)
JSON = GraphQLScalarType("Json", description="Any JSON value.")
# Only coerced on the way out, so a string (numeric_strings) survives; on the way in ``status`` is GraphQL's own Int.
STATUS_CODE = GraphQLScalarType(
    "StatusCode", serialize=_status_out, description="Order status, an open set of integers."
)


def resolve_key(source: Any, info: Info, **_: Any) -> Any:
    """Resolve a field by its name in a dict; graphql-core's own default resolver costs twice as much per field."""
    return source[info.field_name]


def _ref(source: Mapping[str, Any], _info: Info) -> str:
    return order_ref(int(source["id"]))


def _external_ref(source: Mapping[str, Any], _info: Info) -> str:
    return f"SIM-{source['id']}"


def _has_been_completed(source: Mapping[str, Any], _info: Info) -> bool:
    return int(source["status"]) in (8, 64, 128, 516)


def _constant(value: Any) -> Any:
    return lambda _source, _info: value


ORDER = GraphQLObjectType(
    "Order",
    {
        "id": GraphQLField(INT64),
        "ref": GraphQLField(GraphQLString, resolve=_ref),
        "external_ref": GraphQLField(GraphQLString, resolve=_external_ref),
        "status": GraphQLField(STATUS_CODE),
        "status_name": GraphQLField(GraphQLString),
        "shipping_carrier": GraphQLField(GraphQLString),
        "shipping_method": GraphQLField(GraphQLString),
        "shipping_tracking": GraphQLField(GraphQLString),
        "shipping_price": GraphQLField(GraphQLFloat, resolve=_constant(0)),
        "required_dispatch_date": GraphQLField(GraphQLString, resolve=_constant("0000-00-00")),
        "has_been_completed": GraphQLField(GraphQLBoolean, resolve=_has_been_completed),
        "has_error": GraphQLField(GraphQLBoolean, resolve=_constant(False)),
        "is_urgent": GraphQLField(GraphQLBoolean, resolve=_constant(False)),
    },
)

ORDER_INPUT = GraphQLInputObjectType(
    "OrderInput",
    {
        "id": GraphQLInputField(INT64),
        "status": GraphQLInputField(GraphQLInt),
        "shipping_carrier": GraphQLInputField(GraphQLString),
        "shipping_method": GraphQLInputField(GraphQLString),
        "shipping_tracking": GraphQLInputField(GraphQLString),
    },
)

PAGES = GraphQLObjectType("Pages", {"pageCount": GraphQLField(GraphQLInt), "current": GraphQLField(GraphQLInt)})
ORDER_LIST = GraphQLObjectType("OrderList", {"pages": GraphQLField(PAGES), "items": GraphQLField(GraphQLList(ORDER))})


async def _update_orders(_core: Any, info: Info, orders: Sequence[Any] | None = None) -> Any:
    resolvers: Resolvers = info.context
    return await resolvers.update_orders(orders or ())


async def _find_orders(_core: Any, info: Info, **arguments: Any) -> Any:
    resolvers: Resolvers = info.context
    wanted = arguments.get("filter") or {}
    return await resolvers.find_orders(wanted, page=arguments["page"] or 1, count=arguments["count"] or 100)


CORE_MUTATION = GraphQLObjectType(
    "CoreMutation",
    {
        "updateOrders": GraphQLField(
            GraphQLList(ORDER), {"orders": GraphQLArgument(GraphQLList(ORDER_INPUT))}, resolve=_update_orders
        )
    },
)
CORE_QUERY = GraphQLObjectType(
    "CoreQuery",
    {
        "orders": GraphQLField(
            ORDER_LIST,
            {
                "filter": GraphQLArgument(JSON),
                "page": GraphQLArgument(GraphQLInt, default_value=1),
                "count": GraphQLArgument(GraphQLInt, default_value=100),
            },
            resolve=_find_orders,
        )
    },
)
SCHEMA = GraphQLSchema(
    query=GraphQLObjectType("Query", {"core": GraphQLField(CORE_QUERY, resolve=_constant({}))}),
    mutation=GraphQLObjectType("Mutation", {"core": GraphQLField(CORE_MUTATION, resolve=_constant({}))}),
)
