"""Files of Evidently 0.3 to 0.6, in the shapes that those versions save. No Evidently is needed to read them."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.adapters.evidently import report_rows
from mlops_db.adapters.evidently.documents import read_document
from mlops_db.adapters.evidently.legacy import is_legacy, read_legacy
from mlops_db.adapters.evidently.measurement import LeftOut, Measurement
from mlops_db.errors import AdapterError
from support.legacy_reports import lost

pytestmark = pytest.mark.one_postgresql

FILES = Path(__file__).parent / "evidently_files"
REPORTS = ["report_0_3", "report_0_4", "report_0_6", "test_suite_0_6"]
NO_NUMBER = "a plot, a list or a text, and no number"
A_LIST = "a list or a text, and no number"
NO_VALUE = "Evidently gave no value"
COUNTS = "a count of each value: they would be series without end"
REFERENCE = LeftOut("reference", "values of the reference data: the rows are of the current data")


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text())
    return loaded


def read(document: dict[str, Any]) -> tuple[dict[str, Measurement], set[LeftOut]]:
    """The rows by their names, with their bounds, and what is left out."""
    rows = report_rows(document)
    bounds = {(each.metric_type, each.metric_name): (each.lower, each.upper) for each in rows.bounds}
    by_name = {
        f"{row['metric_type']}/{row['metric_name']}": Measurement(
            row["metric_type"],
            row["metric_name"],
            row["metric_value"],
            row["metadata"] or {},
            *bounds.get((row["metric_type"], row["metric_name"]), (None, None)),
        )
        for row in rows
    }
    assert len(by_name) == len(rows)
    return by_name, set(rows.left_out)


def values(rows: dict[str, Measurement]) -> dict[str, float | None]:
    return {name: row.value for name, row in rows.items()}


def report(*metrics: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"version": "0.6.7", "metrics": [{"metric": name, "result": result} for name, result in metrics]}


def drift(score: object, **given: object) -> dict[str, Any]:
    result = {"stattest_name": "K-S p_value", "stattest_threshold": 0.05, "drift_detected": False, **given}
    return {"column_name": "tenure", "drift_score": score, **result}


def test_the_drift_of_0_3_has_the_names_of_0_7() -> None:
    rows, left_out = read(document("report_0_3"))

    assert values(rows) == {
        "drift/dataset_drift_detected[drift_share=0.25]": 1,  # the table says no, by its default
        "drift/number_of_drifted_columns": 1,
        "drift/share_of_drifted_columns": pytest.approx(1 / 3),
        "drift/drift_score.tenure[method=wasserstein]": 0.25,
        'drift/drift_score."net.income"[method=ks]': 0.5,
        "drift/drift_score.city[method=chisquare]": 0.125,
        "quality/column_value_list.city.number_in_list[values=[Bonn]]": 3,
        "quality/column_value_list.city.number_not_in_list[values=[Bonn]]": 5,
        "quality/column_value_list.city.share_in_list[values=[Bonn]]": 0.375,
        "quality/column_value_list.city.share_not_in_list[values=[Bonn]]": 0.625,
        "quality/column_value_list.city.rows_count[values=[Bonn]]": 8,
        "quality/conflict_target.number_not_stable_target": 2,
        "quality/conflict_target.share_not_stable_target": 0.25,
    }
    assert {name: (row.lower, row.upper) for name, row in rows.items() if row.metric_type == "drift"} == {
        "drift/dataset_drift_detected[drift_share=0.25]": (None, 0),
        "drift/number_of_drifted_columns": (None, None),
        "drift/share_of_drifted_columns": (None, math.nextafter(0.25, 0)),
        "drift/drift_score.tenure[method=wasserstein]": (None, math.nextafter(0.1, 0)),
        'drift/drift_score."net.income"[method=ks]': (math.nextafter(0.05, 1), None),
        "drift/drift_score.city[method=chisquare]": (0.05, None),
    }
    assert rows["drift/dataset_drift_detected[drift_share=0.25]"].metadata == {
        "drift_share": 0.25,
        "number_of_columns": 3,
    }
    assert rows["drift/drift_score.tenure[method=wasserstein]"].metadata == {
        "feature": "tenure",
        "column_type": "num",
        "stat_test": "wasserstein",
        "threshold": 0.1,
        "drift_detected": True,
    }
    assert left_out == {
        LeftOut("data_drift_table.dataset_drift", "its drift_share is unknown; that of DatasetDriftMetric is known"),
        LeftOut("column_drift.tenure.current", NO_NUMBER),
        LeftOut('column_drift."net.income".current', NO_NUMBER),
        LeftOut("column_drift.city.current", NO_NUMBER),
        LeftOut("column_value_list.city.values_in_list[values=[Bonn]]", COUNTS),
        LeftOut("column_value_list.city.values_not_in_list[values=[Bonn]]", COUNTS),
        REFERENCE,
    }


def test_ranking_and_regression_of_0_4_are_performance_of_the_current_data() -> None:
    rows, left_out = read(document("report_0_4"))

    assert values(rows) == {
        "performance/precision_top_k[k=2]": 0.375,
        "performance/mrr[k=2]": 0.625,  # of a list for each k, the second
        "performance/personalization[k=2]": 0.5,
        "performance/r2_score": 0.75,
        "performance/rmse": 3,
        "performance/mean_error.mean": -0.5,
        "performance/mean_error.std": 2.5,
        "performance/mae.mean": 2,
        "performance/mae.std": 1.25,
        "performance/mape.mean": 12.5,
        "performance/mape.std": 6.25,
        "performance/abs_max_error": 8,
        "performance/regression_quality.underperformance.majority.mean_error": -0.25,
        "performance/regression_quality.underperformance.majority.std_error": 1.5,
        "performance/regression_quality.rmse_default": 6,
        "performance/regression_quality.error_normality.slope": 2,
    }
    assert left_out == {
        LeftOut("precision_top_k.current[k=2]", A_LIST),
        LeftOut("mrr.current[k=2]", A_LIST),
        LeftOut("personalization.table[k=2]", COUNTS),
        LeftOut("rec_cases_table.user_ids", A_LIST),
        LeftOut("rec_cases_table.current", "a table"),
        LeftOut("rec_cases_table.train", "a table"),
        LeftOut("regression_quality.columns", NO_NUMBER),
        LeftOut("regression_quality.error_normality.order_statistic_medians_x", A_LIST),
        LeftOut("regression_quality.error_bias", NO_VALUE),
        REFERENCE,
    }


def test_every_metric_of_0_6_is_named_by_its_column_parameters_and_path() -> None:
    rows, left_out = read(document("report_0_6"))
    f1 = pytest.approx(5 / 9)

    assert values(rows) == {
        "performance/accuracy": 0.75,
        "performance/precision": 0.625,
        "performance/recall": 0.5,
        "performance/f1_score": f1,
        "performance/tpr": 0.5,
        "performance/tnr": 0.875,
        "performance/fpr": 0.125,
        "performance/fnr": 0.5,
        "performance/precision_by_label.no": 0.875,
        "performance/recall_by_label.no": 0.75,
        "performance/f1_by_label.no": pytest.approx(21 / 26),
        "performance/roc_auc_by_label.no": 0.8125,
        "performance/classification_quality_by_class.metrics.no.support": 24,
        "performance/precision_by_label.yes": 0.625,
        "performance/recall_by_label.yes": 0.5,
        "performance/f1_by_label.yes": f1,
        "performance/roc_auc_by_label.yes": 0.8125,
        "performance/classification_quality_by_class.metrics.yes.support": 8,
        "quality/quantile_value.tenure[quantile=0.75]": 31.5,
        "quality/quantile_value.tenure[quantile=0.5]": 19,
        "quality/row_count": 32,
        "quality/dataset_summary.number_of_missing_values": 3,
        "quality/dataset_summary.nans_by_columns.tenure": 3,
        "quality/dataset_summary.nans_by_columns.city": 0,
        "quality/column_summary.city.number_of_rows": 32,
        "quality/column_summary.city.unique": 2,
        "quality/column_summary.city.most_common_percentage": 62.5,
        "quality/column_summary.city.new_in_current_values_count": 0,
        "drift/embeddings_drift.letters.drift_score[method_name=model]": 0.625,
        "drift/embeddings_drift.letters.drift_detected[method_name=model]": 1,
        "drift/drift_score.tenure[method=gap of means]": 0.75,
    }
    own = rows["drift/drift_score.tenure[method=gap of means]"]  # a distance, whose bound nobody knows
    assert (own.lower, own.upper, own.metadata["drift_detected"]) == (None, None, True)
    assert left_out == {
        LeftOut("roc_auc", NO_VALUE),
        LeftOut("log_loss", NO_VALUE),
        LeftOut("classification_quality_by_class.columns", NO_NUMBER),
        LeftOut("classification_quality_by_class.roc_aucs", NO_VALUE),
        LeftOut("classification_confusion_matrix.matrix", NO_NUMBER),
        LeftOut("classification_confusion_matrix.target_names", NO_VALUE),
        LeftOut("classification_class_balance", "it holds no number: a plot, or a list"),
        LeftOut("dataset_summary.target", A_LIST),
        LeftOut("dataset_summary.id_column", NO_VALUE),
        LeftOut("column_summary.city.most_common", "a value of the column, which measures nothing"),
        LeftOut("column_drift.tenure.current", NO_NUMBER),
        REFERENCE,
    }


def test_the_tests_of_a_suite_are_passed_or_not_and_an_error_is_neither() -> None:
    rows, left_out = read(document("test_suite_0_6"))

    assert values(rows) == {
        "test/number_of_rows[condition=[gte]]": 1,
        "test/number_of_rows[condition=[lt]]": 0,
        "test/quantile_value.tenure[condition=[eq],quantile=0.25]": 0,
        "test/mean_value": None,
        "test/value_range.tenure": 1,
        "test/drift_per_column.tenure[method=psi]": 0,
        "test/precision_score_by_class.yes[condition=[gt]]": 1,
        "test/precision_top_k[condition=[gt],k=2]": 1,
        "test/accuracy_score[condition=[gt]]": 1,
    }
    assert {(row.lower, row.upper) for row in rows.values()} == {(None, None)}
    assert rows["test/quantile_value.tenure[condition=[eq],quantile=0.25]"].metadata["status"] == "WARNING"
    assert rows["test/mean_value"].metadata["error"] == "Test failed with exceptions: city should be numerical or bool"
    assert rows["test/drift_per_column.tenure[method=psi]"].metadata["parameters"]["score"] == 0.25
    assert [each.name for each in left_out] == ["accuracy_score[condition=[gt]]"]  # the row tells one threshold of two


@pytest.mark.parametrize("name", REPORTS)
def test_names_and_values_do_not_follow_from_the_order(name: str) -> None:
    given = document(name)
    turned = {key: part[::-1] if isinstance(part, list) else part for key, part in given.items()}
    turned = json.loads(json.dumps(turned, sort_keys=True))

    assert read(turned) == read(given)


def test_a_score_that_could_not_be_computed_fails_the_data_set_that_it_belongs_to() -> None:
    counts = {"number_of_columns": 2, "number_of_drifted_columns": 0, "share_of_drifted_columns": 0.0}
    whole = {**counts, "dataset_drift": False}
    columns = {"tenure": drift(math.nan), "city": drift(0.5, column_name="city")}
    other = {**whole, "number_of_columns": 1, "drift_share": 0.5}

    rows, _ = read(report(("DataDriftTable", {**whole, "drift_by_columns": columns})))
    assert values(rows) == {
        "drift/dataset_drift_detected": None,
        "drift/number_of_drifted_columns": None,
        "drift/share_of_drifted_columns": None,
        "drift/drift_score.tenure[method=ks]": None,
        "drift/drift_score.city[method=ks]": 0.5,
    }
    assert rows["drift/drift_score.tenure[method=ks]"].metadata["error"] == "Evidently computed nan"
    assert rows["drift/number_of_drifted_columns"].metadata == {
        "number_of_columns": 2,
        "error": "no drift score of tenure",
        "at_least": {"count": 0, "share": 0.0},
    }
    apart, _ = read(report(("DatasetDriftMetric", other), ("ColumnDriftMetric", drift(math.nan))))
    assert apart["drift/dataset_drift_detected"].value == 0
    assert apart["drift/drift_score.tenure[method=ks]"].value is None


def test_ambiguous_results_of_a_file_are_not_read_as_one_of_the_two() -> None:
    qualities = [("ClassificationQualityMetric", {"current": {"precision": value}}) for value in (0.5, 0.75)]
    rows, _ = read(report(*qualities))
    assert values(rows) == {"performance/precision": None}

    thresholds = [("ColumnDriftMetric", drift(0.5, stattest_threshold=threshold)) for threshold in (0.05, 0.1)]
    rows, left_out = read(report(*thresholds))
    assert values(rows) == {"drift/drift_score.tenure[method=ks]": 0.5}
    assert [each.name for each in left_out] == ["drift_score.tenure[method=ks]"]


@pytest.mark.parametrize(
    ("name", "loading"),
    [("snapshot_0_3", 'Report.load("snapshot.json").save_json'), ("snapshot_0_6", 'TestSuite.load("snapshot.json")')],
)
def test_a_snapshot_is_refused_with_the_way_to_convert_it(name: str, loading: str) -> None:
    assert is_legacy(document(name))
    with pytest.raises(AdapterError, match=r"snapshot of Evidently 0\.3 to 0\.6") as refused:
        list(read_legacy(read_document(document(name))))
    assert loading in str(refused.value.hint)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"metrics": [], "tests": []},
        {"metrics": [{"id": "1", "metric_name": "RowCount()", "config": {}, "value": 3.0}], "tests": []},
        {"metrics": [{"id": "1", "metric_id": "RowCount()", "value": 3.0}]},
        {"metrics": [], "tests": [{"id": "lt", "name": "Row count", "metric_config": {}, "status": "SUCCESS"}]},
        {"metric_results": {}, "report": {"items": []}},
        {"version": "1.0"},
    ],
)
def test_documents_of_0_7_are_no_legacy_ones(other: dict[str, Any]) -> None:
    assert not is_legacy(other)


def test_a_report_without_metrics_is_legacy_and_empty() -> None:
    assert read({"version": "0.4.40", "metrics": [], "timestamp": "2026-03-01 12:00:00"}) == ({}, set())


@pytest.mark.parametrize("wrong", [{"metrics": 3}, {"metrics": ["x"]}, {"tests": [{"name": 3}]}, {"metrics": {"a": 1}}])
def test_what_is_no_report_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match="not those of a report"):
        list(read_legacy({"version": "0.6.7", **wrong}))


PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
numbers = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from([10**400, -(10**400), math.nan, -0.0, 1e308])
)
scalars = st.one_of(st.none(), numbers, st.text(max_size=5))
KEYS = [
    "current", "reference", "column_name", "k", "quantile", "values", "drift_score", "drift_detected", "stattest_name",
    "stattest_threshold", "drift_by_columns", "dataset_drift", "drift_share", "metrics", "counts", "current_value",
    "number_of_columns", "number_of_drifted_columns", "share_of_drifted_columns", "parameters", "condition",
]  # fmt: skip
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=12,
)
KINDS = [
    "DataDriftTable", "DatasetDriftMetric", "ColumnDriftMetric", "ClassificationQualityByClass", "MRRKMetric",
    "ColumnQuantileMetric", "Metric", "RecCasesTable",
]  # fmt: skip
metrics = st.lists(
    st.fixed_dictionaries({"metric": st.sampled_from(KINDS) | st.text(max_size=5), "result": nested}), max_size=4
)
suites = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(max_size=8), "status": scalars, "group": scalars, "description": scalars, "parameters": nested}
    ),
    max_size=3,
)


@pytest.mark.parametrize("name", REPORTS[:3])
def test_no_number_of_a_file_is_lost(name: str) -> None:
    assert lost(document(name)) == []


finite = st.integers(-(10**6), 10**6) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
measured = st.sampled_from([key for key in KEYS if key not in ("column_name", "k", "quantile", "values")])
words = st.dictionaries(st.text("abc", min_size=1, max_size=3), finite | st.none() | st.text())


@PATIENT
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(measured, words | finite)), max_size=4))
def test_no_number_is_lost_wherever_it_stands(metrics: list[tuple[str, dict[str, Any]]]) -> None:
    assert lost(report(*metrics)) == []


@PATIENT
@given(metrics, suites)
def test_every_part_of_a_document_is_a_row_or_left_out(metrics: list[Any], tests: list[Any]) -> None:
    given = {"version": "0.6.7", "metrics": metrics, "tests": tests}
    before = copy.deepcopy(given)
    rows = report_rows(given)

    assert str(given) == str(before)  # as text: NaN differs from itself
    for row in rows:
        json.dumps(row["metadata"], allow_nan=False)
        assert "\\x00" not in repr(row["metadata"])
        assert row["metric_value"] is not None or "error" in row["metadata"]
        assert row["metric_value"] is None or math.isfinite(row["metric_value"])
    assert bool(rows or rows.left_out) == bool(metrics or tests)


@PATIENT
@given(st.dictionaries(st.sampled_from(["metrics", "tests", "version", "suite"]), nested))
def test_every_argument_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        plain = read_document(document)
        is_legacy(plain)
        list(read_legacy(plain))
    except AdapterError as refused:
        assert refused.hint  # noqa: PT017  (many documents are read)
