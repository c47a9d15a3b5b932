"""Which names series get, what saved reports are, and what is refused: all of it without Evidently."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_db.adapters.evidently import LeftOut, ReportRows, failed_report_rows, report_rows
from mlops_db.adapters.evidently.conditions import drift_interval
from mlops_db.adapters.evidently.names import Series, shorten
from mlops_db.errors import AdapterError
from mlops_db.storage.metrics.bounds import Bounds

pytestmark = pytest.mark.one_postgresql

TEXTS = st.one_of(
    st.sampled_from(
        ["", "1", "1.0", "true", "null", "NaN", "a.b", "a", "b", "a,b", "k=1", "[x]", "{x}", '"a"', " a", "a "]
    ),
    st.text(alphabet=st.sampled_from(list('ab01.,=[]{}"\\ \u00e4\u00a0\n\0~#')), max_size=6),
    st.text(max_size=6),
)
SCALARS = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
PARAMETERS = st.dictionaries(
    TEXTS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(TEXTS, SCALARS, max_size=2)), max_size=3
)
SERIES = st.builds(
    Series, st.sampled_from(["mean_value", "drift_score"]), st.lists(TEXTS, max_size=3).map(tuple), PARAMETERS
)


def meaning(value: Any) -> Any:
    """The value such that equal meanings are equal: 1 is 1.0 and not True, and the order of a list tells nothing."""
    if isinstance(value, Mapping):
        return ("mapping", sorted((key, repr(meaning(part))) for key, part in value.items()))
    if isinstance(value, list):
        return ("list", sorted(repr(meaning(part)) for part in value))
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    return (
        ("number", int(value) if value == math.floor(value) else value) if math.isfinite(value) else ("number", value)
    )


@given(SERIES, SERIES)
def test_different_series_have_different_names_and_equal_ones_the_same(one: Series, other: Series) -> None:
    same = (one.metric, one.parts, meaning(one.parameters)) == (other.metric, other.parts, meaning(other.parameters))
    assert (str(one) == str(other)) is same


@given(SERIES)
def test_a_name_is_printable_and_the_same_after_json(series: Series) -> None:
    assert str(series).isprintable()
    assert str(Series(series.metric, series.parts, json.loads(json.dumps(series.parameters)))) == str(series)
    assert str(Series(series.metric, series.parts, dict(reversed(series.parameters.items())))) == str(series)


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (Series("row_count"), "row_count"),
        (Series("mean_value", ("Text Length",)), "mean_value.Text Length"),
        (Series("mean_value", ("net.income",)), 'mean_value."net.income"'),
        (Series("mean_value", ("größe",)), "mean_value.größe"),
        (Series("quantile_value", ("age",), {"quantile": 0.25}), "quantile_value.age[quantile=0.25]"),
        (
            Series("in_list_value_count", ("plan",), {"values": ["FR", "DE"]}),
            "in_list_value_count.plan[values=[DE,FR]]",
        ),
        (Series("category_count", ("g",), {"categories": [1]}), "category_count.g[categories=[1]]"),
        (Series("category_count", ("g",), {"categories": ["1"]}), 'category_count.g[categories=["1"]]'),
    ],
)
def test_names_are_as_the_page_says(series: Series, name: str) -> None:
    assert str(series) == name


def test_a_name_that_is_too_long_ends_with_a_digest_of_the_whole_which_the_metadata_have() -> None:
    columns = [f"column_{number}" for number in range(40)]
    other = [*columns[:-1], "column_x"]
    rows = [
        report_rows(document(metric("DriftedColumnsCount", {"count": 1, "share": 0.1}, columns=each, drift_share=0.5)))
        for each in (columns, other)
    ]
    names = [{row["metric_name"] for row in each} for each in rows]
    assert not names[0] & names[1]
    for row in (*rows[0], *rows[1]):
        assert len(row["metric_name"]) == 255
        assert row["metadata"]["full_name"].startswith(row["metric_name"].partition("~")[0])
        assert shorten(row["metadata"]["full_name"]) == row["metric_name"]
    *_, failed = failed_report_rows("no rows", features=["x" * 255], drift={"method": "psi"})
    assert failed["metadata"]["full_name"] == "drift_score." + "x" * 255 + "[method=psi]"


@pytest.mark.parametrize("method", ["psi", "PSI", "ks", "K-S p_value", "t_test", "abs_text_content_drift"])
def test_a_score_at_the_threshold_is_on_the_side_that_evidently_says(method: str) -> None:
    lower, upper = drift_interval(method, 0.1)
    drifted_at = {"psi": True, "PSI": True, "ks": True, "K-S p_value": True}.get(method, False)
    assert ((lower is not None and lower > 0.1) or (upper is not None and upper < 0.1)) is drifted_at


def test_beside_the_greatest_number_there_is_no_bound() -> None:
    greatest = math.nextafter(math.inf, 0)
    rows = report_rows(document(metric("ValueDrift", 0.9, column="age", method="ks", threshold=greatest)))
    assert rows.bounds == ()
    assert rows[0]["metadata"]["drift_detected"] is True


def test_a_drift_test_that_nobody_knows_sets_no_bounds_and_says_nothing_about_drift() -> None:
    for method in ("mine", "perc_text_content_drift"):
        rows = report_rows(document(metric("ValueDrift", 0.9, column="age", method=method, threshold=0.95)))
        assert "drift_detected" not in rows[0]["metadata"]
        assert rows.bounds == ()


def test_a_dump_of_an_earlier_0_7_is_read_as_far_as_it_names_the_measurement() -> None:
    def result(kind: str, **parts: Any) -> dict[str, Any]:
        params = {
            "type": f"evidently:metric_v2:{kind}",
            "tests": None,
            "column": "age",
            "method": None,
            "threshold": None,
        }
        location = {"metric": {"metric_id": kind, "params": params}, "param": {}}
        return {"type": "evidently:metric_result_v2:SingleValue", "metric_value_location": location, **parts}

    drifted = {
        "status": "FAIL",
        "description": "Drift score is 0.01.",
        "metric_config": {"metric_id": "ValueDrift", "params": {"column": "age"}},
        "bound_test": {"type": "evidently:bound_test:ValueDriftBoundTest", "test": {}},
    }
    dump = {
        "metric_results": {
            "a": result("MeanValue", value=3.5),
            "b": result("MissingValueCount", count={"value": 1}, share={"value": 0.1}),
            "c": result("ValueDrift", value=0.01, tests=[drifted]),
            "d": {"value": 3},
            "e": result("SumValue", value=7),
        },
        "top_level_metrics": ["a", "b", "c", "d", "missing"],
    }
    rows = report_rows(dump)
    assert values(rows) == {
        "mean_value.age": 3.5,
        "missing_value_count.age": 1.0,
        "missing_value_share.age": 0.1,
        "drift_score.age": 0.0,
    }
    assert [row["metric_type"] for row in rows] == ["quality", "quality", "quality", "test"]
    assert {each.name for each in rows.left_out} == {"drift_score.age", "metric"}


# The shapes of saved reports.


def metric(kind: str, value: Any, **parameters: Any) -> dict[str, Any]:
    config = {"type": f"evidently:metric_v2:{kind}", **parameters}
    return {"id": repr(sorted(map(str, config.items()))), "metric_name": kind, "config": config, "value": value}


def document(*metrics: dict[str, Any], tests: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"metrics": list(metrics), "tests": tests or []}


def values(rows: ReportRows) -> dict[str, Any]:
    assert len({(row["metric_type"], row["metric_name"]) for row in rows}) == len(rows)
    return {row["metric_name"]: row["metric_value"] for row in rows}


def test_a_saved_report_is_read_as_mapping_text_bytes_and_path(tmp_path: Path) -> None:
    saved = document(metric("RowCount", 300.0), metric("ColumnCount", 4.0, column_type="num", tests=[]))
    text = json.dumps(saved)
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8-sig")
    for form in (saved, text, "\ufeff \n" + text, text.encode(), text.encode("utf-16"), path, str(path)):
        rows = report_rows(form, model_name="churn")
        assert values(rows) == {"row_count": 300.0, "column_count[column_type=num]": 4.0}
        assert {row["model_name"] for row in rows} == {"churn"}


def test_what_str_makes_of_an_enumeration_is_known_for_what_it_was() -> None:
    rows = report_rows(document(metric("ColumnCount", 4, column_type="ColumnType.Numerical")))
    assert values(rows) == {"column_count[column_type=num]": 4.0}
    assert rows[0]["metadata"] == {"column_type": "num"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{broken", "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        ('{"metrics": 3}', "of metrics"),
        ('{"metrics": [{"config": 3}]}', "of metrics"),
        ('{"metrics": [3]}', "of metrics"),
        ('{"metrics": [], "tests": [3]}', "not as Evidently writes it"),
        ('{"metric_results": {"a": 3}}', "not as Evidently writes it"),
        ('{"metric_results": {"a": {}}, "top_level_metrics": [["a"]]}', "not as Evidently writes it"),
        ('{"metrics": [{"config": {"type": "x", "column": {}}, "id": []}], "tests": []}', "not as Evidently writes it"),
        ({"rows": []}, "of rows"),
        (
            {"metrics": [{"id": "1", "metric_id": "ValueDrift(column=age)", "value": 1}], "tests": []},
            "before Evidently 0.7.16",
        ),
        ({}, "empty"),
        ("{}", "empty"),
        ([], "this list is not"),
        (None, "this NoneType is not"),
        (3, "this int is not"),
        (b"[]", "this list is not"),
        ("[]", "no report can be read"),
        ("no/such/report.json", "No such file"),
        ("x" * 5000, "no report can be read"),
        ("a\0b", "no report can be read"),
        (b"<!DOCTYPE html><html></html>", "is HTML"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "is"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line_with_what_to_give(given: Any, message: str) -> None:
    with pytest.raises(AdapterError, match=message) as refused:
        report_rows(given)
    assert "\n" not in str(refused.value)
    assert any(way in refused.value.hint for way in ("snapshot.save_json", "Report(...).run(", "report.dumps()"))


def test_a_folder_and_a_page_are_refused(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("\n<html>")
    for path, message in ((tmp_path, "directory"), (tmp_path / "report.html", "HTML")):
        with pytest.raises(AdapterError, match=message):
            report_rows(path)


def test_a_repeated_result_is_one_row_in_any_order_and_differences_are_listed() -> None:
    by_hand = metric("ValueDrift", 0.15, column="age", method="psi", threshold=0.2)
    of_preset = metric("ValueDrift", 0.15, column="age", method="PSI", threshold=0.1)
    results = [report_rows(document(*each)) for each in ((by_hand, of_preset), (of_preset, by_hand))]
    for rows in results:
        (row,) = rows
        assert (row["metric_name"], row["metric_value"]) == ("drift_score.age[method=psi]", 0.15)
        assert (row["metadata"]["threshold"], row["metadata"]["drift_detected"]) == (0.1, True)
        assert rows.bounds == (Bounds("drift", "drift_score.age[method=psi]", upper=math.nextafter(0.1, 0)),)
        (dropped,) = rows.left_out
        assert dropped.name == "drift_score.age[method=psi]"
        assert '"threshold": 0.2' in dropped.reason
    assert results[0] == results[1]


def test_several_values_under_one_name_are_a_failed_row() -> None:
    twice = [metric("MeanValue", value, column="age") for value in (1.0, 2.0)]
    for each in (twice, twice[::-1]):
        (row,) = report_rows(document(*each))
        assert row["metric_value"] is None
        assert row["metadata"] == {"error": "the report holds several values of it: 1.0, 2.0"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", '"12"', "1" + "0" * 400])
def test_what_is_no_number_is_a_failed_row_with_a_reason(value: str) -> None:
    text = json.dumps(document(metric("MeanValue", "?", column="age"))).replace('"?"', value)
    (row,) = report_rows(text)
    assert row["metric_value"] is None
    assert row["metadata"]["error"]


def test_metrics_that_nobody_knows_are_read_by_what_they_hold_or_left_out_with_a_reason() -> None:
    rows = report_rows(
        document(
            metric("Mine", 5, level=2),
            metric("FraudCount", {"count": 3, "share": 0.1}),
            metric("Fraud", {"count": 3, "share": 0.1}),
            metric("Spread", {"mean": 1, "std": 0.5}),
            metric("MineByLabel", {"count": 1, "share": 2}),
            metric("Labelled", {"yes": 1, "no": None}),
            metric("Table", {"x": {"0": 1}}),
            metric("Listed", [1, 2]),
            metric("Empty", {}),
            {},
        )
    )
    assert values(rows) == {
        "mine[level=2]": 5.0,
        "fraud_count": 3.0,
        "fraud_share": 0.1,
        "fraud": 3.0,
        "fraud.share": 0.1,
        "spread.mean": 1.0,
        "spread.std": 0.5,
        "mine_by_label.count": 1.0,
        "mine_by_label.share": 2.0,
        "labelled.yes": 1.0,
        "labelled.no": None,
    }
    assert {row["metric_type"] for row in rows} == {"quality"}
    assert [each.name for each in rows.left_out] == ["table", "listed", "empty", "metric"]


def test_only_columns_that_the_dataset_counts_fail_it() -> None:
    counts = {"count": 0, "share": 0.0}
    apart = metric("ValueDrift", math.nan, column="income", method="t_test", threshold=0.05)
    of_age = metric("ValueDrift", 0.5, column="age", method="K-S p_value", threshold=0.05)
    for parameters, others, fails in (
        ({"columns": ["age"]}, [apart], False),
        ({"columns": ["age"]}, [metric("ValueDrift", math.nan, column="income", method="PSI", threshold=0.1)], False),
        ({}, [apart, of_age], False),  # Evidently chose no t_test
        ({"method": "t_test"}, [apart], True),
        ({"per_column_method": {"income": "t_test"}}, [apart], True),
        ({"per_column_method": {"income": "ks"}}, [apart], False),
        ({"num_method": "t_test"}, [apart], True),
        ({}, [metric("ValueDrift", math.nan, column="age", method="K-S p_value", threshold=0.05)], True),
        ({"columns": ["age"]}, [metric("ValueDrift", math.nan, column="age", method="PSI", threshold=0.05)], True),
    ):
        dataset = metric("DriftedColumnsCount", counts, drift_share=0.5, **parameters)
        rows = report_rows(document(dataset, *others))
        verdicts = [row for row in rows if row["metric_name"].startswith("number_of_drifted_columns")]
        assert [row["metric_value"] is None for row in verdicts] == [fails], (parameters, others)


def test_failed_rows_have_the_names_that_the_report_would_have_had() -> None:
    drift = {"columns": ["age", "plan"], "method": "psi", "per_column_method": {"plan": "TVD"}, "drift_share": 0.3}
    report = report_rows(
        document(
            metric("DriftedColumnsCount", {"count": 0, "share": 0.0}, **drift),
            metric("ValueDrift", 0.1, column="age", method="psi", threshold=0.1),
            metric("ValueDrift", 0.1, column="plan", method="TVD", threshold=0.1),
        )
    )
    failed = failed_report_rows(ValueError("no values"), features=["age", "plan"], drift=drift)
    assert set(values(failed)) == set(values(report))
    assert {name.partition("[")[0] for name in values(failed) if "drift_share=0.3" in name} == {
        "dataset_drift_detected"
    }
    assert {row["metadata"]["error"] for row in failed} == {"ValueError: no values"}
    assert (failed.left_out, failed.bounds) == ((), ())


DATASET = {"dataset_drift_detected", "number_of_drifted_columns", "share_of_drifted_columns"}


@pytest.mark.parametrize("drift", [None, {}, {"method": None}, {"per_column_method": {"plan": "psi"}}])
def test_a_feature_whose_drift_test_nobody_knows_has_no_row_of_its_own(drift: dict[str, Any] | None) -> None:
    rows = failed_report_rows("no values", features=["age"], drift=drift)
    assert {name.partition("[")[0] for name in values(rows)} == DATASET
    assert {json.dumps(row["metadata"]) for row in rows} == {'{"features": ["age"], "error": "no values"}'}
    (left_out,) = rows.left_out
    assert left_out.name == "drift_score.age"
    assert 'drift={"method": "psi"}' in left_out.reason


def test_columns_whose_names_are_numbers_fail_by_their_text() -> None:
    rows = failed_report_rows("no values", features=range(2), drift={"method": "psi"})  # type: ignore[arg-type]
    assert set(values(rows)) >= {"drift_score.0[method=psi]", "drift_score.1[method=psi]"}
    assert rows[0]["metadata"]["features"] == ["0", "1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": "age"}, "'age' is no list of columns"),
        ({"features": None}, "None is no list of columns"),
        ({"drift": "psi"}, "does not take: 'psi'"),
        ({"drift": {"drift_shar": 0.3, "methd": "psi"}}, "does not take: drift_shar, methd"),
    ],
)
def test_what_would_make_series_that_no_report_writes_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message) as refused:
        failed_report_rows("no values", **given)
    assert refused.value.hint


def test_tests_that_contradict_each_other_set_no_bounds_and_are_left_out() -> None:
    at_least, at_most = (
        {"type": f"evidently:test_v2:{kind}MetricTest", "threshold": threshold, "is_critical": True}
        for kind, threshold in (("GreaterOrEqual", 50), ("LessThan", 30))
    )
    measured = metric("MeanValue", 40, column="age")
    tests = [
        {
            "status": "FAIL",
            "description": "Actual value",
            "metric_config": {"metric_id": measured["id"], "params": measured["config"]},
            "bound_test": {"type": "evidently:bound_test:SingleValueBoundTest", "test": test},
        }
        for test in (at_least, at_most)
    ]
    rows = report_rows(document(measured, tests=tests))
    assert values(rows) == {"mean_value.age": 40.0, "mean_value.age[gte=50]": 0.0, "mean_value.age[lt=30]": 0.0}
    assert rows.bounds == ()
    assert [each.name for each in rows.left_out] == ["mean_value.age"]
    lone = report_rows(document(measured, tests=[{**tests[0], "metric_config": {}, "name": "Mean: at least 50"}]))
    assert lone.left_out == (LeftOut("Mean: at least 50", "the test does not name its metric"),)
