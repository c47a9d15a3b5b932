"""An edit of the schema in code that no revision makes is found."""

import shutil
from pathlib import Path

import pytest

from support.database import ROOT, Database, run_command

pytestmark = pytest.mark.slow

EDITS = (
    ("model_versions.py", '    UniqueConstraint("mlflow', '    Column("owner", Integer), UniqueConstraint("mlflow'),
    ("model_versions.py", "f1_score BETWEEN {MIN_SCORE} AND {MAX_SCORE}", "f1_score BETWEEN 0 AND 2"),
    ("model_versions.py", "text(\"status = 'production'\")", "text(\"status <> 'staging'\")"),
    ("retraining_decisions.py", "Why, in words.", "Why."),
    ("views.py", "Whether it is in production.", "In production?"),
)
# The rule on a database at head, as after the last revision of a check.
PROGRAM = """
from types import SimpleNamespace
from mlops_db.lint.observation import Head
from mlops_db.lint.rules import schema
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.session import migration_connection
from mlops_db.project import alembic_ini
from mlops_db.revisions.files import revision_paths
from mlops_db.settings import Settings

settings = Settings.from_environment()
paths = revision_paths(alembic_ini().parent / "migrations" / "versions")
config = alembic_config(settings, ini=alembic_ini())
with migration_connection(settings) as connection:
    config.attributes.update(settings=settings, connection=connection)
    for finding in schema.check.check(Head([SimpleNamespace(file=path) for path in paths], settings, settings, config)):
        print(f"{finding.file}: {finding.message}. {finding.remedy or schema.check.remedy}")
"""


def run_rule(database: Database, source: Path) -> list[str]:
    environment = database.environment | {"PYTHONPATH": str(source)}
    done = run_command("python", "-c", PROGRAM, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_schema_of_the_revisions_has_no_findings(head: Database) -> None:
    assert run_rule(head, ROOT / "src") == []


def test_a_schema_that_was_edited_without_a_revision_is_found(head: Database, tmp_path: Path) -> None:
    for folder in ("src", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    for file, before, after in EDITS:
        path = tmp_path / "src" / "mlops_db" / "schema" / file
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")

    findings = run_rule(head, tmp_path / "src")

    for part, remedy in (
        ("add_column model_versions.owner", "alembic revision --autogenerate"),
        ("model_versions_f1_score_check of model_versions is CHECK", "op.validate_constraint"),
        ("model_versions_production_key of model_versions is WHERE", "op.create_index_concurrently"),
        ("modify_comment retraining_decisions.reasoning", "alembic revision --autogenerate"),
        ("modify_view_comments v_model_timeline", "alembic revision --autogenerate"),
    ):
        found = [line for line in findings if line.startswith("src/mlops_db/schema: ") and part in line]
        assert any(remedy in line for line in found), (part, findings)
