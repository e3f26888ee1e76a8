"""History on SQLite as packs of rows, and what finds them; values of one event with one version."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_EVENT = (
    "order_id, at_us, disposition, reason, message_id, event_id, fields, version, attempt, detail, batch_id, replay_id,"
    " replay_place, worker, status, status_name"
)


def upgrade() -> None:
    """Make the three tables. What was not sorted in yet becomes rows like the others; rows stay where they are."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "history_packs",
        sa.Column("first_row", serial, primary_key=True, autoincrement=True),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "history_found",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "first_row"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "history_unsorted",
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("orders", sa.Text(), nullable=False),
    )
    order = "ORDER BY rowid" if op.get_bind().dialect.name == "sqlite" else ""  # PostgreSQL has never had any
    op.execute(f"INSERT INTO history ({_EVENT}) SELECT {_EVENT} FROM history_new {order}")  # noqa: S608
    op.drop_table("history_new")
