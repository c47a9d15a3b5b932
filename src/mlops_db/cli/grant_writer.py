"""Let a role make every call of the storage layer, as jobs do, and nothing else; --revoke takes that back.

It may read all tables and views, insert rows, change the stage and the scores of versions, replace and remove metrics,
and say what is expected of series. It may not change the schema, run migrations or maintenance, or change or remove
decisions. A role that can do more than that already is refused, and the refusal says what. Run it again after a
revision that adds a table or a view: `mlops-db roles` shows who lacks something.
"""

from argparse import ArgumentParser, Namespace

from mlops_db.cli.granting import add_granting_arguments, run_granting

PASSWORD = "MLOPS_WRITER_PASSWORD"  # noqa: S105  (the variable's name)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_granting_arguments(parser, PASSWORD)


def run(options: Namespace) -> int:
    """Grant or revoke, and report."""
    from mlops_db.drift.declared_roles import WRITER  # noqa: PLC0415  (the help does without psycopg2)

    return run_granting(options, WRITER, PASSWORD, may=WRITER.may, names={})
