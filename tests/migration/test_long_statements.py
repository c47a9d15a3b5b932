"""How long a statement may take, in every revision of the project: what `-x statement-timeout` says, if it says."""

import re
from collections.abc import Sequence

import pytest

from support.database import ROOT, Database

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

SEE = """
CREATE TABLE public.seen (place bigserial, tag text, statement text, lock text);
CREATE FUNCTION public.see() RETURNS event_trigger LANGUAGE plpgsql AS $function$
BEGIN
    INSERT INTO public.seen (tag, statement, lock)
    VALUES (tg_tag, current_setting('statement_timeout'), current_setting('lock_timeout'));
END
$function$;
CREATE EVENT TRIGGER see ON ddl_command_start EXECUTE FUNCTION public.see();
"""


def upgrade_by(database: Database, how: str, options: Sequence[str]) -> None:
    done = database.run("alembic", *options, "upgrade", "head", *(["--sql"] if how == "script" else []))
    assert done.returncode == 0, done.stdout
    if how == "script":
        database.psql(done.stdout)


@pytest.mark.parametrize("how", ["run", "script"])
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ((), {("30s", "1s"), ("6h", "1s"), ("6h", "0"), ("6h", "10min")}),
        # An index that is built concurrently has to wait for older transactions, the key of a copy that nobody uses for
        # autovacuum.
        (
            ("-x", "statement-timeout=77s", "-x", "lock-timeout=7s"),
            {("77s", "7s"), ("77s", "0"), ("77s", "10min")},
        ),
    ],
    ids=["default", "given"],
)
def test_each_statement_may_take_the_timeout_of_the_option(
    empty: Database, how: str, options: Sequence[str], seen: set[tuple[str, str]]
) -> None:
    empty.query(SEE)
    upgrade_by(empty, how, options)
    assert set(empty.query("SELECT statement, lock FROM public.seen")) == seen
    assert empty.query("SELECT DISTINCT tag FROM public.seen WHERE lock = '10min'") == [("ALTER TABLE",)]


def test_no_revision_says_a_time_that_nobody_can_change() -> None:
    folder = ROOT / "migrations" / "versions"
    for path in [*folder.glob("*.py"), *folder.glob("sql/*.sql")]:
        assert not re.search(r"statement_timeout\s*(=|TO)", path.read_text(encoding="utf-8")), path.name
