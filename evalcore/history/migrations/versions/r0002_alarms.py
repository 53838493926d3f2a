"""Alarms, to whom they were told, and promoted baselines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "evalcore_alarms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("benchmark", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("baseline_id", "evaluation_id", "base_evaluation_id")
        ),
        sa.Column("margin", sa.Float(), nullable=False),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("confirmation_id", sa.Integer()),
        sa.Column("base_confirmation_id", sa.Integer()),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.Text()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evalcore_alarms"),
        _refers("alarms", "baseline_id", "checkpoints"),
        *(
            _refers("alarms", name, "evaluations")
            for name in ("evaluation_id", "base_evaluation_id", "confirmation_id", "base_confirmation_id")
        ),
        sa.UniqueConstraint(
            "evaluation_id",
            "base_evaluation_id",
            "kind",
            name="uq_evalcore_alarms_evaluation_id_base_evaluation_id_kind",
        ),
    )
    told = sa.text("state IN ('confirmed', 'acknowledged')")
    op.create_index(
        "uq_evalcore_alarms_told",
        "evalcore_alarms",
        ["run", "benchmark", "kind", "baseline_id"],
        unique=True,
        sqlite_where=told,
        postgresql_where=told,
    )
    op.create_table(
        "evalcore_deliveries",
        sa.Column("alarm_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("alarm_id", "channel", name="pk_evalcore_deliveries"),
        _refers("deliveries", "alarm_id", "alarms", ondelete="CASCADE"),
    )
    op.create_table(
        "evalcore_promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("benchmark", sa.Text(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("promoted_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evalcore_promotions"),
        _refers("promotions", "evaluation_id", "evaluations"),
    )
    op.create_index("ix_evalcore_promotions_run_benchmark", "evalcore_promotions", ["run", "benchmark"])


def _refers(table: str, column: str, other: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"evalcore_{other}.id"], name=f"fk_evalcore_{table}_{column}", ondelete=ondelete
    )
