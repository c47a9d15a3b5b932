"""docs/own-tables.md, played with the projects that it describes, and with the package as pip installs it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlops_db.errors import RefusedError
from mlops_db.migration import commands
from mlops_db.revisions.graph import revisions
from support.database import ROOT, SCRIPTS, Database, run_command
from support.process import assert_failed
from support.projects import UNFINISHED, source, sql

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

PAGE = (ROOT / "docs" / "own-tables.md").read_text(encoding="utf-8")
HEAD = revisions()[-1].id
NEXT = f"{int(HEAD) + 1:04}"
ROWS = "SELECT array_agg(version_num::text ORDER BY version_num) FROM alembic_version"


def block(name: str) -> str:
    found = re.search(rf"^```\w+ {name}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders for PYTHONPATH with the package as the wheel has it: this release, and one with a revision more."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("now", "later")}
    ignore = shutil.ignore_patterns(UNFINISHED)
    for folder in folders.values():
        shutil.copytree(ROOT / "src" / "mlops_db", folder / "mlops_db", ignore=ignore)
        inside = folder / "mlops_db" / "_alembic"
        shutil.copytree(ROOT / "migrations", inside / "migrations", ignore=ignore)
        shutil.copy(ROOT / "alembic.ini", inside)
    column = (
        sql("ALTER TABLE model_versions ADD COLUMN owner text"),
        sql("ALTER TABLE model_versions DROP COLUMN owner"),
    )
    (folders["later"] / f"mlops_db/_alembic/migrations/versions/{NEXT}_owner.py").write_text(
        source(NEXT, HEAD, *column), encoding="utf-8"
    )
    return folders


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder for a project of theirs, with Alembic's own template."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "acme_models.py").write_text(block("models"), encoding="utf-8")
    import alembic  # noqa: PLC0415  (only where it is)

    template = Path(alembic.__file__).parent / "templates" / "generic" / "script.py.mako"
    shutil.copy(template, tmp_path / "migrations")
    return tmp_path


def run(
    script: str, database: Database, package: Path, project: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run commands as they are typed, in the folder of the project."""
    environment = database.environment | {"PYTHONPATH": str(package), "COLUMNS": "200"} | variables
    environment["PATH"] = f"{SCRIPTS}:{environment['PATH']}"
    return run_command("bash", "-ec", script, environment=environment, cwd=project)


def succeed(*arguments: Any, **variables: str) -> str:
    done = run(*arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_revision(project: Path, pattern: str, upgrade: str, downgrade: str) -> None:
    (file,) = (project / "migrations" / "versions").glob(pattern)
    text = file.read_text(encoding="utf-8")
    for name, body in (("upgrade", upgrade), ("downgrade", downgrade)):
        text = re.sub(rf"(def {name}\(\) -> None:\n(?:    .*\n)*?)    pass\n", rf"\1    {body}\n", text)
    file.write_text(text, encoding="utf-8")


# A schema of their own


def test_a_schema_of_their_own(head: Database, packages: dict[str, Path], project: Path) -> None:
    head.psql(block("schema"))
    package = packages["now"]
    assert "no difference" in succeed("mlops-db check", head, package, project)
    assert "No new upgrade operations" in succeed("mlops-db alembic check", head, package, project)
    before = head.dump()

    refused = run("mlops-db alembic downgrade base", head, package, project)

    assert_failed(refused, block("refused").strip().partition(": ")[2].partition(" depends")[0])
    assert head.dump() == before
    head.psql("ALTER TABLE acme.review DROP CONSTRAINT review_version_id_fkey; DROP VIEW acme.in_production")
    succeed("mlops-db alembic downgrade base", head, package, project)
    assert head.value("SELECT to_regclass('acme.review') IS NOT NULL")


# A project of their own


def test_a_project_of_their_own(head: Database, packages: dict[str, Path], project: Path) -> None:
    package = packages["now"]
    (project / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = .\n", encoding="utf-8"
    )
    (project / "migrations" / "env.py").write_text(block("project-env"), encoding="utf-8")
    settings = head.settings
    address = f"postgresql+psycopg2://{settings.user}@/{settings.database}?host={settings.host}&port={settings.port}"
    variables = {"ACME_DATABASE": address}
    ours = "SELECT version_num FROM alembic_version"
    head.psql("CREATE SCHEMA acme")

    succeed("alembic revision --autogenerate -m Reviews", head, package, project, **variables)
    (file,) = (project / "migrations" / "versions").glob("*.py")
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"op\.\w+\('\w+'", text) == ["op.create_table('review'", "op.drop_table('review'"]
    succeed("alembic upgrade head; alembic check; mlops-db check; mlops-db status", head, package, project, **variables)
    assert head.value(ours) == HEAD
    assert head.value("SELECT count(*) FROM acme_version") == 1
    succeed("alembic downgrade base; alembic upgrade head; alembic downgrade base", head, package, project, **variables)
    assert head.value(ours) == HEAD
    succeed("mlops-db alembic downgrade base", head, package, project)

    # Without a version table of its own.
    env = (project / "migrations" / "env.py").read_text(encoding="utf-8")
    (project / "migrations" / "env.py").write_text(env.replace('version_table="acme_version",', ""), encoding="utf-8")
    succeed("mlops-db init", head, package, project)
    done = run("alembic upgrade head", head, package, project, **variables)
    assert f"Can't locate revision identified by '{HEAD}'" in done.stdout + done.stderr
    assert head.value("SELECT to_regclass('acme.review') IS NULL")


# A branch beside ours


@pytest.fixture
def branch(project: Path) -> Path:
    """The project of a branch beside ours."""
    (project / "alembic.ini").write_text(block("branch-ini"), encoding="utf-8")
    (project / "migrations" / "env.py").write_text(block("branch-env"), encoding="utf-8")
    return project


def begin(head: Database, package: Path, branch: Path) -> None:
    """Do what the page does."""
    succeed(block("branch-first").replace("0025", HEAD), head, package, branch)
    write_revision(branch, "acme_0001_*.py", 'op.execute("CREATE SCHEMA acme")', 'op.execute("DROP SCHEMA acme")')
    succeed(block("branch-next"), head, package, branch)


def test_a_branch_beside_ours(head: Database, packages: dict[str, Path], branch: Path) -> None:
    now, later = packages["now"], packages["later"]
    begin(head, now, branch)
    (second,) = (branch / "migrations" / "versions").glob("acme_0002_*.py")
    assert re.findall(r"op\.\w+_table\('\w+'", second.read_text("utf-8")) == [
        "op.create_table('review'",
        "op.drop_table('review'",
    ]
    assert head.value(ROWS) == ["acme_0002"]
    elsewhere = branch.parent  # without their files
    head.query("CREATE TABLE of_acme ()")
    shown = succeed(
        "mlops-db status; mlops-db check; mlops-db init; mlops-db alembic upgrade head", head, now, elsewhere
    )
    assert [line for line in shown.splitlines() if "theirs" in line] == ["theirs: table public.of_acme"]
    head.query("DROP TABLE of_acme")
    assert block("status").replace("0025", HEAD) in shown
    listed = succeed(f"alembic history -r 0024:{HEAD}; alembic history -r acme_0001:", head, now, branch)
    assert re.findall(r"-> (\w+)", listed)[-3:] == ["0024", "acme_0002", "acme_0001"]
    for span in ("0024:", "0024:current", "0024:acme_0001"):
        for program in ("alembic", "mlops-db alembic -c alembic.ini"):
            assert_failed(run(f"{program} history -r {span}", head, now, branch), f"cannot list {span}, whose ends")
    assert "No new upgrade operations" in succeed("alembic check", head, now, branch)

    # A later release, and the one that still runs somewhere.
    succeed("mlops-db init", head, later, elsewhere)
    assert head.value(ROWS) == [NEXT, "acme_0002"]
    succeed("mlops-db init; mlops-db maintain", head, now, elsewhere)
    succeed(
        f"alembic revision -m More --head acme@head --depends-on {NEXT}; alembic upgrade heads", head, later, branch
    )
    assert head.value(ROWS) == ["acme_0003"]
    assert f"newer than {HEAD}" in succeed("mlops-db status", head, now, elsewhere)
    assert f"{NEXT} (head)" in succeed("mlops-db status", head, later, elsewhere)

    # Back.
    for command, message in (
        (f"alembic downgrade {HEAD}", "acme_0003 of a project beside mlops-db would be reverted, too"),
        ("alembic upgrade head", "`head` is not clear"),
    ):
        assert_failed(run(command, head, later, branch), message)
    assert_failed(run("mlops-db alembic downgrade base", head, later, elsewhere), "whose files are not here")
    head.psql("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('r', '1')")
    head.psql("INSERT INTO acme.review (version_id) SELECT id FROM model_versions")
    refused = run("alembic downgrade acme@base", head, later, branch, MLOPS_ENV="production")
    assert_failed(refused, "would lose 1 row of acme.review")
    succeed("alembic downgrade base", head, later, branch)
    assert head.value("SELECT to_regnamespace('acme') IS NULL")


def written(branch: Path, *, follows: bool = False) -> None:
    """Write what `begin` makes, without running it; or one that follows ours."""
    before, depends_on = (HEAD, None) if follows else (None, HEAD)
    first = source("acme_0001", before, *sql("CREATE SCHEMA acme", "DROP SCHEMA acme").splitlines())
    label = f"branch_labels = ('acme',)\ndepends_on = {depends_on!r}\ndown_revision"
    table = sql("CREATE TABLE acme.review (id int REFERENCES public.model_versions)"), sql("DROP TABLE acme.review")
    for name, text in (
        ("acme_0001_schema_acme", first.replace("down_revision", label)),
        ("acme_0002_reviews", source("acme_0002", "acme_0001", *table)),
    ):
        (branch / "migrations" / "versions" / f"{name}.py").write_text(text, encoding="utf-8")


def test_the_file_that_follows_ours_can_depend_instead(head: Database, packages: dict[str, Path], branch: Path) -> None:
    package = packages["now"]
    succeed(block("follows").replace("0025", HEAD) + "alembic upgrade heads", head, package, branch)
    (file,) = (branch / "migrations" / "versions").glob("acme_0001_*.py")
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"^(\w+): .* = (.*)$", text, re.MULTILINE)[1:] == [
        ("down_revision", f"'{HEAD}'"), ("branch_labels", "('acme',)"), ("depends_on", "None"),
    ]  # fmt: skip
    assert_failed(run("alembic downgrade acme@base", head, package, branch), "acme_0001 of a project beside mlops-db")
    succeed(f"alembic downgrade acme@{HEAD}; alembic upgrade heads", head, package, branch)

    text = re.sub(r"(down_revision: .* = ).*", r"\1None", text)
    file.write_text(re.sub(r"(depends_on: .* = ).*", rf"\1'{HEAD}'", text), encoding="utf-8")

    assert "acme_0001 (beside ours)" in succeed("mlops-db status; alembic upgrade heads", head, package, branch)
    succeed("alembic downgrade acme@base", head, package, branch)
    assert head.value(ROWS) == [HEAD]


@pytest.mark.parametrize("follows", [False, True])
def test_their_run_goes_over_a_later_release(
    head: Database, packages: dict[str, Path], branch: Path, *, follows: bool
) -> None:
    written(branch, follows=follows)
    succeed("alembic upgrade heads", head, packages["now"], branch)
    succeed("alembic upgrade heads", head, packages["later"], branch)
    assert head.value(ROWS) == [NEXT, "acme_0002"]
    assert f"{NEXT} (head)" in succeed("mlops-db status; mlops-db check", head, packages["later"], branch.parent)


def test_ids_that_cannot_stay(head: Database, packages: dict[str, Path], branch: Path) -> None:
    """A file from before, with a number of ours."""
    package, versions = packages["now"], branch / "migrations" / "versions"
    (versions / f"{NEXT}_own.py").write_text(source(NEXT, HEAD, "pass", "pass"), encoding="utf-8")
    assert_failed(
        run("alembic upgrade heads", head, package, branch), f"has revision {NEXT}, and plain numbers are for"
    )
    text = source("acme_0026", HEAD, "pass", "pass")
    (versions / f"{NEXT}_own.py").rename(versions / "acme_0026_own.py").write_text(text, encoding="utf-8")
    head.psql(f"UPDATE alembic_version SET version_num = '{NEXT}'")  # as the run of the old file left it

    succeed(block("rename").replace("0026", NEXT).replace(f"acme_{NEXT}", "acme_0026"), head, package, branch)

    assert "acme_0026 (beside ours)" in succeed("mlops-db status", head, package, branch.parent)
    forget = block("forget").replace("acme_0002", "acme_0026").replace("0025", HEAD)
    assert "beside" not in succeed(f"{forget}mlops-db status", head, package, branch.parent)


@pytest.mark.parametrize("follows", [False, True])
def test_lint_checks_theirs(head: Database, packages: dict[str, Path], branch: Path, *, follows: bool) -> None:
    written(branch, follows=follows)
    done = run("mlops-db lint --json", head, packages["now"], branch, ALEMBIC_CONFIG="alembic.ini")
    report = json.loads(done.stdout)
    assert report["revisions"] == ["acme_0001_schema_acme.py", "acme_0002_reviews.py"]
    assert {one["file"] for one in report["findings"]} == {"acme_0002_reviews.py"}
    assert {one["rule"] for one in report["findings"]} == {"squawk"}  # int is no bigint


# What depends on ours

FUNCTION = "CREATE FUNCTION acme.skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
ON_VIEWS = {
    'trigger "my ""t" on public.v_model_timeline': f"""
        {FUNCTION};
        CREATE TRIGGER "my ""t" INSTEAD OF INSERT ON v_model_timeline FOR EACH ROW EXECUTE FUNCTION acme.skip()""",
    "rule r on public.v_model_timeline": "CREATE RULE r AS ON INSERT TO v_model_timeline DO INSTEAD NOTHING",
}


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW acme.v AS SELECT model_name FROM v_recent_monitoring", "acme.v would still read"),
        ('CREATE MATERIALIZED VIEW acme."V ü" AS SELECT id FROM model_versions', 'materialized view acme."V ü"'),
        ("CREATE TABLE acme.t (id int REFERENCES retraining_decisions)", "constraint t_id_fkey on acme.t"),
        ("CREATE TABLE t (id int REFERENCES model_versions)", "constraint t_id_fkey on public.t"),
        (
            "CREATE TABLE acme.t (); CREATE POLICY p ON acme.t USING (EXISTS (SELECT FROM model_versions))",
            "policy p on",
        ),
        (
            "CREATE TABLE acme.t (); CREATE RULE r AS ON INSERT TO acme.t DO ALSO SELECT id FROM model_versions",
            "rule r on acme.t",
        ),
        ("CREATE TABLE acme.t () INHERITS (model_versions)", "table acme.t"),
        ("CREATE VIEW acme.v AS SELECT * FROM reporting.production_periods", "view acme.v"),
        ("CREATE VIEW acme.v AS SELECT * FROM reporting.metric_daily(now(), now())", "view acme.v"),
        ("CREATE TABLE acme.t (id int DEFAULT nextval('public.model_versions_id_seq'))", "default value for acme.t.id"),
        (
            'CREATE SCHEMA "A b"; CREATE VIEW "A b"."V ""x" AS SELECT id FROM model_versions',
            'view "A b"."V ""x" depends',
        ),
        (
            "CREATE POLICY p ON model_versions USING (EXISTS (SELECT FROM retraining_decisions))",
            "policy p on public.model_versions depends on public.retraining_decisions",
        ),
        (f"{FUNCTION}; CREATE TRIGGER t AFTER DELETE ON model_versions EXECUTE FUNCTION acme.skip()", "trigger t on"),
    ],
)
def test_what_depends_on_ours_stops_a_downgrade_before_it_begins(head: Database, statement: str, named: str) -> None:
    head.psql(f"CREATE SCHEMA acme; {statement}")
    before = head.dump()
    assert_failed(head.run("mlops-db", "alembic", "downgrade", "base"), named, "nothing was changed")
    assert head.dump() == before
    assert head.value("SELECT version_num FROM alembic_version") == HEAD


def test_a_policy_on_ours_goes_with_its_table_and_keeps_a_column(head: Database) -> None:
    head.query("CREATE POLICY p ON model_versions USING (promoted_at < now())")
    message = "policy p on public.model_versions depends on public.model_versions"
    with pytest.raises(RefusedError, match=message):  # 0005 changes the type of the column
        commands.downgrade(head.settings, "base")
    head.query("DROP POLICY p ON model_versions; CREATE POLICY p ON model_versions USING (id > 7)")
    commands.downgrade(head.settings, "base")
    assert head.value("SELECT to_regclass('model_versions')") is None


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE reporting.t ()", "table reporting.t"),
        ("CREATE VIEW acme.v AS SELECT id FROM monitoring_metrics", "acme.v would still read"),
        ("CREATE TABLE acme.t (r monitoring_metrics)", "table column acme.t.r would still read"),
        ("CREATE POLICY mine ON monitoring_metrics", "would be without policy mine"),
    ],
)
def test_what_a_later_step_looks_for_stops_a_downgrade_before_it_begins(
    head: Database, statement: str, named: str
) -> None:
    head.psql(f"CREATE SCHEMA acme; {statement}")
    with pytest.raises(RefusedError, match=rf"{named}.*; nothing was changed"):
        commands.downgrade(head.settings, "0015")
    assert head.value("SELECT version_num FROM alembic_version") == HEAD


@pytest.mark.parametrize(
    ("at", "view"), [("0004", "v_recent_monitoring"), ("0004", "monitoring_metrics"), ("0020", "v_recent_monitoring")]
)
def test_what_depends_on_ours_stops_an_upgrade_before_it_begins(empty: Database, at: str, view: str) -> None:
    commands.upgrade(empty.settings, at)
    empty.psql(f"CREATE VIEW theirs AS SELECT id FROM {view}")
    with pytest.raises(RefusedError, match=r"theirs.*; nothing was changed"):
        commands.upgrade(empty.settings)
    assert empty.value("SELECT version_num FROM alembic_version") == at
    empty.psql("DROP VIEW theirs")
    commands.upgrade(empty.settings)


def test_what_their_own_revisions_drop_stops_nothing(head: Database, packages: dict[str, Path], branch: Path) -> None:
    written(branch)
    create = (
        "CREATE VIEW acme.v AS SELECT id FROM monitoring_metrics",
        "CREATE TABLE acme.t (id int)",
        "ALTER TABLE acme.t ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES model_versions",
    )
    revision = source("acme_0003", "acme_0002", sql(*create), 'op.drop_constraint("k", "t", schema="acme")')
    (branch / "migrations/versions/acme_0003_x.py").write_text(revision, encoding="utf-8")
    (first,) = (branch / "migrations/versions").glob("acme_0001_*.py")
    first.write_text(first.read_text("utf-8").replace("DROP SCHEMA acme", "DROP SCHEMA acme CASCADE"), encoding="utf-8")
    succeed("alembic upgrade heads; alembic downgrade base", head, packages["now"], branch)
    assert head.value("SELECT count(*) FROM alembic_version") == 0


@pytest.mark.parametrize("named", ON_VIEWS)
@pytest.mark.parametrize(("at", "to"), [(HEAD, "0021"), ("0021", HEAD), ("0004", HEAD)])
def test_a_trigger_or_rule_on_our_view_does_not_go_with_it(empty: Database, named: str, at: str, to: str) -> None:
    commands.upgrade(empty.settings, at)
    empty.psql(f"CREATE SCHEMA acme; {ON_VIEWS[named]}")
    before = empty.dump()
    move = commands.downgrade if at == HEAD else commands.upgrade
    with pytest.raises(
        RefusedError, match=rf"^{re.escape(named)} depends on public.v_model_timeline.*nothing was changed"
    ):
        move(empty.settings, to)
    assert empty.dump() == before
    kind, name = named.split(" ", 1)
    empty.psql(f"DROP {kind} {name}")
    move(empty.settings, to)


def test_a_trigger_on_our_view_goes_by_their_revision(head: Database, packages: dict[str, Path], branch: Path) -> None:
    written(branch)
    create, drop = next(iter(ON_VIEWS.values())), 'DROP TRIGGER "my ""t" ON v_model_timeline; DROP FUNCTION acme.skip'
    revision = source("acme_0003", "acme_0002", sql(create), sql(drop))
    (branch / "migrations/versions/acme_0003_x.py").write_text(revision, encoding="utf-8")
    succeed("alembic upgrade heads; alembic downgrade base", head, packages["now"], branch)
    assert head.value("SELECT count(*) FROM alembic_version") == 0
