"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

METRICS = ("symbolic_correct", "judge_correct", "both_correct", "any_correct", "no_answer", "avg_tokens")
COUNTS = ("generated", "failed", "truncated", "ungraded", "undecided", "unjudged", "unparsable")


def upgrade() -> None:
    op.create_table(
        "evalcore_checkpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("step", sa.BigInteger()),
        sa.Column("path", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_evalcore_checkpoints"),
        sa.UniqueConstraint("run", "name", "digest", name="uq_evalcore_checkpoints_run_name_digest"),
    )
    op.create_index("ix_evalcore_checkpoints_run_step", "evalcore_checkpoints", ["run", "step"])
    op.create_table(
        "evalcore_fingerprints",
        sa.Column("fingerprint", sa.String(12), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_evalcore_fingerprints"),
    )
    op.create_table(
        "evalcore_problems",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_evalcore_problems"),
    )
    op.create_table(
        "evalcore_evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(12), nullable=False),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("folder", "benchmark", "settings", "evalcore")
        ),
        sa.Column("server", sa.JSON(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.Boolean(), nullable=False)
            for name in ("greedy", "judged", "needs_judge", "complete")
        ),
        sa.Column("evaluated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("scorecard", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evalcore_evaluations"),
        _refers("evaluations", ["checkpoint_id"], "checkpoints", ["id"]),
        _refers("evaluations", ["fingerprint"], "fingerprints", ["fingerprint"]),
        sa.UniqueConstraint(
            "checkpoint_id",
            "fingerprint",
            "folder",
            name="uq_evalcore_evaluations_checkpoint_id_fingerprint_folder",
        ),
    )
    op.create_index("ix_evalcore_evaluations_fingerprint", "evalcore_evaluations", ["fingerprint"])
    op.create_table(
        "evalcore_verdicts",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("problems", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", name="pk_evalcore_verdicts"),
        _refers("verdicts", ["evaluation_id"], "evaluations", ["id"], ondelete="CASCADE"),
        _refers("verdicts", ["problems"], "problems", ["digest"]),
    )
    op.create_table(
        "evalcore_subsets",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("expected", sa.BigInteger()),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("sample_spread", sa.Float()),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name="pk_evalcore_subsets"),
        _refers("subsets", ["evaluation_id"], "evaluations", ["id"], ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evalcore_modes",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("subset", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("evaluation_mode", sa.Text(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("num_entries", sa.Integer(), nullable=False),
        *(
            sa.Column(f"{metric}{part}", sa.Integer() if part == "_entries" else sa.Float())
            for metric in METRICS
            for part in ("", "_std_err", "_entries")
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "subset", "position", name="pk_evalcore_modes"),
        _refers(
            "modes",
            ["evaluation_id", "subset"],
            "subsets",
            ["evaluation_id", "position"],
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )


def _refers(
    table: str, columns: list[str], other: str, others: list[str], ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        columns,
        [f"evalcore_{other}.{column}" for column in others],
        name=f"fk_evalcore_{table}_{'_'.join(columns)}",
        ondelete=ondelete,
    )
