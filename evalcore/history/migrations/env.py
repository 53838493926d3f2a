"""Alembic's entry point: migrates the connection that ``database.migrate`` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from evalcore.history import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.METADATA,
    version_table=schema.version.name,
    version_table_pk=True,
    # The database may have others' tables, too.
    include_name=lambda name, kind, _: kind != "table" or name in schema.METADATA.tables,
)
context.run_migrations()
