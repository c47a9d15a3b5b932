"""Show the server and database, the revision, the models in production, and the tables and views."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import timedelta

from mlops_db.admin.cluster.state import ClusterStatus, NodeStatus
from mlops_db.admin.status import DatabaseStatus, ObjectStatus, read_status
from mlops_db.cli.output import Styled, print_json, print_line, print_table, state
from mlops_db.cli.parser import add_json
from mlops_db.errors import alembic, printable
from mlops_db.reporting.words import length_in_words
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import EMBEDDED, Settings

COLUMNS = ("object", "kind", "rows", "size")
NODE_COLUMNS = ("node", "kind", "state", "shards", "size")
_MAX_MODELS = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)


def run(options: Namespace) -> int:
    """Print the status; 0 at head or newer, 1 behind or drifted, 2 if the database cannot be reached."""
    settings = Settings.from_environment()
    status = read_status(settings)
    if options.json:
        print_json(_for_json(status))
    else:
        for label, value in _summary(status, settings):
            print_line(f"{label:<9} ", value)
        print_line()
        print_table(COLUMNS, [_row(item) for item in status.objects], right=("rows", "size"))
        for item in status.objects:
            if item.uncounted:
                print_line(f"{item.name} was not counted: {item.uncounted}")
        if status.cluster and status.cluster.nodes:
            print_line()
            print_table(NODE_COLUMNS, [_node(node) for node in status.cluster.nodes], right=("shards", "size"))
            for node in status.cluster.nodes:
                if node.trouble:
                    print_line(f"{node.address} did not answer: {node.trouble}")
        if status.everybody_may_create:
            print_line(EVERYBODY_NOTE, file=sys.stderr)
    return 0 if status.state in ("head", "newer") else 1


def _summary(status: DatabaseStatus, settings: Settings) -> list[tuple[str, str]]:
    lines = [
        ("database", status.target),
        *_embedded(settings),
        ("server", f"PostgreSQL {status.server}"),
        (
            "revision",
            Styled(f"{status.current or 'base'}{_beside_head(status)}", "yellow" if status.pending else "green"),
        ),
    ]
    if status.others:
        lines.append(("others", f"{' and '.join(map(printable, status.others))} (beside ours)"))
    if status.pending:
        lines.append(("head", status.head))
        lines.append(("pending", ", ".join(f"{revision.id} {revision.title}" for revision in status.pending)))
        lines.append(("next", alembic("upgrade head")))
    elif status.missing:
        lines.append(("missing", Styled(", ".join(status.missing), "bold red")))
        lines.append(("next", "`mlops-db check --sql` prints the repair; restore the rows of tables from a backup"))
    lines += _production(status)
    if status.newest_metric is not None and status.newest_metric_age is not None:
        ahead = status.newest_metric_age < timedelta()
        when = f"{length_in_words(status.newest_metric_age)} {'ahead' if ahead else 'ago'}"
        lines.append(("metrics", f"the newest is of {status.newest_metric:%Y-%m-%d %H:%M} UTC, {when}"))
    if status.cluster:
        lines += _cluster(status.cluster)
    if status.upkeep:
        lines.append(("upkeep", f"`mlops-db maintain` would {', and '.join(status.upkeep)}"))
    return lines


def _production(status: DatabaseStatus) -> list[tuple[str, str]]:
    """The versions in production, a line each."""
    versions = status.production or ()
    texts = []
    for one in versions[:_MAX_MODELS]:
        since = "an unknown time" if one.since is None else f"{one.since:%Y-%m-%d %H:%M} UTC"
        texts.append(printable(f"{one.model_name} {one.model_version} in production since {since}"))
    if len(versions) > _MAX_MODELS:
        texts.append(f"and {len(versions) - _MAX_MODELS:,} more")
    return [("" if place else "models", text) for place, text in enumerate(texts)]


def _cluster(cluster: ClusterStatus) -> list[tuple[str, str]]:
    """What is distributed, and how evenly."""
    if not cluster.nodes:
        return [("cluster", f"Citus {cluster.version}; nothing is distributed, which `mlops-db distribute` does")]
    missing = "" if cluster.complete else ", without the nodes that did not answer"
    tables = [f"{table.name} ~{table.rows:,} rows, {table.size}" for table in cluster.tables]
    lines = [("cluster", f"Citus {cluster.version}: {'; '.join(tables) or 'its shards are not known'}{missing}")]
    if cluster.fullest:
        one = cluster.fullest
        models = f", has {printable(', '.join(one.models))}" if one.models else ""
        lines.append(
            ("fullest", f"shard of {one.shards}: {one.size} on {one.node}{models}; the mean is {one.mean_size}")
        )
    return lines


def _node(node: NodeStatus) -> tuple[str, str, str, str, str]:
    answer = state("unreachable") if node.trouble else "active" if node.is_active else "inactive"
    return (
        node.address, "coordinator" if node.is_coordinator else "worker", answer, f"{node.shards:,}", node.size or ""
    )  # fmt: skip


def _for_json(status: DatabaseStatus) -> dict[str, object]:
    fields = asdict(status)
    age = fields.pop("newest_metric_age")
    production = status.production and [one._asdict() for one in status.production]
    fields |= {"newest_metric_age_s": None if age is None else age.total_seconds(), "production": production}
    if status.cluster is None:
        del fields["cluster"]
    return {"schema": "status-1", **fields, "state": status.state}


def _beside_head(status: DatabaseStatus) -> str:
    if status.is_newer:
        return f" (newer than {status.head} of this code, which works with it)"
    return "" if status.pending else " (head)"


def _embedded(settings: Settings) -> list[tuple[str, str]]:
    """Show where the data is and how to connect: this server has no port, and stops with its last user."""
    if settings.host != EMBEDDED:
        return []
    from mlops_db.server.embedded import data_folder  # noqa: PLC0415  (its package stays out of every other run)

    return [("data", str(data_folder())), ("psql", "`mlops-db psql`")]


def _row(item: ObjectStatus) -> tuple[str, str, str, str]:
    if not item.present:
        return item.name, item.kind, state("missing"), ""
    rows = "not counted" if item.rows is None else f"{'' if item.exact else '~'}{item.rows:,}"
    return item.name, item.kind, rows, item.size or ""
