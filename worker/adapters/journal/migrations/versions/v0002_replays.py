"""What safe replay needs: the place of a history row in its replay, when a letter was seen, who holds a queue."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. Rows that are there already belong to no replay and were seen by nobody."""
    op.add_column("history", sa.Column("replay_place", sa.BigInteger()))
    only = sa.text("replay_id IS NOT NULL")
    op.create_index(
        "history_replay", "history", ["replay_id", "replay_place"], sqlite_where=only, postgresql_where=only
    )
    op.add_column("dead_letters", sa.Column("seen_us", sa.BigInteger()))
    op.create_index("replay_items_copy", "replay_items", ["replay_id", "copy_id"])
    op.create_table(
        "holders",
        sa.Column("queue", sa.Text(), primary_key=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
    )
