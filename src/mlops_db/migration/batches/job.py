"""The job of one step: its statement, its rows, and the SQL that a run and a script share.

The SQL runs with the search path of the revision, which has public: without a cast to the types that PostgreSQL's own
operators and functions take, one of public's would fit better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.migration.batches.positions import ARE_THERE, TABLE_IS_GONE
from mlops_db.migration.statements import dollar_quoted, literal
from mlops_db.revisions.tables import POSITIONS_TABLE
from mlops_db.server.failures import quoted

if TYPE_CHECKING:
    from mlops_db.migration.batches.statement import BatchStatement

FIRST_SIZE = 1_000  # rows
LEAST_SIZE = 100  # for a slow batch: what a transaction costs by itself does not shrink with its rows
LARGEST_CHANGE = 2  # of the size, from one batch to the next
REST = 0.2  # of the time that a batch took
LEAST_KEY = -(2**63)  # of a bigint; nothing is before it, so it cannot be after a position

# The kinds of pg_class, and the columns of its rows that this needs.
_LOOK = """
DECLARE
    job constant text := {job};
    source oid := to_regclass({table});
    target oid := to_regclass({target});
    type regtype;
    required boolean;
    faulty text;
    stored record;
    changed boolean;
BEGIN
    IF source IS NULL OR target IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = format('%s: there is no table %s', job,
                             CASE WHEN source IS NULL THEN {shown} ELSE {target} END),
            HINT = 'Name a table or a view, with its schema.';
    END IF;
    SELECT a.atttypid::regtype, a.attnotnull INTO type, required
      FROM pg_attribute AS a
     WHERE a.attrelid = source AND a.attname = {name} AND a.attnum > 0 AND NOT a.attisdropped;
    IF type IS NULL OR type NOT IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype) THEN
        RAISE datatype_mismatch USING
            MESSAGE = format('%s: %s of %s is %s, and not a column of integers', job, {name}, {shown},
                             coalesce(type::text, 'missing')),
            HINT = 'Name a column of type smallint, integer or bigint.';
    END IF;
    -- The tables with rows: the table itself, and its partitions. Others, such as those of a view, are not known here.
    WITH RECURSIVE parts (oid) AS (
        SELECT source UNION ALL SELECT i.inhrelid FROM pg_inherits AS i JOIN parts ON parts.oid = i.inhparent
    )
    SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.relname) INTO faulty
      FROM parts JOIN pg_class AS c ON c.oid = parts.oid AND c.relkind IN ('r', 'm')
     WHERE NOT EXISTS (
               SELECT FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                 JOIN pg_am ON pg_am.oid = x.relam AND pg_am.amname = 'btree'
                 JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname = {name}
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL);
    IF faulty IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('%s: no index begins with %s, so each batch would read the whole of %s',
                             job, {name}, faulty),
            HINT = 'Create one in a revision before: op.create_index_concurrently(...).';
    END IF;
    IF NOT required THEN
        EXECUTE {find_null} INTO required;
        IF required THEN
            RAISE not_null_violation USING
                MESSAGE = format('%s: %s of %s is NULL in some rows, which no batch would reach', job, {name}, {shown}),
                HINT = 'Take another column, or a view without these rows.';
        END IF;
    END IF;
    IF {are_there} THEN
        SELECT p.*, {table_is_gone} AS is_gone INTO stored FROM {positions} AS p WHERE {mine};
        changed := (stored.statement, stored.key, stored.source, stored.target)
                   <> ({statement}, {place}, {source}, {target_table})
                   OR NOT stored.columns OPERATOR(pg_catalog.<@) {columns};
        IF NOT FOUND THEN
            NULL;
        ELSIF stored.is_gone OR changed AND stored.position = stored.first THEN
            DELETE FROM {positions} AS p WHERE {mine};
        ELSIF changed THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = format('%s: its statement, key, table or a column is another one than when it began; it has'
                                 ' changed %s rows', job, stored.changed_rows),
                HINT = 'Restore it. Only if it may change these rows once more: '
                       'DELETE FROM {positions} WHERE revision = ' || quote_literal(stored.revision) || ';';
        END IF;
    END IF;
END """


@dataclass(frozen=True)
class Job:
    """A statement that a step runs in batches.

    Attributes:
        revision: the id of the step's revision.
        direction: `upgrade` or `downgrade`.
        statement: what to run.
        names: schema and name of the table whose rows are divided into batches, or only its name.
        key: its integer column.
        target_ms: how long a batch should take, in milliseconds.
    """

    revision: str
    direction: str
    statement: BatchStatement
    names: tuple[str, ...]
    key: str
    target_ms: int

    @property
    def name(self) -> str:
        """The step, for people."""
        return f"run_in_batches of revision {self.revision} ({self.direction})"

    @property
    def table(self) -> str:
        """The table, as SQL has it."""
        return ".".join(map(quoted, self.names))

    @property
    def quoted_key(self) -> str:
        """The column, as SQL has it."""
        return quoted(self.key)

    def check(self) -> str:
        """SQL that refuses a job that cannot run, or that has changed since its first batch.

        It runs in the revision's transaction.
        """
        body = _LOOK.format(
            job=literal(self.name),
            table=literal(self.table),
            shown=literal(".".join(self.names)),
            target=literal(self.statement.target),
            name=literal(self.key),
            find_null=literal(f"SELECT EXISTS (SELECT 1 FROM {self.table} WHERE {self.quoted_key} IS NULL)"),
            are_there=ARE_THERE,
            positions=POSITIONS_TABLE,
            table_is_gone=TABLE_IS_GONE,
            mine=self.mine,
            statement=literal(self.statement.text),
            place=literal(self._place),
            source=_stored_oid("source"),
            target_table=_stored_oid("target"),
            columns=self._columns("source", "target"),
        )
        return f"DO {dollar_quoted(body)};"

    @property
    def mine(self) -> str:
        """SQL condition for the job's row `p` of the positions."""
        return f"p.revision = {literal(self.revision)} AND p.direction = {literal(self.direction)}"

    def find_root(self) -> str:
        """SQL for the oid of the table, or of the root of its partitions, and for the key; no row for a view."""
        return (
            f"SELECT coalesce(pg_partition_root(c.oid::regclass)::oid, c.oid)::bigint, quote_ident({literal(self.key)})"
            " FROM pg_class AS c"
            f" WHERE c.oid = to_regclass({literal(self.table)})::oid AND c.relkind IN ('r', 'p')"
        )

    def find_keys(self) -> str:
        """SQL for the least and the greatest key."""
        return f"SELECT min({self.quoted_key}), max({self.quoted_key}) FROM {self.table}"

    def store(self, first: str, last: str) -> str:
        """SQL that stores the position before the first batch.

        Args:
            first: SQL for the position before the first row.
            last: SQL for the greatest key.
        """
        source, target = (f"to_regclass({literal(name)})::oid" for name in (self.table, self.statement.target))
        return f"""
            INSERT INTO {POSITIONS_TABLE}
                   (revision, direction, statement, key, source, target, columns, first, position, last)
            VALUES ({literal(self.revision)}, {literal(self.direction)}, {literal(self.statement.text)},
                    {literal(self._place)}, {_stored_oid(source)}, {_stored_oid(target)},
                    {self._columns(source, target)}, {first}, {first}, {last})"""

    def find_end(self, after: str, last: str, size: str) -> str:
        """SQL for the key at which a batch ends; NULL if no row is left.

        It counts rows, so gaps between keys cost nothing.
        """
        return (
            f"SELECT max(k) FROM (SELECT {self.quoted_key} AS k FROM {self.table}"
            f" WHERE {self.quoted_key} > {after} AND {self.quoted_key} <= {last}"
            f" ORDER BY {self.quoted_key} LIMIT {size}) AS batch"
        )

    def move(self, after: str, upto: str, changed: str) -> str:
        """SQL that moves the position from one key to another; it changes no row if somebody else has moved it."""
        return (
            f"UPDATE {POSITIONS_TABLE} AS p SET position = {upto}, changed_rows = p.changed_rows + {changed},"
            f" moved_at = clock_timestamp() WHERE {self.mine} AND p.position = {after}"
        )

    @property
    def _place(self) -> str:
        """The column, as it is written in the revision."""
        return f"{self.table}.{self.quoted_key}"

    def _columns(self, *relations: str) -> str:
        """SQL for the columns of these tables that the statement names, with their numbers."""
        words = re.findall(r"[\w$]+", self.statement.text)
        names = ", ".join(map(literal, sorted({*words, *map(str.lower, words)})))
        oids = ", ".join(map(_stored_oid, relations))
        return (
            "ARRAY(SELECT DISTINCT a.attrelid::text || '.' || a.attnum::text || ' ' || a.attname::text"
            " FROM pg_attribute AS a"
            f" WHERE a.attrelid IN ({oids}) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN ({names})"
            " ORDER BY 1)"
        )


def _stored_oid(relation: str) -> str:
    """SQL for the oid by which a job knows its table again; a view made anew has the same rows, so it has none."""
    return f"coalesce((SELECT c.oid FROM pg_class AS c WHERE c.oid = {relation} AND c.relkind IN ('r', 'p')), 0::oid)"
