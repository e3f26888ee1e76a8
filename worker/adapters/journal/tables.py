"""The tables of the journal in SQL, the same on SQLite and PostgreSQL. ``migrations`` makes them; a test holds the two
together.

Times are wall clock in microseconds. What JSON holds is ASCII text (everything else escaped), because versions and
values must come back exactly: message ids may hold NUL or lone surrogates, which PostgreSQL refuses in texts.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _int(name: str, *, null: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _text(name: str, *, null: bool = True) -> Column[str]:
    return Column(name, Text, nullable=null)


def _serial(name: str) -> Column[int]:
    # Only an INTEGER primary key numbers itself on SQLite. It has 64 bits there all the same.
    kind: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")
    return Column(name, kind, primary_key=True, autoincrement=True)


def _partial(name: str, column: str, *more: str) -> Index:
    """An index of the few rows that have a value there."""
    only = text(f"{column} IS NOT NULL")
    return Index(name, column, *more, sqlite_where=only, postgresql_where=only)


orders = Table(
    "orders",
    metadata,
    Column("order_id", BigInteger, primary_key=True, autoincrement=False),
    # {"status": [time_us, sequence, first_seen_us, message_id, value], ...}
    _text("applied", null=False),
    _int("newest_us"),  # the greatest time among these versions
    _int("revision", null=False),
    _text("claimed_by"),
    _int("claim_expires_us"),
    # The claim before the current one, for the claimant to read: RETURNING shows the row only as it is afterwards.
    _text("prior_by"),
    _int("prior_expires_us"),
    _int("echo_us"),
    _int("touched_us", null=False),  # the end of the day (UTC) of the last record: it changes once a day, and its index
    _partial("orders_echo", "echo_us"),
    Index("orders_touched", "touched_us"),
)


history = Table(
    "history",
    metadata,
    _serial("row_id"),
    _int("order_id"),
    _int("at_us", null=False),
    _text("disposition", null=False),
    _text("reason", null=False),
    _text("message_id", null=False),
    _text("event_id"),
    _text("fields", null=False),
    _text("version"),
    Column("attempt", Integer, nullable=False),
    _text("detail", null=False),
    _text("batch_id", null=False),
    _text("replay_id"),
    _int("replay_place"),
    _text("worker", null=False),
    _int("status"),
    _text("status_name"),
    Index("history_order", "order_id", "row_id"),
    _partial("history_replay", "replay_id", "replay_place"),
)

# Where SQLite puts history (``packs.py``); PostgreSQL has no use for these three.
history_packs = Table(
    "history_packs",
    metadata,
    _serial("first_row"),
    _int("rows", null=False),
    _int("at_us", null=False),
    _text("body", null=False),
)

history_found = Table(
    "history_found",
    metadata,
    _int("order_id", null=False),
    _int("first_row", null=False),
    PrimaryKeyConstraint("order_id", "first_row"),
    sqlite_with_rowid=False,
)

# The orders of packs that are not in ``history_found`` yet: a JSON list.
history_unsorted = Table("history_unsorted", metadata, _int("first_row", null=False), _text("orders", null=False))

letters = Table(
    "dead_letters",
    metadata,
    _serial("seq"),
    _text("copy_id", null=False),
    _text("queue", null=False),
    _text("state", null=False),
    _int("state_us"),
    _text("reason", null=False),
    _text("detail", null=False),
    _int("order_id"),
    _text("message_id", null=False),
    _text("event_id"),
    _text("fields", null=False),
    _text("version"),
    _int("failed_us", null=False),
    _int("seen_us"),  # when somebody who looked into the queue saw it there
    Column("attempt", Integer, nullable=False),
    _text("exchange", null=False),
    _text("routing_key", null=False),
    _text("batch_id", null=False),
    _text("replay_id"),
    _text("worker", null=False),
    Index("dead_letters_copy", "copy_id", unique=True),
    Index("dead_letters_page", "queue", "state", "seq"),
    Index("dead_letters_order", "order_id"),
    Index("dead_letters_message", "message_id"),
    _partial("dead_letters_gone", "state_us"),
)

pauses = Table(
    "pauses",
    metadata,
    _text("queue", null=False),
    _text("kind", null=False),
    _text("detail", null=False),
    _text("by", null=False),
    _int("since_us", null=False),
    PrimaryKeyConstraint("queue", "kind"),
)

replays = Table(
    "replays",
    metadata,
    Column("replay_id", Text, primary_key=True),
    _text("queue", null=False),
    _text("author", null=False),
    _text("options", null=False),
    _text("state", null=False),
    _int("created_us", null=False),
    _int("changed_us", null=False),
)

replay_items = Table(
    "replay_items",
    metadata,
    _text("replay_id", null=False),
    _int("place", null=False),
    _text("copy_id", null=False),
    _text("state", null=False),
    _text("detail", null=False),
    PrimaryKeyConstraint("replay_id", "place"),
    Index("replay_items_copy", "replay_id", "copy_id"),
)

holders = Table(
    "holders",
    metadata,
    Column("queue", Text, primary_key=True),
    _text("by", null=False),
    _int("since_us", null=False),
)

audit = Table(
    "audit",
    metadata,
    _serial("number"),
    _int("at_us", null=False),
    _text("by", null=False),
    _text("action", null=False),
    _text("outcome", null=False),
    _text("target", null=False),
    _text("detail", null=False),
    _int("count"),
)

# One row: what pruning forgot.
horizon = Table(
    "horizon",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    _int("before_us", null=False),
)
