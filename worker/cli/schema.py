"""``order-worker schema``: the event as producers have to write it, from the same rules that decode it."""

import json
from typing import Annotated

import typer

from worker.cli.config import start
from worker.core.decode import EventSchema
from worker.core.schema import asyncapi as asyncapi_document
from worker.core.schema import json_schema


def schema(
    *,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="Print an AsyncAPI 3 document instead.")] = False,
) -> None:
    """Print the JSON Schema (2020-12) of the event, extra fields included."""
    settings = start()
    event = settings.event
    rules = EventSchema(event.extra_fields, event.ignore_fields, event.max_clock_skew_s)
    document = asyncapi_document(rules, exchange=settings.broker.exchange) if asyncapi else json_schema(rules)
    print(json.dumps(document, indent=2))
