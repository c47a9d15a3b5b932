"""The periods in production that the views tell are those that the storage layer made."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.errors import TransitionError, UnknownModelVersionError
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.version_imports import KnownVersion, import_versions
from support.database import Database

pytestmark = pytest.mark.full_postgresql

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
VERSIONS = "abcd"
models = count()


def known(model: str, version: str, serving: str) -> KnownVersion:
    return KnownVersion(
        mlflow_run_id=f"{model} {version}",
        model_version=version,
        status="production" if version == serving else "staging",
        f1_score=None,
        brier_score=None,
        created_at=NOON,
        changed_at=NOON + timedelta(hours=VERSIONS.index(version)),
    )


def import_into(db: DatabaseManager, model: str, serving: str) -> None:
    versions = [known(model, version, serving) for version in VERSIONS]
    import_versions(db, model, versions, source="their registry", reasoning="as there")


# Each takes the storage layer, the model and one of its versions.
CALLS: dict[str, Callable[[DatabaseManager, str, str], object]] = {
    "register": lambda db, model, one: db.models.register(f"{model} {one}", one, model_name=model),
    "promote": lambda db, model, one: db.models.promote(f"{model} {one}"),
    "promote for other reasons": lambda db, model, one: db.models.promote(
        f"{model} {one}", even_rolled_back=True, reasoning="again"
    ),
    "reject": lambda db, model, one: db.models.reject(f"{model} {one}"),
    "archive": lambda db, model, one: db.models.archive(f"{model} {one}", even_production=True),
    "rollback": lambda db, model, _: db.models.rollback(model, yes=True),
    "import": import_into,
}
calls = st.lists(st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(VERSIONS)), min_size=4, max_size=12)
REGISTERED_FIRST = [("register", version) for version in VERSIONS[:2]]


@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=calls)
def test_the_views_tell_what_was_in_production_and_when(
    db: DatabaseManager, head: Database, made: list[tuple[str, str]]
) -> None:
    model = f"model {next(models)}"  # a new one in each example, because these calls commit
    changes: list[tuple[str, datetime | None]] = []
    for call, version in REGISTERED_FIRST + made:
        with suppress(TransitionError, UnknownModelVersionError):
            CALLS[call](db, model, version)
        current = db.models.production(model)
        # Nobody writes down when a version is archived, so it counts until another one is promoted.
        if current and (not changes or changes[-1][0] != current.model_version):
            changes.append((current.model_version, current.promoted_at))
    serving = db.models.production(model)

    expected: list[tuple[Any, ...]] = []
    for position, (version, since) in enumerate(changes):
        until = changes[position + 1][1] if position + 1 < len(changes) else None
        returned = version in {earlier for earlier, *_ in expected}
        expected.append((version, since, until, serving is not None and until is None, returned))

    assert expected == head.query(
        "SELECT model_version, since, until, in_production, returned FROM reporting.production_periods"
        " WHERE model_name = %s ORDER BY since",
        [model],
    )
    nothing = {version.model_version: (version.model_version, None, None) for version in db.models.list(model)}
    latest = nothing | {version: (version, since, until) for version, since, until, *_ in expected}
    assert sorted(latest.values()) == head.query(
        "SELECT model_version, promoted_at, production_until FROM v_model_timeline WHERE model_name = %s ORDER BY 1",
        [model],
    )
