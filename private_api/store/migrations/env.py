"""Alembic's entry: runs the migrations on the connection that ``Database.migrate`` holds the lock with."""

from alembic import context

from private_api.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
