"""Brings a database that schema.sql created under Alembic, without touching a row.

It compares the catalogue with what the baseline's revisions create. Only if the three tables are the same, it records
that the database is at the baseline. Views hold no rows, so they are replaced.
"""

from __future__ import annotations

import difflib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from alembic import command
from psycopg2 import sql

from mlops_db.admin.broken_rows import BrokenRule, broken_rules
from mlops_db.drift.catalogue import Catalogue, Name, read_catalogue
from mlops_db.drift.compare import Difference, Drift, differences
from mlops_db.drift.obstructions import obstructions
from mlops_db.drift.rendering import as_written_here
from mlops_db.drift.repair import needs, repair_statements
from mlops_db.drift.snapshot import expected_catalogue
from mlops_db.errors import LostRecordError, RefusedError, UnmanagedDatabaseError, alembic
from mlops_db.migration import view_grants
from mlops_db.migration.commands import alembic_config, run_command
from mlops_db.migration.dependents import read_dependents
from mlops_db.migration.lock import run_lock
from mlops_db.migration.progress import Progress
from mlops_db.migration.session import migration_connection
from mlops_db.project import BASELINE, BASELINE_TABLES, BASELINE_VIEWS
from mlops_db.revisions.gate import find_head
from mlops_db.server.citus import list_tables_of_citus
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import translate_statement_failures
from mlops_db.server.guests import REFUSE_GUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.settings import Settings

BEFORE_VIEWS = "0003"
OUR_TABLES = [f"public.{name}" for name in BASELINE_TABLES]
OUR_VIEWS = [f"public.{name}" for name in BASELINE_VIEWS]
# Tables by which a tool's own database is recognised: MLflow, too, has a table model_versions.
TOOLS = {
    "MLflow": {"experiments", "registered_models", "runs"},
    "Airflow": {"dag", "dag_run", "task_instance"},
}


@dataclass(frozen=True)
class Judgement:
    """How a hand-made database compares with the baseline.

    Attributes:
        obstacles: differences of the three tables, which keep it from being adopted.
        remedy: the statements that remove the obstacles.
        views: differences of the views, as lines of a diff from the present view to the new one.
        left_alone: other objects, which stay as they are.
        broken: the rules of later revisions that rows break.
    """

    obstacles: list[Difference]
    remedy: list[str]
    views: list[str]
    left_alone: list[str]
    broken: list[BrokenRule]


def judge(cursor: Cursor, expected: Catalogue, found: Catalogue, config: Config) -> Judgement:
    """Compare a database with the baseline. Comments and grants on the tables may differ, and stay."""
    expected = as_written_here(cursor, expected, found)
    expected_tables, found_tables = _without_views(expected), _without_views(found)
    obstacles, left_alone = [], []
    for difference in differences(expected_tables, found_tables):
        if difference.name not in expected and not _belongs_to_ours(difference.name, found):
            left_alone.append(str(difference.name))
        elif difference.property not in ("comment", "grants"):
            obstacles.append(difference)
    remedy = _remedy(cursor, expected, found) if obstacles else []
    return Judgement(obstacles, remedy, list(_view_lines(expected, found)), left_alone, broken_rules(cursor, config))


def _remedy(cursor: Cursor, expected: Catalogue, found: Catalogue) -> list[str]:
    """The statements that make the three tables those of the baseline."""
    tables = _without_views(expected)
    ours = {
        name: properties
        for name, properties in _without_views(found).items()
        if name in expected or _belongs_to_ours(name, found)
    }
    views = _present_views(found)
    dependents = [
        one
        for one in read_dependents(cursor)
        if one.within not in {*OUR_TABLES, *OUR_VIEWS} or (one.on in views and one.goes_silently)
    ]
    reasons = obstructions(cursor, tables, ours, with_rows=True)
    drift = Drift(BASELINE, tables, ours, dependents=dependents, obstructions=reasons)
    statements = [line for line in repair_statements(drift) if not line.startswith(("COMMENT", "GRANT", "REVOKE"))]
    if not views or not any(" COLUMN " in line for line in statements):
        return statements
    # The views would keep columns from changing. Adopting creates them again.
    readers = dict.fromkeys(needs(one.what, f"view {one.on}") for one in dependents if one.on in views)
    return [*readers, f"DROP VIEW {', '.join(views)};", *statements]


def adopt(settings: Settings, *, dry_run: bool) -> Judgement:
    """Compare the settings' database with the baseline, and record it there if the tables are the same.

    All of it is one transaction. It locks the three tables in SHARE UPDATE EXCLUSIVE mode, so that nobody changes them,
    while others read and write rows.

    Args:
        settings: where the database is.
        dry_run: only compare.

    Returns:
        The comparison. The database was adopted if there are no obstacles and it was no dry run.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: it is another tool's, has none of our tables, or is under Alembic already; or something of others
            depends on a view of ours that would be replaced; or somebody else owns the tables; or a migration run
            still runs.
        NotPermittedError: a scratch database is needed, and the role may not create it.
        StatementFailedError: the server refused, such as for a lock that somebody else holds.
    """
    with translate_statement_failures(settings):
        with open_cursor(settings) as cursor:
            _refuse_what_is_not_hand_made(cursor, settings)
        expected = _of_the_revisions(expected_catalogue(settings, BASELINE))
        with (
            migration_connection(settings) as connection,
            connection.begin() as transaction,
            run_lock(connection, wait_ms=settings.lock_wait, progress=Progress(None)),
            closing(cast("Cursor", connection.connection.cursor())) as cursor,
        ):
            _refuse_what_is_not_hand_made(cursor, settings)  # again: another process may have adopted it meanwhile
            cursor.execute(REFUSE_GUESTS)
            for table in OUR_TABLES:
                cursor.execute(_LOCK_IF_THERE.format(table=table))
            found = _of_the_revisions(read_catalogue(cursor))
            judgement = judge(cursor, expected, found, alembic_config(settings))
            if judgement.views:
                _refuse_dependents_of_our_views(cursor)
            if judgement.obstacles or dry_run:
                transaction.rollback()
                return judgement
            _take_over(connection, settings, judgement, found)
    return judgement


# A missing table is reported later, as an obstacle; it cannot be locked.
_LOCK_IF_THERE = """
    DO $$ BEGIN
        IF to_regclass('{table}') IS NOT NULL THEN LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE; END IF;
    END $$
"""


def _take_over(connection: Connection, settings: Settings, judgement: Judgement, found: Catalogue) -> None:
    config = alembic_config(settings, connection=connection)
    if not judgement.views:
        run_command(command.stamp, config, BASELINE)
        return
    views = _present_views(found)
    grants = view_grants.save(connection)
    if views:  # all in one statement, because they may read each other
        connection.exec_driver_sql(f"DROP VIEW {', '.join(views)}")
    run_command(command.stamp, config, BEFORE_VIEWS)
    run_command(command.upgrade, config, BASELINE)
    view_grants.restore(connection, grants)
    with closing(cast("Cursor", connection.connection.cursor())) as cursor:
        _comment_on_views(cursor, found)


def _comment_on_views(cursor: Cursor, found: Catalogue) -> None:
    """Give the new views, and the columns that they still have, the comments of the old ones."""
    for name in read_catalogue(cursor):
        comment = found.get(name, {}).get("comment")
        if comment is not None and {name.name, name.within} & set(OUR_VIEWS):
            what = f"VIEW {name.name}" if name.kind == "view" else f"COLUMN {name.within}.{name.name}"
            cursor.execute(sql.SQL("COMMENT ON {} IS {}").format(sql.SQL(what), sql.Literal(comment)))


def _refuse_dependents_of_our_views(cursor: Cursor) -> None:
    for one in read_dependents(cursor):
        if one.on in OUR_VIEWS and (one.within not in OUR_VIEWS or one.goes_silently):
            raise RefusedError(
                f"{one.what} depends on view {one.on.removeprefix('public.')}, which would be replaced; "
                "nothing was changed",
                hint="Drop it, run `mlops-db adopt`, and create it again on the new columns.",
            )


def _refuse_what_is_not_hand_made(cursor: Cursor, settings: Settings) -> None:
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    tables = {name for (name,) in cursor.fetchall()}
    for tool, marks in TOOLS.items():
        if marks <= tables:
            raise RefusedError(
                f"{settings.target} is {tool}'s own database: it has the tables {', '.join(sorted(marks))}",
                hint="Set MLOPS_DB_NAME to the database that schema.sql created; nothing was changed here.",
            )
    try:
        revision = find_head(cursor, settings.target)
    except LostRecordError:
        raise
    except UnmanagedDatabaseError:
        _refuse_distributed(cursor)
        return
    if revision is not None:
        raise RefusedError(
            f"{settings.target} is under Alembic already, at revision {revision}",
            hint=f"Run `{alembic('upgrade head')}`; `mlops-db check` compares it with its revisions.",
        )
    cursor.execute(REFUSE_GUESTS)  # tables of another role may be the ones that are meant
    raise RefusedError(
        f"{settings.target} has none of the tables {', '.join(BASELINE_TABLES)}",
        hint="Run `mlops-db init`: it creates them.",
    )


def _refuse_distributed(cursor: Cursor) -> None:
    """Refuse tables that somebody has given to Citus by hand: the revisions begin with plain tables on one server."""
    names = [f"{schema}.{name}" for schema, name in list_tables_of_citus(cursor)]
    if ours := [name.removeprefix("public.") for name in names if name in OUR_TABLES]:
        verb = "is" if len(ours) == 1 else "are"
        raise RefusedError(
            f"{' and '.join(ours)} {verb} in Citus' catalogue already; nothing was changed",
            hint=" ".join(f"SELECT undistribute_table('{name}');" for name in ours)
            + " Then adopt and upgrade. `mlops-db distribute` distributes the metrics again.",
        )


def _belongs_to_ours(name: Name, found: Catalogue) -> bool:
    """Whether an object that the baseline does not create is part of one of our tables, or has one of our names."""
    owner = found.get(name, {}).get("owned by", "").rpartition(".")[0]
    return bool({name.name, name.within, owner} & {*OUR_TABLES, *OUR_VIEWS})


def _of_the_revisions(catalogue: Catalogue) -> Catalogue:
    """Leave out what a run creates beside the revisions: its history, and Alembic's table."""
    return {
        name: catalogue[name]
        for name in catalogue
        if not any(text.startswith(("mlops_internal", "public.alembic_version")) for text in (name.name, name.within))
    }


def _present_views(found: Catalogue) -> list[str]:
    return [name for name in OUR_VIEWS if Name("view", "", name) in found]


def _without_views(catalogue: Catalogue) -> Catalogue:
    views = {name.name for name in catalogue if name.kind == "view" and name.name in OUR_VIEWS}
    return {name: catalogue[name] for name in catalogue if not {name.name, name.within} & views}


def _view_lines(expected: Catalogue, found: Catalogue) -> Iterator[str]:
    for view in BASELINE_VIEWS:
        name = Name("view", "", f"public.{view}")
        if name not in found:
            yield f"view {view} is missing and will be created"
            continue
        there, wanted = (side[name]["definition"].splitlines() for side in (found, expected))
        yield from difflib.unified_diff(there, wanted, f"{view} as it is", f"{view} as it will be", n=1, lineterm="")
