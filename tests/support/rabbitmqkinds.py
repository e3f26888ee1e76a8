"""The fields of the resources of RabbitMQ's operators, as far as ``k8s/`` may use them, as JSON Schema.

No package carries the custom resource definitions of the Cluster Operator and the Messaging Topology Operator, so this
is an account of them in our own words, not they themselves: names and types of fields as published in ``rabbitmq.com``
v1beta1 (Cluster Operator 2, Messaging Topology Operator 1). It is stricter than they are: it has no field that we do
not need, and unknown ones are refused. A cluster with the operators has the last word, which it says to
``kubectl apply --dry-run=server``.
"""

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NAME: Final[Schema] = {"type": "string", "minLength": 1}
FLAG: Final[Schema] = {"type": "boolean"}


def _object(required: str = "", **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_CLUSTER: Final = {"rabbitmqClusterReference": _object("name", name=NAME, namespace=NAME)}
_ARGUMENTS: Final[Schema] = {"type": "object"}
_QUANTITIES: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+(m|[KMGT]i?)?$"},
}

_SPECS: Final[dict[str, Schema]] = {
    "Exchange": _object(
        "name rabbitmqClusterReference",
        name=NAME,
        vhost=NAME,
        type=NAME,
        durable=FLAG,
        autoDelete=FLAG,
        arguments=_ARGUMENTS,
        **_CLUSTER,
    ),
    "Queue": _object(
        "name rabbitmqClusterReference",
        name=NAME,
        vhost=NAME,
        type={"enum": ["classic", "quorum", "stream"]},
        durable=FLAG,
        autoDelete=FLAG,
        arguments=_ARGUMENTS,
        **_CLUSTER,
    ),
    "Binding": _object(
        "source destination destinationType rabbitmqClusterReference",
        vhost=NAME,
        source=NAME,
        destination=NAME,
        destinationType={"enum": ["exchange", "queue"]},
        routingKey=TEXT,
        arguments=_ARGUMENTS,
        **_CLUSTER,
    ),
    "User": _object(
        "rabbitmqClusterReference",
        tags={"type": "array", "items": {"enum": ["management", "policymaker", "monitoring", "administrator"]}},
        importCredentialsSecret=_object("name", name=NAME),
        **_CLUSTER,
    ),
    "Permission": _object(
        "vhost permissions userReference rabbitmqClusterReference",
        vhost=NAME,
        userReference=_object("name", name=NAME),
        permissions=_object("configure write read", configure=TEXT, write=TEXT, read=TEXT),
        **_CLUSTER,
    ),
    "RabbitmqCluster": _object(
        replicas={"type": "integer", "minimum": 0},
        image=NAME,
        persistence=_object(storage=NAME, storageClassName=NAME),
        resources=_object(requests=_QUANTITIES, limits=_QUANTITIES),
        affinity={"type": "object"},
        rabbitmq=_object(
            additionalPlugins={"type": "array", "items": NAME},
            additionalConfig=TEXT,
            advancedConfig=TEXT,
            envConfig=TEXT,
        ),
    ),
}

SCHEMAS: Final[dict[str, Schema]] = {
    kind: _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "rabbitmq.com/v1beta1"},
        kind={"const": kind},
        metadata={"type": "object", "required": ["name"]},
        spec=spec,
    )
    for kind, spec in _SPECS.items()
}
"""By kind."""
