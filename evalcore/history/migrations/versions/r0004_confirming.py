"""Which run of confirm_regression looks at an alarm, so that one that failed is noticed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("evalcore_alarms", sa.Column("confirming", sa.Text()))
