"""uv run --isolated --extra evidently pytest -n 0 -m adapters tests/adapters/test_evidently.py."""

import inspect
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_db.adapters.evidently import failed_report_rows, report_rows
from mlops_db.errors import AdapterError
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.examples import example

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what Evidently warns about is not ours
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ROWS = 300

FEATURES = ["age", "income", "plan"]


def frame(shift: float = 0.0, **columns: object) -> pd.DataFrame:
    """The same rows each time, so that nothing drifts but what is shifted."""
    random = np.random.default_rng(1)
    churned = random.integers(0, 2, ROWS)
    return pd.DataFrame(
        {
            "age": random.normal(40 + shift, 10, ROWS),
            "income": random.normal(3000, 500, ROWS),
            "plan": random.choice(["basic", "plus"], ROWS),
            "churned": churned,
            "probability": np.clip(churned * 0.5 + random.uniform(0, 0.5, ROWS), 0, 1),
            **columns,
        }
    ).assign(predicted=lambda rows: (rows.probability > 0.5).astype(int))


def measure(metrics: list[Any], current: pd.DataFrame, reference: pd.DataFrame, **options: Any) -> Any:
    from evidently import BinaryClassification, DataDefinition, Dataset, Report  # noqa: PLC0415  (takes seconds)

    definition = DataDefinition(
        numerical_columns=["age", "income"],
        categorical_columns=["plan"],
        classification=[
            BinaryClassification(target="churned", prediction_labels="predicted", prediction_probas="probability")
        ],
    )
    datasets = [Dataset.from_pandas(each, data_definition=definition) for each in (current, reference)]
    return Report(metrics, **options).run(*datasets)


def by_name(rows: list[dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    assert len({(row["metric_type"], row["metric_name"]) for row in rows}) == len(rows)
    return {f"{row['metric_type']}/{row['metric_name']}": row for row in rows}


def test_a_report_of_drift_and_quality_is_stored_and_a_rerun_replaces_it(db: DatabaseManager) -> None:
    from evidently.presets import ClassificationPreset, DataDriftPreset, DataSummaryPreset  # noqa: PLC0415

    presets = [DataDriftPreset(drift_share=0.3), ClassificationPreset(), DataSummaryPreset()]
    snapshot = measure(presets, frame(shift=8), frame())

    first = db.monitoring.log_many(report_rows(snapshot, model_name="churn"), replace=NOON)
    again = db.monitoring.log_many(report_rows(snapshot, model_name="churn"), replace=NOON)

    assert again.replaced == again.written == first.written > 40
    states = {f"{state.metric_type}/{state.metric_name}": state for state in db.monitoring.latest("churn")}
    assert {state.timestamp for state in states.values()} == {NOON}
    assert states["drift/dataset_drift_detected[drift_share=0.3]"].metric_value == 1
    assert states["drift/number_of_drifted_columns"].metric_value == 1
    assert states["drift/share_of_drifted_columns"].metric_value == pytest.approx(1 / 3)
    assert states["drift/share_of_drifted_columns"].metadata == {"drift_share": 0.3}
    score = states["drift/drift_score.age[method=ks]"]
    assert 0 < score.metric_value < 0.05  # type: ignore[operator]
    assert score.metadata == {"feature": "age", "stat_test": "ks", "threshold": 0.05, "drift_detected": True}
    assert states["drift/drift_score.income[method=ks]"].metadata["drift_detected"] is False
    assert states["performance/accuracy"].metric_value == 1
    assert states["performance/f1_by_label.1"].metadata["label"] == "1"
    assert states["quality/row_count"].metric_value == ROWS
    assert states["quality/missing_value_share.age"].metric_value == 0
    median = states["quality/quantile_value.age[quantile=0.5]"]
    assert 45 < median.metric_value < 51  # type: ignore[operator]
    assert median.metadata == {"feature": "age", "quantile": 0.5}


@pytest.mark.parametrize("shift", [0.0, 8.0])
@pytest.mark.parametrize(
    ("column", "tests"),
    [
        (
            "age",
            ["ks", "psi", "wasserstein", "kl_div", "jensenshannon", "anderson", "cramer_von_mises", "ed", "es", "mannw",
             "t_test", "hellinger", "empirical_mmd", None],
        ),
        ("plan", ["z", "chisquare", "psi", "kl_div", "jensenshannon", "fisher_exact", "g_test", "TVD", "hellinger"]),
        ("plan", [None]),
    ],
)  # fmt: skip
def test_drift_is_detected_where_evidently_detects_it(column: str, tests: list[str | None], shift: float) -> None:
    from evidently.core.metric_types import TestStatus  # noqa: PLC0415
    from evidently.metrics import ValueDrift  # noqa: PLC0415

    plans = np.random.default_rng(2).choice(["basic", "plus"], ROWS, p=[0.5 + shift / 20, 0.5 - shift / 20])
    current, reference = frame(shift, plan=plans), frame()
    for test in tests:
        snapshot = measure([ValueDrift(column=column, method=test)], current, reference, include_tests=True)
        (verdict,) = snapshot.tests_results
        rows = report_rows(snapshot)
        row, tested = rows
        (bounds,) = rows.bounds
        drifted = verdict.status == TestStatus.FAIL
        assert row["metadata"]["drift_detected"] is drifted, (test, row)
        assert tested["metric_value"] == (not drifted)
        below = bounds.lower is not None and row["metric_value"] < bounds.lower
        above = bounds.upper is not None and row["metric_value"] > bounds.upper
        assert (below or above) is drifted, (bounds, row)


def test_a_report_that_cannot_be_computed_is_stored_as_failed(db: DatabaseManager) -> None:
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    with pytest.raises(ValueError, match="empty column 'age'") as failure:
        measure([DataDriftPreset()], frame(age=np.nan), frame())
    db.monitoring.log_many(failed_report_rows(failure.value, features=["age", "income"]))

    states = db.monitoring.latest()
    names = {"dataset_drift_detected", "number_of_drifted_columns", "share_of_drifted_columns"}
    assert {state.metric_name for state in states} == names
    for state in states:
        assert (state.health, state.metric_value) == ("failed", None)
        assert state.metadata["features"] == ["age", "income"]
        assert "empty column 'age'" in state.metadata["error"]
    rows = report_rows(measure([DataDriftPreset()], frame(), frame()))
    db.monitoring.log_many(rows, bounds=rows.bounds)
    assert {state.health for state in db.monitoring.latest()} == {"ok"}


@pytest.mark.parametrize(
    ("drift", "features"),
    [
        ({"method": "psi"}, FEATURES),
        ({"method": "psi", "drift_share": np.float64(0.3), "columns": ("age", "income")}, ["age", "income"]),
        ({"method": "psi", "threshold": 0.2, "include_tests": False, "embeddings": None}, FEATURES),
        ({"per_column_method": {"age": "ks", "income": "psi", "plan": "TVD"}}, FEATURES),
        ({"method": "psi", "num_method": "ks", "cat_threshold": 0.2}, []),
        ({"per_column_threshold": {"age": 0.3}}, []),
    ],
)
def test_failed_rows_are_of_the_series_of_a_report(drift: dict[str, Any], features: list[str]) -> None:
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    measured = by_name(report_rows(measure([DataDriftPreset(**drift)], frame()[FEATURES], frame()[FEATURES])))
    failed = failed_report_rows("no values", features=features or FEATURES, drift=drift)
    assert {each for each in measured if features or "score" not in each} == by_name(failed).keys()
    assert len(failed.left_out) == (0 if features else len(FEATURES))


def test_every_parameter_of_the_preset_is_taken() -> None:
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    for name in inspect.signature(DataDriftPreset).parameters:
        assert len(failed_report_rows("no values", drift={name: None})) == 3, name


def test_a_score_that_is_no_number_is_failed_and_so_is_the_dataset() -> None:
    from evidently.metrics import DriftedColumnsCount, ValueDrift  # noqa: PLC0415

    constant = frame(age=40.0)
    methods = {"age": "t_test", "income": "ks"}
    metrics = [
        DriftedColumnsCount(columns=list(methods), per_column_method=methods),
        *(ValueDrift(column=column, method=method) for column, method in methods.items()),
    ]
    rows = by_name(report_rows(measure(metrics, constant, constant)))

    age = rows["drift/drift_score.age[method=t_test]"]
    assert age["metric_value"] is None
    assert age["metadata"]["error"] == "Evidently computed nan"
    assert "drift_detected" not in age["metadata"]
    assert rows["drift/drift_score.income[method=ks]"]["metric_value"] is not None
    for name in ("dataset_drift_detected", "number_of_drifted_columns", "share_of_drifted_columns"):
        row = rows[f"drift/{name}[columns=[age,income],per_column_method={{age=t_test,income=ks}}]"]
        assert row["metric_value"] is None
        assert row["metadata"]["error"] == "no drift score of age"
        assert row["metadata"]["at_least"] == {"count": 0, "share": 0}


def test_the_example_of_the_page_stores_a_report_and_one_that_cannot_be_computed(
    head: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    page: dict[str, Any] = {}
    exec(example("docs/storing.md", "evidently"), page)  # noqa: S102  (that is what is tested)
    found = []
    signed_up = pd.Timestamp("2026-01-01")  # a column that Evidently measures no drift of
    for current in (frame(), frame(income=np.nan), frame()):
        page["measure_drift"](current.assign(signed_up=signed_up), frame(signed_up=signed_up), NOON)
        found += head.query("SELECT count(*) FILTER (WHERE health = 'failed'), count(*) FROM v_recent_monitoring")
    page["get_db_manager"]().close()
    assert found == [(0, 6), (6, 6), (0, 6)]


def test_different_measurements_have_different_names() -> None:
    from evidently.metrics import InListValueCount, ValueDrift  # noqa: PLC0415

    metrics = [
        ValueDrift(column="age", method="ks"),
        ValueDrift(column="age", method="psi"),
        InListValueCount(column="plan", values=["basic"]),
        InListValueCount(column="plan", values=["plus"]),
    ]
    rows = by_name(report_rows(measure(metrics, frame(), frame()), timestamp=NOON))
    assert list(rows) == [
        "drift/drift_score.age[method=ks]",
        "drift/drift_score.age[method=psi]",
        "quality/in_list_value_count.plan[values=[basic]]",
        "quality/in_list_value_share.plan[values=[basic]]",
        "quality/in_list_value_count.plan[values=[plus]]",
        "quality/in_list_value_share.plan[values=[plus]]",
    ]
    assert {row["timestamp"] for row in rows.values()} == {NOON}


def test_the_view_says_low_or_high_where_the_report_says_that_something_is_wrong(db: DatabaseManager) -> None:
    from evidently.metrics import DriftedColumnsCount, MeanValue, RowCount, ValueDrift  # noqa: PLC0415
    from evidently.tests import gt, lte  # noqa: PLC0415

    metrics = [
        DriftedColumnsCount(columns=["age", "income"], drift_share=0.5),  # reached by one of two
        ValueDrift(column="age", method="ks"),
        ValueDrift(column="age", method="psi"),
        ValueDrift(column="income", method="psi"),
        MeanValue(column="age", tests=[lte(45)]),
        RowCount(tests=[gt(ROWS)]),  # not reached by the number itself
    ]
    rows = report_rows(measure(metrics, frame(shift=8), frame()), model_name="churn")
    db.monitoring.log_many(rows, replace=NOON, bounds=rows.bounds)
    states = {f"{state.metric_type}/{state.metric_name}": state for state in db.monitoring.latest("churn")}
    health = {name: state.health for name, state in states.items() if not name.startswith("test/")}
    assert health == {
        "drift/dataset_drift_detected[columns=[age,income]]": "high",
        "drift/number_of_drifted_columns[columns=[age,income]]": "ok",
        "drift/share_of_drifted_columns[columns=[age,income]]": "high",
        "drift/drift_score.age[method=ks]": "low",
        "drift/drift_score.age[method=psi]": "high",
        "drift/drift_score.income[method=psi]": "ok",
        "quality/mean_value.age": "high",
        "quality/row_count": "low",
    }
    for name, state in states.items():
        if name.startswith("drift/drift_score"):
            assert state.metadata["drift_detected"] is (state.health != "ok")


@pytest.mark.parametrize(
    ("column", "tests"),
    [
        ("age", ["ks", "psi", "wasserstein", "kl_div", "jensenshannon", "anderson", "cramer_von_mises", "ed", "es",
                 "mannw", "t_test", "hellinger", "empirical_mmd"]),
        ("plan", ["z", "chisquare", "psi", "kl_div", "jensenshannon", "fisher_exact", "g_test", "TVD", "hellinger"]),
    ],
)  # fmt: skip
def test_at_the_threshold_itself_the_view_says_what_evidently_says(
    db: DatabaseManager, column: str, tests: list[str]
) -> None:
    from evidently.metrics import ValueDrift  # noqa: PLC0415

    current, reference = frame(0.5, plan=np.random.default_rng(3).choice(["basic", "plus"], ROWS)), frame()
    at_threshold = set()
    for test in tests:
        score = report_rows(measure([ValueDrift(column=column, method=test)], current, reference))[0]["metric_value"]
        for threshold in (math.nextafter(score, 0), score, math.nextafter(score, 9)):
            metric = ValueDrift(column=column, method=test, threshold=threshold)
            rows = report_rows(measure([metric], current, reference, include_tests=True))
            db.monitoring.log_many(rows, replace=NOON, bounds=rows.bounds)
            states = {state.metric_type: state for state in db.monitoring.latest()}
            drifted = states["test"].metric_value == 0
            assert (states["drift"].health != "ok") is drifted, (test, threshold)
            assert states["drift"].metadata["drift_detected"] is drifted
            if states["drift"].metric_value == threshold:
                at_threshold.add(drifted)
            db.monitoring.forget("drift", rows[0]["metric_name"], with_rows=True)
            db.monitoring.forget("test", rows[1]["metric_name"], with_rows=True)
    assert at_threshold == {True, False}


ODD = [
    "a.b",
    "a,b",
    'q"q',
    "größe",
    "two\nlines",
    "nul\0here",
    "x" * 300,
    " blank",
    "[x]",
    "1",
    "true",
    "\U0001f600",
    "",
]


def test_names_and_labels_of_every_kind_are_stored_the_same_from_every_form(
    db: DatabaseManager, tmp_path: Path
) -> None:
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
    from evidently.core.report import Snapshot  # noqa: PLC0415
    from evidently.metrics import CategoryCount, MeanValue  # noqa: PLC0415
    from evidently.metrics.group_by import GroupBy  # noqa: PLC0415
    from evidently.presets import DataDriftPreset, DataSummaryPreset  # noqa: PLC0415

    rows = pd.DataFrame({name: np.random.default_rng(1).normal(3, 1, 26) for name in ODD}).assign(of=ODD * 2)
    definition = DataDefinition(numerical_columns=ODD, categorical_columns=["of"])
    dataset = Dataset.from_pandas(rows, data_definition=definition)
    metrics = [
        DataDriftPreset(columns=ODD, method="ks"),
        DataSummaryPreset(),
        GroupBy(MeanValue(column="a.b"), "of"),
        *(CategoryCount(column="of", category=label) for label in ODD),
    ]
    snapshot = Report(metrics, include_tests=True).run(dataset, dataset)
    path = tmp_path / "report.json"
    snapshot.save_json(str(path))
    live = report_rows(snapshot)
    for form in (snapshot.dict(), snapshot.json(), path, snapshot.dumps(), Snapshot.loads(snapshot.dumps())):
        read = report_rows(form)
        assert (by_name(read), read.left_out, read.bounds) == (by_name(live), live.left_out, live.bounds)
    assert {row["metadata"]["feature"] for row in live if row["metadata"] and "feature" in row["metadata"]} == {
        *ODD, "of", "nul\\u0000here",
    } - {"nul\0here"}  # fmt: skip
    assert db.monitoring.log_many(live, replace=NOON, bounds=live.bounds).written == len(live) > 300


def test_the_smallest_threshold_is_stored_as_a_bound(db: DatabaseManager) -> None:
    from evidently.metrics import ValueDrift  # noqa: PLC0415

    rows = report_rows(measure([ValueDrift(column="age", method="psi", threshold=0.0)], frame(), frame()))
    db.monitoring.log_many(rows, bounds=rows.bounds)
    (state,) = db.monitoring.latest()
    assert (state.metric_value, state.health) == (0.0, "high")  # Evidently says "drifted" at 0, too
    assert state.metadata["drift_detected"] is True


def test_tables_and_counts_of_every_value_are_left_out_and_named() -> None:
    from evidently.metrics import ColumnCorrelations, UniqueValueCount  # noqa: PLC0415

    snapshot = measure([UniqueValueCount(column="plan"), ColumnCorrelations(column_name="age")], frame(), frame())
    rows = report_rows(snapshot)
    assert rows == []
    assert {each.name for each in rows.left_out} == {"unique_value_count.plan"} | {
        f"column_correlation_matrix.age[kind={kind}]" for kind in ("pearson", "spearman", "kendall")
    }
    assert "CategoryCount" in rows.left_out[0].reason


def test_a_snapshot_that_was_saved_and_loaded_gives_the_same_rows() -> None:
    from evidently.core.report import Snapshot  # noqa: PLC0415
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    snapshot = measure([DataDriftPreset()], frame(), frame())
    assert report_rows(Snapshot.loads(snapshot.dumps())) == report_rows(snapshot)


def test_the_report_instead_of_its_snapshot_is_refused() -> None:
    from evidently import Report  # noqa: PLC0415

    with pytest.raises(AdapterError, match="this Report is not a report of Evidently") as refused:
        report_rows(Report([]))  # type: ignore[arg-type]  # that is what is tested
    assert "Report(...).run(" in refused.value.hint


def test_a_saved_page_is_refused_with_what_to_save(tmp_path: Path) -> None:
    from evidently.metrics import RowCount  # noqa: PLC0415

    path = tmp_path / "report.html"
    measure([RowCount()], frame(), frame()).save_html(str(path))
    with pytest.raises(AdapterError, match="is HTML") as refused:
        report_rows(path)
    assert "save_json" in refused.value.hint
