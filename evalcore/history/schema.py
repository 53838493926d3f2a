"""The tables. A change here needs a migration in ``migrations/versions``; a test compares the two.

An evaluation is one summary of a benchmark folder. What many of them share is kept once: checkpoints, what a
fingerprint stands for, and the problems with their clusters, to which ``evalcore_verdicts`` has the packed counts. A
table's line is a row (``evalcore_modes``), for SQL of your own: value, ``_std_err`` and ``_entries`` of each metric,
NULL where it is unknown.

An alarm is a suspicion that a checkpoint got worse, and what became of it; a promotion makes an evaluation the
baseline of its lineage.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from evalcore.summarize import Counts
from evalcore.tally import COLUMNS

REVISION = "0004"
"""The newest migration: a database that has it needs none, and Alembic is not even imported."""

METRICS = (*COLUMNS, "no_answer", "avg_tokens")
COUNTS = tuple(Counts.model_fields)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

version = Table("evalcore_version", METADATA, Column("version_num", String(32), primary_key=True))

checkpoints = Table(
    "evalcore_checkpoints",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("step", BigInteger),
    Column("path", Text),
    UniqueConstraint("run", "name", "digest"),
    Index(None, "run", "step"),
)

fingerprints = Table(
    "evalcore_fingerprints",
    METADATA,
    Column("fingerprint", String(12), primary_key=True),
    Column("parts", JSON, nullable=False),
)

problems = Table(
    "evalcore_problems",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

evaluations = Table(
    "evalcore_evaluations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("checkpoint_id", ForeignKey(checkpoints.c.id), nullable=False),
    Column("fingerprint", ForeignKey(fingerprints.c.fingerprint), nullable=False),
    Column("folder", Text, nullable=False),
    Column("benchmark", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("evalcore", Text, nullable=False),
    Column("server", JSON, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("greedy", Boolean, nullable=False),
    Column("judged", Boolean, nullable=False),
    Column("needs_judge", Boolean, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("evaluated_at", DateTime(timezone=True), nullable=False),
    Column("scorecard", String(64), nullable=False),
    UniqueConstraint("checkpoint_id", "fingerprint", "folder"),
    Index(None, "fingerprint"),
)

# Apart: where evaluations are listed nobody reads through what is ten times as much.
verdicts = Table(
    "evalcore_verdicts",
    METADATA,
    Column("evaluation_id", ForeignKey(evaluations.c.id, ondelete="CASCADE"), primary_key=True),
    Column("problems", ForeignKey(problems.c.digest), nullable=False),
    Column("content", LargeBinary, nullable=False),
)

subsets = Table(
    "evalcore_subsets",
    METADATA,
    Column("evaluation_id", ForeignKey(evaluations.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),  # 0: the whole benchmark
    Column("name", Text, nullable=False),
    *(Column(name, BigInteger, nullable=name == "expected") for name in COUNTS),
    Column("sample_spread", Float),
    sqlite_with_rowid=False,
)

modes = Table(
    "evalcore_modes",
    METADATA,
    Column("evaluation_id", Integer, primary_key=True, autoincrement=False),
    Column("subset", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("evaluation_mode", Text, nullable=False),
    Column("k", Integer, nullable=False),
    Column("num_entries", Integer, nullable=False),
    *(
        Column(f"{metric}{part}", Integer if part == "_entries" else Float)
        for metric in METRICS
        for part in ("", "_std_err", "_entries")
    ),
    ForeignKeyConstraint(
        ["evaluation_id", "subset"], [subsets.c.evaluation_id, subsets.c.position], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)

alarms = Table(
    "evalcore_alarms",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", Text, nullable=False),
    Column("benchmark", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("baseline_id", ForeignKey(checkpoints.c.id), nullable=False),
    Column("evaluation_id", ForeignKey(evaluations.c.id), nullable=False),
    Column("base_evaluation_id", ForeignKey(evaluations.c.id), nullable=False),
    Column("margin", Float, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("confirmation_id", ForeignKey(evaluations.c.id)),
    Column("base_confirmation_id", ForeignKey(evaluations.c.id)),
    Column("raised_at", DateTime(timezone=True), nullable=False),
    Column("acknowledged_at", DateTime(timezone=True)),
    Column("acknowledged_by", Text),
    Column("note", Text, nullable=False),
    Column("raised_by", JSON(none_as_null=True)),
    Column("confirming", Text),
    UniqueConstraint("evaluation_id", "base_evaluation_id", "kind"),
    # Nobody is told twice of one baseline, whichever processes settle alarms at the same time.
    Index(
        "uq_evalcore_alarms_told",
        "run",
        "benchmark",
        "kind",
        "baseline_id",
        unique=True,
        sqlite_where=text("state IN ('confirmed', 'acknowledged')"),
        postgresql_where=text("state IN ('confirmed', 'acknowledged')"),
    ),
)

deliveries = Table(
    "evalcore_deliveries",
    METADATA,
    Column("alarm_id", ForeignKey(alarms.c.id, ondelete="CASCADE"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("delivered_at", DateTime(timezone=True), nullable=False),
)

promotions = Table(
    "evalcore_promotions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run", Text, nullable=False),
    Column("benchmark", Text, nullable=False),
    Column("evaluation_id", ForeignKey(evaluations.c.id), nullable=False),
    Column("promoted_at", DateTime(timezone=True), nullable=False),
    Column("promoted_by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Index(None, "run", "benchmark"),
)
