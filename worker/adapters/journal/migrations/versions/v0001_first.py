"""The first tables: orders, history, index of dead letters, pauses, replays."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _int(name: str, *, null: bool = True) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=null)


def _text(name: str, *, null: bool = True) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=null)


def _texts(*names: str) -> list["sa.Column[str]"]:
    return [_text(name, null=False) for name in names]


def _key(name: str, kind: Any, *, serial: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, kind, primary_key=True, autoincrement=serial)


def _partial(name: str, table: str, column: str) -> None:
    only = sa.text(f"{column} IS NOT NULL")
    op.create_index(name, table, [column], sqlite_where=only, postgresql_where=only)


def upgrade() -> None:
    """Make them all."""
    _orders()
    _history()
    _letters()
    _replays()
    op.create_table("horizon", _key("only", sa.Integer()), _int("before_us", null=False))


def _orders() -> None:
    op.create_table(
        "orders",
        _key("order_id", sa.BigInteger()),
        _text("applied", null=False),
        _int("newest_us"),
        _int("revision", null=False),
        _text("claimed_by"),
        _int("claim_expires_us"),
        _text("prior_by"),
        _int("prior_expires_us"),
        _int("echo_us"),
        _int("touched_us", null=False),
    )
    _partial("orders_echo", "orders", "echo_us")
    _partial("orders_claim", "orders", "claim_expires_us")
    op.create_index("orders_touched", "orders", ["touched_us"])


def _serial() -> Any:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _history() -> None:
    op.create_table(
        "history",
        _key("row_id", _serial(), serial=True),
        _int("order_id"),
        _int("at_us", null=False),
        *_texts("disposition", "reason", "message_id"),
        _text("event_id"),
        _text("fields", null=False),
        _text("version"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *_texts("detail", "batch_id"),
        _text("replay_id"),
        _text("worker", null=False),
        _int("status"),
        _text("status_name"),
    )
    op.create_index("history_order", "history", ["order_id", "row_id"])
    op.create_index("history_time", "history", ["at_us"])


def _letters() -> None:
    op.create_table(
        "dead_letters",
        _key("seq", _serial(), serial=True),
        *_texts("copy_id", "queue", "state"),
        _int("state_us"),
        *_texts("reason", "detail"),
        _int("order_id"),
        _text("message_id", null=False),
        _text("event_id"),
        _text("fields", null=False),
        _text("version"),
        _int("failed_us", null=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *_texts("exchange", "routing_key", "batch_id"),
        _text("replay_id"),
        _text("worker", null=False),
    )
    op.create_index("dead_letters_copy", "dead_letters", ["copy_id"], unique=True)
    op.create_index("dead_letters_page", "dead_letters", ["queue", "state", "seq"])
    op.create_index("dead_letters_order", "dead_letters", ["order_id"])
    op.create_index("dead_letters_message", "dead_letters", ["message_id"])
    _partial("dead_letters_gone", "dead_letters", "state_us")


def _replays() -> None:
    op.create_table(
        "pauses",
        *_texts("queue", "kind", "detail", "by"),
        _int("since_us", null=False),
        sa.PrimaryKeyConstraint("queue", "kind"),
    )
    op.create_table(
        "replays",
        _key("replay_id", sa.Text()),
        *_texts("queue", "author", "options", "state"),
        _int("created_us", null=False),
        _int("changed_us", null=False),
    )
    op.create_table(
        "replay_items",
        _text("replay_id", null=False),
        _int("place", null=False),
        *_texts("copy_id", "state", "detail"),
        sa.PrimaryKeyConstraint("replay_id", "place"),
    )
