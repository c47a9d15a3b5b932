"""Distributes the metrics and their series over the nodes of a Citus cluster, by model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlops_db.admin.cluster.functions import find_undistributable, make_distributable
from mlops_db.admin.cluster.layout import (
    COLUMN,
    METRICS,
    SERIES,
    SHARDS_A_NODE,
    Layout,
    count_rows,
    read_layout,
)
from mlops_db.admin.cluster.outcome import Outcome, Step, expect_stall
from mlops_db.admin.cluster.readers import find_unjoinable, make_joinable, readers_set_aside, refuse_readers
from mlops_db.admin.cluster.requirements import Missing, find_missing, refuse_missing, refuse_obstacles
from mlops_db.admin.cluster.shard_grants import grant_readers_on_shards
from mlops_db.admin.cluster.transaction import change, looking
from mlops_db.errors import RefusedError
from mlops_db.migration.progress import Progress
from mlops_db.server.citus import list_nodes

if TYPE_CHECKING:
    from typing import TextIO

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

_log = logging.getLogger("mlops_db.maintenance")

SECONDS_A_MILLION = 12.0
EARLY_ROWS = 1_000_000
# Shards in one transaction on each node, whatever the settings of the database are.
_SETTINGS = (
    "SET LOCAL citus.enable_ddl_propagation = on",
    "SET LOCAL citus.enable_metadata_sync = on",
    "SET LOCAL citus.shard_replication_factor = 1",
    "SET LOCAL citus.enable_unsafe_triggers = on",
)


def plan_distribution(settings: Settings, *, shards: int | None = None) -> tuple[Outcome, list[Missing]]:
    """Plan what `distribute` would do now, and what a superuser has to do first; only reads.

    Args and errors are those of `distribute`, but what is missing is returned.
    """
    with looking(settings) as cursor:
        layout = read_layout(cursor)
        missing = find_missing(cursor, settings)
        refuse_obstacles(cursor, "cannot be carried to shards")
        refuse_readers(cursor)
        return _plan(cursor, layout, shards), missing


def distribute(settings: Settings, *, shards: int | None = None, progress: TextIO | None = None) -> Outcome:
    """Distribute monitoring_metrics and metric_series by the hash of model_name; what is done is skipped.

    All is done in one transaction: wherever it is killed, either all is done or nothing. Readers and writers of the
    metrics wait for its end. All other tables stay on the coordinator. Then the roles that read the views get on the
    nodes what they need there, each time: a worker that was added later gets it so, too.

    Args:
        settings: where the coordinator is; the role owns the tables.
        shards: how many shards a table gets; default: four for each node that may have some.
        progress: a stream for a line about each step; None logs them to `mlops_db.maintenance`.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: a superuser has to do something first, others' objects are in the way, the tables are distributed
            into another number of shards, or somebody held a table for too long; nothing was changed. Or a node refused
            the readers' grants: the tables are distributed then, and the next call grants the rest.
        StatementFailedError: the server refused.
    """
    planned, missing = plan_distribution(settings, shards=shards)
    refuse_missing(missing)
    if not planned.steps:
        grant_readers_on_shards(settings)
        return planned
    reporter = Progress(progress, _log)
    reporter.fields["target"] = settings.target
    steps: list[Step] = []
    try:
        if any(step.action == "distribute" for step in planned.steps):
            reporter.note(planned.expectation)
        change(settings, reporter, lambda cursor: _distribute(cursor, shards, steps, reporter))
    finally:
        reporter.stop()
    grant_readers_on_shards(settings)
    return Outcome(planned.shards, tuple(steps), planned.rows, planned.size, planned.stall_s)


def _plan(cursor: SafeCursor, layout: Layout, shards: int | None) -> Outcome:
    chosen = _choose(cursor, layout, shards)
    rows, size = count_rows(cursor, layout) if layout.left else (0, 0)
    stall = expect_stall(rows, SECONDS_A_MILLION) if layout.left else 0.0
    unjoinable = () if layout.left else find_unjoinable(cursor)
    rewritten = (*find_undistributable(cursor), *unjoinable)
    steps = [*(Step("rewrite", name) for name in rewritten), *(Step("distribute", table) for table in layout.left)]
    return Outcome(chosen, tuple(steps), rows, size, stall)


def _choose(cursor: Cursor, layout: Layout, shards: int | None) -> int:
    """How many shards the tables have, or get.

    Raises:
        RefusedError: they have another number than is wanted.
    """
    if layout.shards is None:
        return shards or SHARDS_A_NODE * max(1, sum(node.is_active and node.has_shards for node in list_nodes(cursor)))
    if shards not in (None, layout.shards):
        raise RefusedError(
            f"the tables are distributed into {layout.shards} shards, not {shards}; nothing was changed",
            hint="Leave --shards out to keep them, or run `mlops-db undistribute` and then `mlops-db distribute "
            f"--shards {shards}`.",
        )
    return layout.shards


def _distribute(cursor: Cursor, shards: int | None, steps: list[Step], progress: Progress) -> None:
    """Take the steps that are left. Everything is read again, because another run may have changed it."""
    steps.clear()
    for setting in _SETTINGS:
        cursor.execute(setting)
    layout = read_layout(cursor)
    refuse_obstacles(cursor, "cannot be carried to shards")
    refuse_readers(cursor)
    chosen = _choose(cursor, layout, shards)
    joinable = [] if layout.left else make_joinable(cursor)
    steps.extend(Step("rewrite", name) for name in (*make_distributable(cursor), *joinable))
    if not layout.left:
        return
    with readers_set_aside(cursor):
        for table in layout.left:
            progress.begin(f"distribute {table.partition('.')[2]}")
            if table == SERIES and not layout.distributed:
                cursor.execute(
                    "SELECT create_distributed_table(%s, %s, colocate_with := 'none', shard_count := %s)",
                    (table, COLUMN, chosen),
                )
            else:
                other = METRICS if table == SERIES else SERIES
                cursor.execute("SELECT create_distributed_table(%s, %s, colocate_with := %s)", (table, COLUMN, other))
            # Citus has copied them, and would leave them on disk.
            cursor.execute("SELECT truncate_local_data_after_distributing_table(%s)", (table,))
            progress.done()
            steps.append(Step("distribute", table))
