"""Indexes that every batch had to pay for and that others can do without; where SQLite puts history at first."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXTS = ("disposition", "reason", "message_id", "fields", "detail", "batch_id", "worker")


def upgrade() -> None:
    """Drop what finds claims, and what sorts history by time; make the table of what is not sorted in yet."""
    op.drop_index("orders_claim", "orders")
    op.drop_index("history_time", "history")
    op.create_table(
        "history_new",
        *(sa.Column(name, sa.BigInteger()) for name in ("order_id", "replay_place", "status")),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        *(sa.Column(name, sa.Text()) for name in ("event_id", "version", "replay_id", "status_name")),
    )
