"""Revision 0009: whoever records a decision is told by the server; of older ones nobody knows."""

from dataclasses import replace

import pytest

from mlops_db.errors import DataLossError
from mlops_db.migration import commands
from support import roles
from support.database import Database

INSERT = "INSERT INTO retraining_decisions (action, candidate_mlflow_run_id) VALUES ('reject', 'run')"
DECIDED_BY = "SELECT decided_by FROM retraining_decisions ORDER BY id"


def test_old_decisions_stay_as_they_are_and_new_ones_are_of_the_sessions_login(empty: Database) -> None:
    written = "SELECT pg_relation_filenode('retraining_decisions'), xmin FROM retraining_decisions"
    commands.upgrade(empty.settings, "0008")
    empty.query(INSERT)
    before = empty.query(written)

    commands.upgrade(empty.settings, "0009")

    assert empty.query(written) == before
    assert empty.query(DECIDED_BY) == [(None,)]
    assert empty.value("SELECT is_rollback FROM retraining_decisions") is False
    empty.query(INSERT)
    assert empty.query(DECIDED_BY) == [(None,), (empty.value("SELECT session_user"),)]


def test_the_login_counts_and_not_the_role_in_force(head: Database) -> None:
    with roles.role(head, "jobs"):
        head.query(
            "GRANT INSERT ON retraining_decisions TO jobs; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO jobs"
        )
        head.query("SET ROLE jobs")
        head.query(INSERT)
        head.query("RESET ROLE")
        head.query("SET SESSION AUTHORIZATION jobs")
        head.query(INSERT)
        head.query("RESET SESSION AUTHORIZATION")
    assert head.query(DECIDED_BY) == [(head.value("SELECT session_user"),), ("jobs",)]


def test_production_does_not_lose_who_decided(head: Database) -> None:
    head.query(INSERT)
    head.query("UPDATE retraining_decisions SET is_rollback = true")
    production = replace(head.settings, environment="production")
    with pytest.raises(DataLossError, match=r"1 row of retraining_decisions\.decided_by"):
        commands.downgrade(production, "0008")
    head.query("UPDATE retraining_decisions SET decided_by = NULL")
    with pytest.raises(DataLossError, match=r"1 row of retraining_decisions\.is_rollback"):
        commands.downgrade(production, "0008")
    head.query("UPDATE retraining_decisions SET is_rollback = false")
    commands.downgrade(production, "0008")
