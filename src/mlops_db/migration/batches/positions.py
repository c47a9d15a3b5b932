"""`mlops_internal.batch_positions`: how far the runs in batches are that are not finished.

A row belongs to one direction of one revision. It is written in the transaction of each batch, and deleted in the one
that moves alembic_version.
"""

from __future__ import annotations

POSITIONS_TABLE = "mlops_internal.batch_positions"
CREATE = f"""
CREATE SCHEMA IF NOT EXISTS mlops_internal;
CREATE TABLE IF NOT EXISTS {POSITIONS_TABLE} (
    revision text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('upgrade', 'downgrade')),
    statement text NOT NULL,
    source oid NOT NULL,
    target oid NOT NULL,
    before_first bigint NOT NULL,
    position bigint NOT NULL,
    last bigint NOT NULL,
    changed_rows bigint NOT NULL DEFAULT 0,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (revision, direction)
);
COMMENT ON TABLE {POSITIONS_TABLE} IS
    'How far revisions are that change rows in batches; a row goes when its revision is done.';
"""
ARE_THERE = f"to_regclass('{POSITIONS_TABLE}') IS NOT NULL"
# For a stamp, the revision is NULL: it says that the database is at that revision, and so no run is half done.
FORGET = f"""
    DELETE FROM {POSITIONS_TABLE} WHERE revision = %(revision)s OR %(revision)s IS NULL;
    DO $drop$ BEGIN
        IF NOT EXISTS (SELECT FROM {POSITIONS_TABLE}) THEN DROP TABLE {POSITIONS_TABLE}; END IF;
    END $drop$
"""
