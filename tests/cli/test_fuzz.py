"""Five hundred inputs that nobody meant: the exit codes, the words and the silence that are promised for each."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from urllib.parse import unquote

import pytest
from psycopg import sql

from support.database import Database
from support.forked_commands import Commands
from support.fuzzed import READER, inputs
from support.process import NARRATION, SECRET
from support.roles import role

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

SEED = 11
INPUTS = 500
EXIT_CODES = {"mlops-db": {0, 1, 2, 64}, "alembic": {0, 255}}
CATALOGUE = """
    SELECT md5(string_agg(x, '' ORDER BY x)) FROM (
        SELECT concat_ws(' ', 'class', oid, relname, relnamespace, relfilenode, relacl) FROM pg_class
         WHERE relnamespace <> 'pg_toast'::regnamespace
        UNION ALL SELECT concat_ws(' ', 'attribute', attrelid, attname, atttypid, attacl) FROM pg_attribute
         WHERE attrelid >= 16384
        UNION ALL SELECT concat_ws(' ', 'routine', oid, proname, proacl) FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspacl) FROM pg_namespace
        UNION ALL SELECT concat_ws(' ', 'database', oid, datname, datacl) FROM pg_database
        UNION ALL SELECT concat_ws(' ', 'role', oid, rolname, rolconfig) FROM pg_roles
    ) AS catalogue (x)
"""


def test_every_command_line_gets_a_documented_code_and_one_line_with_a_hint(head: Database) -> None:
    where = head.settings
    given = list(islice(inputs(SEED, database=where.database, host=where.host, port=where.port), INPUTS))
    assert len(set(given)) == INPUTS
    before = databases(head)
    ended: dict[int, int] = {}
    faults: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(role(head, READER, "NOLOGIN"))
        stack.callback(lambda: drop_all_but(head, before))
        runner = Commands(head.environment)
        stack.callback(runner.stop)
        catalogue = fingerprint(head)
        for one in given:
            done = runner.run(*one.arguments, **dict(one.variables))
            faults += [f"{one}: {fault}: {done.stdout[-300:]}{done.stderr[-600:]}" for fault in faults_of(done)]
            ended[done.returncode] = ended.get(done.returncode, 0) + 1
            now = fingerprint(head)
            if done.returncode != 0 and now != catalogue:
                faults.append(f"{one} changed the catalogue: {done.stderr}")
            catalogue = now
    assert not faults, "\n".join(faults)
    # Each kind of end is among them, or the inputs would say little.
    assert set(ended) == {0, 1, 2, 64, 255}, ended
    assert ended[0] > INPUTS / 5, ended


def faults_of(done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    everything = done.stdout + done.stderr
    if done.returncode not in EXIT_CODES[done.args[0]]:
        yield f"exits with {done.returncode}"
    if "Traceback" in everything:
        yield "a traceback"
    if SECRET in everything or SECRET in unquote(everything):
        yield "the password"
    lines = [line for line in everything.splitlines() if not NARRATION.match(line)]
    one_line_and_a_hint = [line.partition(": ")[0] for line in lines] in (["FAILED", "Hint"], ["error", "hint"])
    if not (done.returncode == 0 or one_line_and_a_hint or is_behind(done) or is_json(done)):
        yield "not one line and a hint"


def is_json(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether `--json` reports a failure."""
    return "--json" in done.args and json.loads(done.stdout).get("schema") == "error-1"


def is_behind(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether `status` or `check` says with its exit code that the database is not at head, or differs."""
    message = ("\nnext      ", '"state": "behind"', " difference\n", " differences\n")
    return done.returncode == 1 and any(text in done.stdout for text in message)


def databases(database: Database) -> set[str]:
    return {name for (name,) in database.query("SELECT datname FROM pg_database")}


def drop_all_but(database: Database, known: set[str]) -> None:
    for name in databases(database) - known:
        database.connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def fingerprint(database: Database) -> tuple[str, list[tuple[str, ...]]]:
    """What the catalogues of the server say, and which revision the database is at."""
    recorded = "SELECT version_num FROM alembic_version"
    at = database.query(recorded) if database.value("SELECT to_regclass('alembic_version')") else []
    return database.value(CATALOGUE), at
