"""What raised an alarm, so that one that was held can go on without it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("evalcore_alarms", sa.Column("raised_by", sa.JSON()))
