"""uv run --isolated --extra evidently pytest -n 0 -m adapters tests/adapters/test_evidently_legacy_live.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_db.adapters.evidently import ReportRows, report_rows
from mlops_db.errors import AdapterError
from support.legacy_reports import lost

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what Evidently warns about is not ours
ROWS = 200


def frame(seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    left = random.integers(0, 2, ROWS)
    tenure = random.normal(20 + shift, 5, ROWS)
    tenure[:3] = np.nan
    return pd.DataFrame(
        {
            "tenure": tenure,
            "bill": random.gamma(2, 30, ROWS),
            "city": random.choice(["Bonn", "Ulm"], ROWS),
            "target": left,
            "prediction": np.where(random.random(ROWS) < 0.8, left, 1 - left),
        }
    )


def amounts(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    paid = random.gamma(2, 30, ROWS) + 1
    return pd.DataFrame({"bill": paid * 1.1, "target": paid, "prediction": paid + random.normal(0, 4, ROWS)})


def recommended(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(12), 8),
            "item_id": np.tile(np.arange(8), 12),
            "target": random.integers(0, 2, 96),
            "prediction": random.random(96),
        }
    )


def measured(kind: str) -> Any:
    from evidently.legacy import metric_preset, metrics, test_preset, tests  # noqa: PLC0415  (takes seconds)
    from evidently.legacy.pipeline.column_mapping import ColumnMapping  # noqa: PLC0415
    from evidently.legacy.report import Report  # noqa: PLC0415
    from evidently.legacy.test_suite import TestSuite  # noqa: PLC0415

    features = ColumnMapping(
        target=None, prediction=None, numerical_features=["tenure", "bill"], categorical_features=["city"]
    )
    labels = ColumnMapping(task="classification", numerical_features=["tenure", "bill"], categorical_features=["city"])
    ranking = ColumnMapping(recommendations_type="score", item_id="item_id", user_id="user_id", task="recsys")
    people = (frame(1, shift=4), frame(2))
    column = {"column_name": "tenure"}
    made: dict[str, Any] = {
        "drift": lambda: (Report([metric_preset.DataDriftPreset(drift_share=0.3)]), features, people),
        "quality": lambda: (Report([metric_preset.DataQualityPreset()]), labels, people),
        "classification": lambda: (Report([metric_preset.ClassificationPreset()]), labels, people),
        "regression": lambda: (
            Report([metric_preset.RegressionPreset(), metrics.RegressionDummyMetric()]),
            ColumnMapping(task="regression", numerical_features=["bill"]),
            (amounts(1), amounts(2)),
        ),
        "ranking": lambda: (Report([metric_preset.RecsysPreset(k=3)]), ranking, (recommended(1), recommended(2))),
        "columns": lambda: (
            Report(
                [
                    metrics.ColumnDriftMetric(**column, stattest="psi"),
                    metrics.ColumnDriftMetric(**column),
                    metrics.ColumnQuantileMetric(**column, quantile=0.25),
                    metrics.ColumnQuantileMetric(**column, quantile=0.75),
                    metrics.ColumnValueRangeMetric(**column, left=10, right=20),
                    metrics.ColumnValueListMetric(column_name="city", values=["Bonn"]),
                    metrics.ColumnCategoryMetric(column_name="city", category="Ulm"),
                    metrics.ColumnRegExpMetric(column_name="city", reg_exp="B.*"),
                    metrics.ColumnMissingValuesMetric(**column),
                    metrics.DatasetMissingValuesMetric(),
                    metrics.DatasetCorrelationsMetric(),
                    metrics.ConflictTargetMetric(),
                ]
            ),
            labels,
            people,
        ),
        "tests": lambda: (
            TestSuite(
                [
                    test_preset.DataStabilityTestPreset(),
                    test_preset.DataDriftTestPreset(),
                    tests.TestColumnQuantile(**column, quantile=0.25, gt=0),
                    tests.TestColumnQuantile(**column, quantile=0.75, gt=500),
                    tests.TestColumnValueMean(column_name="city", gt=0),
                ]
            ),
            features,
            people,
        ),
    }
    report, mapping, (current, reference) = made[kind]()
    report.run(current_data=current, reference_data=reference, column_mapping=mapping)
    return report


def contents(rows: ReportRows) -> dict[str, tuple[float | None, float | None, float | None]]:
    """The values and their bounds by their names."""
    bounds = {(each.metric_type, each.metric_name): (each.lower, each.upper) for each in rows.bounds}
    return {
        f"{row['metric_type']}/{row['metric_name']}": (
            row["metric_value"],
            *bounds.get((row["metric_type"], row["metric_name"]), (None, None)),
        )
        for row in rows
    }


@pytest.mark.parametrize("kind", ["drift", "quality", "classification", "regression", "ranking", "columns", "tests"])
def test_a_report_is_read_in_full_and_alike_live_and_saved(kind: str, tmp_path: Path) -> None:
    report = measured(kind)
    saved = tmp_path / "report.json"
    report.save_json(str(saved))

    from_file = contents(report_rows(saved))

    assert len(from_file) >= 6
    assert contents(report_rows(report.json())) == contents(report_rows(json.loads(report.json()))) == from_file
    assert contents(report_rows(report.as_dict())) == from_file
    assert kind == "tests" or lost(json.loads(report.json())) == []


def test_what_0_7_measures_as_well_has_its_name_and_its_value() -> None:
    from evidently import BinaryClassification, DataDefinition, Dataset, Regression, Report  # noqa: PLC0415
    from evidently.metrics import QuantileValue, RowCount  # noqa: PLC0415
    from evidently.presets import ClassificationPreset, DataDriftPreset, RegressionPreset  # noqa: PLC0415

    def now(presets: list[Any], frames: tuple[pd.DataFrame, pd.DataFrame], **definition: Any) -> dict[str, Any]:
        definition["categorical_columns"] = [name for name in frames[0] if name == "city"]
        columns = [name for name in frames[0] if name in ("tenure", "bill")]
        described = DataDefinition(numerical_columns=columns, **definition)
        datasets = [Dataset.from_pandas(each, data_definition=described) for each in frames]
        return contents(report_rows(Report(presets).run(*datasets)))

    people = (frame(1, shift=4), frame(2))
    features = tuple(each[["tenure", "bill", "city"]] for each in people)
    quantile = QuantileValue(column="tenure", quantile=0.25)
    labels = BinaryClassification(target="target", prediction_labels="prediction")
    amount = [Regression(target="target", prediction="prediction")]
    named = [
        ("drift", now([DataDriftPreset(drift_share=0.3)], features), 6),
        ("columns", now([quantile], features), 1),
        ("quality", now([RowCount()], features), 1),
        ("classification", now([ClassificationPreset()], people, classification=[labels]), 14),
        ("regression", now([RegressionPreset()], (amounts(1), amounts(2)), regression=amount), 9),
    ]
    for kind, rows, least in named:
        before = contents(report_rows(measured(kind).json()))
        shared = before.keys() & rows.keys()
        assert len(shared) >= least, (kind, sorted(rows), sorted(before))
        for name in shared:
            assert before[name][0] == pytest.approx(rows[name][0]), name
            if name.startswith("drift/"):
                assert before[name][1:] == rows[name][1:], name


@pytest.mark.parametrize("kind", ["drift", "tests"])
def test_a_report_itself_is_refused_with_what_to_give(kind: str) -> None:
    report = measured(kind)
    with pytest.raises(AdapterError, match=f"this {type(report).__name__} is not") as refused:
        report_rows(report)
    assert ".as_dict()" in refused.value.hint
    assert len(report_rows(report.as_dict())) >= 6


@pytest.mark.parametrize("kind", ["drift", "tests"])
def test_a_snapshot_is_converted_as_its_refusal_says(kind: str, tmp_path: Path) -> None:
    from evidently.legacy.report import Report  # noqa: PLC0415
    from evidently.legacy.test_suite import TestSuite  # noqa: PLC0415

    report = measured(kind)
    snapshot, converted = tmp_path / "snapshot.json", tmp_path / "report.json"
    report.save(str(snapshot))
    with pytest.raises(AdapterError, match="snapshot") as refused:
        contents(report_rows(snapshot))
    module, name = type(report).__module__.rpartition(".")[0], type(report).__name__
    assert f"from {module}." in str(refused.value.hint)
    assert f'{name}.load("snapshot.json").save_json("report.json")' in str(refused.value.hint)

    {"Report": Report, "TestSuite": TestSuite}[name].load(str(snapshot)).save_json(str(converted))
    assert contents(report_rows(converted)) == contents(report_rows(report.json()))
