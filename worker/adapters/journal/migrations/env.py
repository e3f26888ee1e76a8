"""What Alembic runs: the migrations, on the connection and inside the transaction of whoever asked for them."""

from alembic import context

from worker.adapters.journal.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
