"""GraphQL documents: parsed and validated once per text, because a worker sends the same one for ever."""

from functools import lru_cache

from graphql import DocumentNode, GraphQLError, parse, validate

from worker.simulator.schema import SCHEMA

KEPT_DOCUMENTS = 512
MAX_TOKENS = 200_000  # a document with 1,000 orders as literals has about 12,000


@lru_cache(maxsize=KEPT_DOCUMENTS)
def read_document(text: str) -> DocumentNode | tuple[GraphQLError, ...]:
    """The document, or what is wrong with it."""
    try:
        document = parse(text, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        return (error,)
    return tuple(validate(SCHEMA, document)) or document
