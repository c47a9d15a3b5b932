"""Let a role, such as a dashboard's, read the views and nothing else; --revoke takes that back.

A role that can do more than that already is refused, and the refusal says what. Run it again after a revision that adds
a view: `mlops-db roles` shows who lacks something.
"""

from argparse import ArgumentParser, Namespace

from mlops_db.cli.granting import add_granting_arguments, run_granting

PASSWORD = "MLOPS_READER_PASSWORD"  # noqa: S105  (the variable's name)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_granting_arguments(parser, PASSWORD)


def run(options: Namespace) -> int:
    """Grant or revoke, and report."""
    from mlops_db.drift.declared_roles import READER  # noqa: PLC0415  (the help does without psycopg2)
    from mlops_db.project import REPORTING_FUNCTIONS, REPORTING_VIEWS, VIEWS  # noqa: PLC0415

    views = [*VIEWS, *(f"reporting.{view}" for view in REPORTING_VIEWS)]
    functions = [f"reporting.{function}" for function in REPORTING_FUNCTIONS]
    may = f"read {', '.join((*views, *functions))}"
    return run_granting(options, READER, PASSWORD, may=may, names={"views": views, "functions": functions})
