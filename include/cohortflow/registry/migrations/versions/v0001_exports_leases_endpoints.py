"""Exports, leases and what servers said on when to ask again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision: str | None = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "cohortflow_export",
        sa.Column("id", sa.String(32), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("zone", "folder")),
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("base", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("since", "conn_id", "server", "client_id")),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("group_digest", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("interval_start", _MOMENT, nullable=False),
        sa.Column("interval_end", _MOMENT, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("transaction_time", sa.Text, nullable=False),
        sa.Column("kicked_off_at", _MOMENT),
        sa.Column("updated_at", _MOMENT, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("study", "run_id")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("resources", "bytes")),
    )
    op.create_index("cohortflow_export_chain", "cohortflow_export", ["chain", "phase"])
    op.create_index("cohortflow_export_subject", "cohortflow_export", ["subject", "kicked_off_at"])
    op.create_table(
        "cohortflow_lease",
        sa.Column("subject", sa.String(32), primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("group_digest", sa.String(16), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("export", sa.String(32), nullable=False),
        sa.Column("parked", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("study", "run_id")),
        sa.Column("machine", sa.String(32), nullable=False),
        sa.Column("process", sa.Integer, nullable=False),
        *(sa.Column(name, _MOMENT, nullable=False) for name in ("acquired_at", "renewed_at", "expires_at")),
    )
    op.create_table(
        "cohortflow_endpoint",
        sa.Column("subject", sa.String(32), primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("group_digest", sa.String(16), nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("noted_at", _MOMENT, nullable=False),
    )


def downgrade() -> None:
    """Remove the tables."""
    for name in ("cohortflow_endpoint", "cohortflow_lease", "cohortflow_export"):
        op.drop_table(name)
