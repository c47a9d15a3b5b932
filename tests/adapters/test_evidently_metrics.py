"""uv run --isolated --extra evidently pytest -n 0 -m adapters tests/adapters/test_evidently_metrics.py."""

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_db.adapters.evidently import ReportRows, report_rows
from mlops_db.adapters.evidently.conditions import drift_interval
from mlops_db.adapters.evidently.kinds import DEFAULTS, DRAWING, LEFT_OUT, METRIC_TYPES, SUBJECTS, TOP_K
from mlops_db.adapters.evidently.names import method_name, words

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what Evidently warns about is not ours

# Parameters that tell two metrics apart; a new one has to be put here, to DRAWING, to DEFAULTS or to SUBJECTS.
TELLING = {
    "beta", "categories", "category", "column_type", "columns", "display_features", "drift_method", "embeddings",
    "embeddings_drift_method", "epsilon", "item_features", "k", "kind", "left", "method", "metric", "min_rel_score",
    "per_column_method", "per_column_threshold", "probas_threshold", "quantile", "replace_nan", "replace_value",
    "right", "user_ids", "values", "zero_handling",
    *(f"{kind}_{what}" for kind in ("cat", "num", "text") for what in ("method", "threshold")),
}  # fmt: skip
# Of a drift score only what it is judged by.
THRESHOLDS = {"threshold", "drift_share"}
TESTS = {"tests", "share_tests", "mean_tests", "std_tests"}


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


@pytest.fixture(scope="module")
def installed() -> dict[str, type[Any]]:
    """Every metric of the installed Evidently that can be computed, by the name of its class."""
    from evidently.core.metric_types import Metric  # noqa: PLC0415  (takes seconds)

    for package in ("core", "metrics", "presets", "generators", "descriptors", "tests"):
        path = importlib.import_module(f"evidently.{package}").__path__
        for module in pkgutil.walk_packages(path, f"evidently.{package}."):
            importlib.import_module(module.name)
    return {
        each.__name__: each
        for each in subclasses(Metric)
        if each.__module__.startswith("evidently.") and hasattr(each, "__calculation_type__")
    }


def test_the_table_has_every_metric_of_evidently_and_no_other(installed: dict[str, type[Any]]) -> None:
    assert set(installed) - {"GroupByMetric"} == {*METRIC_TYPES, *LEFT_OUT}
    assert not METRIC_TYPES.keys() & LEFT_OUT.keys()
    modules = {"classification": "performance", "regression": "performance", "recsys": "performance"}
    modules |= {"embeddings": "drift"}
    for name, metric_type in METRIC_TYPES.items():
        expected = modules.get(installed[name].__module__.rpartition(".")[2], "quality")
        assert metric_type == ("drift" if "Drift" in name else expected), name


def test_every_parameter_is_listed_as_distinguishing_metrics_or_not(installed: dict[str, type[Any]]) -> None:
    known = {*TELLING, *THRESHOLDS, *TESTS, *DRAWING, *DEFAULTS, *SUBJECTS, "type"}
    for name, cls in installed.items():
        if name != "GroupByMetric":
            assert not cls.__fields__.keys() - known, name
            for key, default in DEFAULTS.items():
                assert key not in cls.__fields__ or cls.__fields__[key].default == default, (name, key)
    of_ranks = {name for name, cls in installed.items() if "TopKBase" in [base.__name__ for base in cls.__mro__]}
    assert of_ranks == TOP_K


def test_every_drift_test_of_evidently_has_one_name_and_a_direction_if_its_threshold_decides() -> None:
    from evidently.legacy.calculations.stattests.registry import _registered_stat_tests  # noqa: PLC0415

    assert len(_registered_stat_tests) >= 20
    for name, by_type in _registered_stat_tests.items():
        for test in by_type.values():
            assert method_name(test.display_name) == name
        assert method_name(name) == name
        assert (drift_interval(name, 0.1) == (None, None)) is (name == "perc_text_content_drift")


# One small report for each kind of data.


def with_reference(
    metrics: list[Any],
    frame: pd.DataFrame,
    definition: dict[str, Any],
    reference: pd.DataFrame | None = None,
    **options: Any,
) -> Any:
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415

    current, before = (
        Dataset.from_pandas(each, data_definition=DataDefinition(**definition))
        for each in (frame, frame if reference is None else reference)
    )
    additional = options.pop("additional", ())
    return Report(metrics, **options).run(current, before, dict.fromkeys(additional, current) or None)


def tabular(*, reverse: bool = False) -> Any:
    from evidently import metrics as m  # noqa: PLC0415
    from evidently.metrics.group_by import GroupBy  # noqa: PLC0415
    from evidently.presets import DataDriftPreset, DataSummaryPreset, TextEvals  # noqa: PLC0415
    from evidently.tests import eq, gt, gte, is_in, lt, lte, not_eq, not_in  # noqa: PLC0415

    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": random.normal(40, 10, 60),
            "plan": random.choice(["basic", "plus"], 60),
            "group": random.choice([1, 2], 60),
            "first": random.random(60),
            "second": random.random(60),
            "note": [
                " ".join(random.choice(["house", "garden", "river", "table", "window", "paper", "stone"], 2)) + " word"
                for _ in range(60)
            ],
        }
    )
    column = {"column": "age"}
    metrics: list[Any] = [
        DataDriftPreset(columns=["age", "plan"]),
        DataSummaryPreset(columns=["age", "plan"]),
        TextEvals(columns=["age"]),
        m.ValueDrift(column="age", method="psi"),
        m.ValueDrift(column="age", method="ks"),
        m.ValueDrift(column="note"),
        m.DriftedColumnsCount(drift_share=0.2, columns=["age"]),
        m.DriftedColumnsCount(drift_share=0.9, columns=["age"]),
        m.EmbeddingsDrift(embeddings_name="both"),
        m.MeanValue(**column, tests=[gt(3), gte(50), lt(30, is_critical=False), eq(1)]),
        m.MedianValue(**column, tests=[not_eq(2), is_in([1]), not_in([1])]),
        m.QuantileValue(**column, quantile=0.25),
        m.QuantileValue(**column, quantile=0.75),
        *(getattr(m, name)(**column) for name in ("MaxValue", "MinValue", "StdValue", "SumValue")),
        m.MissingValueCount(**column, tests=[eq(0)], share_tests=[lte(0.1)]),
        *(m.InListValueCount(column="plan", values=[each]) for each in ("basic", "x")),
        *(m.OutListValueCount(column="plan", values=[each]) for each in ("basic", "x")),
        *(m.InRangeValueCount(**column, left=left, right=50) for left in (18, 30.5)),
        *(m.OutRangeValueCount(**column, left=left, right=50) for left in (18, 30.5)),
        m.CategoryCount(column="plan", category="basic"),
        m.CategoryCount(column="group", category=1),
        m.UniqueValueCount(column="group", tests={1: [gt(3)]}, share_tests={2: [lt(0.1)]}),
        m.ColumnCorrelations(column_name="age"),
        m.DatasetCorrelations(),
        *(
            getattr(m, name)()
            for name in (
                "AlmostConstantColumnsCount", "AlmostDuplicatedColumnsCount", "ColumnCount", "ConstantColumnsCount",
                "DatasetMissingValueCount", "DuplicatedColumnsCount", "DuplicatedRowCount", "EmptyColumnsCount",
                "EmptyRowsCount", "RowCount",
            )
        ),
        *(GroupBy(m.MeanValue(**column, tests=[gt(40)]), each) for each in ("plan", "group")),
        GroupBy(m.ValueDrift(**column, method="psi"), "group"),
    ]  # fmt: skip
    definition = {
        "numerical_columns": ["age", "first", "second"],
        "categorical_columns": ["plan", "group"],
        "text_columns": ["note"],
        "embeddings": {"both": ["first", "second"]},
    }
    shifted = frame.assign(age=frame.age + 20)
    return with_reference(metrics[::-1] if reverse else metrics, frame, definition, shifted, include_tests=True)


def classified(*, reverse: bool = False) -> Any:
    from evidently import BinaryClassification, MulticlassClassification  # noqa: PLC0415
    from evidently import metrics as m  # noqa: PLC0415
    from evidently.presets import ClassificationPreset  # noqa: PLC0415
    from evidently.tests import gte  # noqa: PLC0415

    random = np.random.default_rng(1)
    frame = pd.DataFrame({"target": random.integers(0, 2, 60), "plan": random.choice(["a", "b", "c"], 60)})
    frame["probability"] = np.clip(frame.target * 0.4 + random.uniform(0, 0.6, 60), 0, 1)
    frame["predicted"] = (frame.probability > 0.5).astype(int)
    frame["plan_predicted"] = random.permutation(frame.plan)
    names = [
        "Accuracy", "F1Score", "FNR", "FPR", "LogLoss", "Precision", "Recall", "RocAuc", "TNR", "TPR", "F1ByLabel",
        "PrecisionByLabel", "RecallByLabel", "RocAucByLabel", *(f"Dummy{name}" for name in (
            "Accuracy", "F1Score", "FNR", "FPR", "LogLoss", "Precision", "Recall", "RocAuc", "TNR", "TPR")),
    ]  # fmt: skip
    metrics = [
        ClassificationPreset(),
        *(getattr(m, name)() for name in names),
        *(m.Accuracy(probas_threshold=threshold) for threshold in (0.3, 0.7)),
        m.F1Score(classification_name="plans", tests=[gte(0.1)]),
        m.F1ByLabel(tests={1: [gte(0.9)]}),
    ]
    definition = {
        "categorical_columns": ["plan"],
        "classification": [
            BinaryClassification(target="target", prediction_labels="predicted", prediction_probas="probability"),
            MulticlassClassification(name="plans", target="plan", prediction_labels="plan_predicted"),
        ],
    }
    return with_reference(metrics[::-1] if reverse else metrics, frame, definition, include_tests=True)


def regressed(*, reverse: bool = False) -> Any:
    from evidently import Regression  # noqa: PLC0415
    from evidently import metrics as m  # noqa: PLC0415
    from evidently.presets import RegressionPreset  # noqa: PLC0415
    from evidently.tests import lt  # noqa: PLC0415

    random = np.random.default_rng(1)
    frame = pd.DataFrame({"target": random.normal(10, 1, 60)}).assign(
        prediction=lambda rows: rows.target + random.normal(0, 0.3, 60)
    )
    names = ("AbsMaxError", "MAPE", "MeanError", "R2Score", "RMSE", "DummyMAE", "DummyMAPE", "DummyRMSE")
    metrics = [
        RegressionPreset(),
        *(getattr(m, name)() for name in names),
        m.MAE(mean_tests=[lt(0.5)], std_tests=[lt(0.01)]),
        m.MAPE(perc_error_plot=False, error_distr=True),
    ]
    definition = {"numerical_columns": ["target", "prediction"], "regression": [Regression()]}
    return with_reference(metrics[::-1] if reverse else metrics, frame, definition, include_tests=True)


def ranked(*, reverse: bool = False) -> Any:
    from evidently import Recsys  # noqa: PLC0415
    from evidently import metrics as m  # noqa: PLC0415
    from evidently.presets import RecsysPreset  # noqa: PLC0415
    from evidently.tests import gte  # noqa: PLC0415

    random = np.random.default_rng(1)
    frame = pd.DataFrame([(user, item) for user in range(8) for item in range(6)], columns=["user_id", "item_id"])
    frame = frame.assign(
        target=random.integers(0, 2, 48),
        prediction=random.random(48),
        kind=random.choice(["a", "b"], 48),
        size=random.random(48),
    )
    metrics = [
        RecsysPreset(k=3, item_features=["size"]),
        *(getattr(m, name)(k=k) for name in sorted(TOP_K) for k in (1, 3)),
        m.NDCG(k=2, tests={"value": [gte(0.1), gte(0.1, label_filters={"rank": "1"})], "nothing": [gte(1)]}),
        m.FBetaTopK(k=3, beta=2.0),
        *(getattr(m, name)(k=3) for name in ("ScoreDistribution", "Personalization", "Novelty")),
        m.Personalization(k=3, tests=[gte(0.1)]),
        *(m.PopularityBiasMetric(k=3, metric=metric) for metric in ("arp", "gini", "coverage")),
        *(getattr(m, name)(k=3, item_features=["size"]) for name in ("Serendipity", "Diversity")),
        m.ItemBias(k=3, column_name="kind"),
        m.UserBias(column_name="kind"),
        m.RecCasesTable(user_ids=[1]),
    ]
    definition = {"numerical_columns": ["size"], "categorical_columns": ["kind"], "ranking": [Recsys()]}
    training = ("current_train_data", "reference_train_data")
    return with_reference(
        metrics[::-1] if reverse else metrics, frame, definition, include_tests=True, additional=training
    )


def labelled(*, reverse: bool = False) -> Any:
    """Classes with names, which Evidently cannot measure in one report with others."""
    from evidently import MulticlassClassification  # noqa: PLC0415
    from evidently import metrics as m  # noqa: PLC0415
    from evidently.presets import ClassificationQualityByLabel  # noqa: PLC0415
    from evidently.tests import gte  # noqa: PLC0415

    random = np.random.default_rng(1)
    frame = pd.DataFrame({"plan": random.choice(["a", "b.c", "1"], 60)})
    frame["predicted"] = random.permutation(frame.plan)
    metrics = [
        ClassificationQualityByLabel(),
        m.F1ByLabel(tests={"a": [gte(0.9)], "missing": [gte(0.9)]}),
        m.Accuracy(),
    ]
    definition = {"classification": [MulticlassClassification(target="plan", prediction_labels="predicted")]}
    return with_reference(metrics[::-1] if reverse else metrics, frame, definition, include_tests=True)


REPORTS: list[Callable[..., Any]] = [tabular, classified, regressed, ranked, labelled]


@pytest.fixture(scope="module")
def snapshots() -> dict[str, Any]:
    return {report.__name__: report() for report in REPORTS}


def contents(rows: ReportRows) -> tuple[Any, ...]:
    """What does not depend on the order: the rows by their names, what is left out, the bounds."""
    by_name = {(row["metric_type"], row["metric_name"]): (row["metric_value"], row["metadata"]) for row in rows}
    assert len(by_name) == len(rows)
    return by_name, set(rows.left_out), set(rows.bounds)


def test_every_metric_is_built_and_what_it_measured_is_a_row_or_left_out(
    installed: dict[str, type[Any]], snapshots: dict[str, Any]
) -> None:
    built = set()
    for snapshot in snapshots.values():
        rows = report_rows(snapshot)
        names = {row["metric_name"] for row in rows} | {each.name for each in rows.left_out}
        for metric in snapshot.dict()["metrics"]:
            kind = metric["config"]["type"].rpartition(":")[2]
            built.add(kind)
            base = {"ValueDrift": "drift_score", "DriftedColumnsCount": "number_of_drifted_columns"}.get(kind)
            assert kind == "GroupByMetric" or any(name.startswith(base or words(kind)) for name in names), kind
    assert built == set(installed)  # all of them can be built offline


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.__name__)
def test_names_and_values_are_the_same_in_every_form(
    report: Callable[..., Any], snapshots: dict[str, Any], tmp_path: Path
) -> None:
    from evidently.core.report import Snapshot  # noqa: PLC0415

    snapshot = snapshots[report.__name__]
    path, dumped = tmp_path / "report.json", tmp_path / "dump.json"
    snapshot.save_json(str(path))
    dumped.write_text(snapshot.dumps(), encoding="utf-8")
    expected = contents(report_rows(snapshot))
    assert len(expected[0]) > 10
    assert expected[2]
    for form in (
        snapshot.dict(), snapshot.json(), snapshot.json().encode(), path, str(path), dumped, snapshot.dump_dict(),
        Snapshot.loads(snapshot.dumps()), Snapshot.load(dumped), json.loads(snapshot.json()),
    ):  # fmt: skip
        assert contents(report_rows(form)) == expected


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.__name__)
def test_the_order_of_the_report_decides_nothing(report: Callable[..., Any], snapshots: dict[str, Any]) -> None:
    assert contents(report_rows(report(reverse=True))) == contents(report_rows(snapshots[report.__name__]))


def test_verdicts_of_tests_are_those_of_evidently_and_their_bounds_say_the_same(snapshots: dict[str, Any]) -> None:
    statuses = set()
    for snapshot in snapshots.values():
        rows = report_rows(snapshot)
        tests = [row for row in rows if row["metric_type"] == "test"]
        assert {row["metadata"]["description"] for row in tests} == {
            test["description"] for test in snapshot.dict()["tests"]
        }
        measured = {(row["metric_type"], row["metric_name"]): row["metric_value"] for row in rows}
        for row in tests:
            status = row["metadata"]["status"]
            statuses.add(status)
            assert row["metric_value"] == {"SUCCESS": 1, "FAIL": 0, "WARNING": 0, "ERROR": None}[status]
            assert ("error" in row["metadata"]) is (status == "ERROR")
        for bounds in rows.bounds:
            value = measured[bounds.metric_type, bounds.metric_name]
            if value is not None and bounds.metric_name.startswith("drift_score") and "group" not in bounds.metric_name:
                low = bounds.lower is not None and value < bounds.lower
                high = bounds.upper is not None and value > bounds.upper
                (verdict,) = [
                    row["metric_value"]
                    for row in tests
                    if row["metadata"].get("feature") and row["metric_name"].replace(
                        f"drift_threshold={row['metadata'].get('threshold')},", "") == bounds.metric_name
                ]  # fmt: skip
                assert (low or high) is (verdict == 0)
    assert statuses == {"SUCCESS", "FAIL", "WARNING", "ERROR"}


@pytest.mark.parametrize(
    ("labels", "dtype", "names"),
    [
        (["basic", "plus"], None, ("basic", "plus")),
        ([1, 2], None, ("1", "2")),
        (["1", "2"], object, ('"1"', '"2"')),
        ([1, "1"], object, ("1", '"1"')),
        ([1.5, 2.0], None, ("1.5", "2")),
        ([1.0, np.nan], object, ("1", "NaN")),
        ([True, False], object, ("true", "false")),
        (["2026-01-01", "2026-01-02"], object, ("2026-01-01", "2026-01-02")),
        (["x", None], object, ("x", "null")),
        (["a,b", "x]"], None, ('"a,b"', '"x]"')),
    ],
    ids=str,
)
def test_every_kind_of_label_names_its_group_the_same_in_every_form(
    labels: list[Any], dtype: Any, names: tuple[str, ...]
) -> None:
    from evidently.core.report import Snapshot  # noqa: PLC0415
    from evidently.metrics import MeanValue  # noqa: PLC0415
    from evidently.metrics.group_by import GroupBy  # noqa: PLC0415

    frame = pd.DataFrame({"age": [1.0, 2.0] * 5, "group": pd.Series(labels * 5, dtype=dtype)})
    definition = {"numerical_columns": ["age"], "categorical_columns": ["group"]}
    snapshot = with_reference([GroupBy(MeanValue(column="age"), "group")], frame, definition)
    rows = report_rows(snapshot)
    assert {row["metric_name"] for row in rows} == {f"mean_value.age[group={name},group_by=group]" for name in names}
    for form in (snapshot.dict(), snapshot.json(), Snapshot.loads(snapshot.dumps()), snapshot.dumps()):
        assert contents(report_rows(form)) == contents(rows)


def test_the_drift_of_a_group_is_left_out_unless_its_drift_test_is_known() -> None:
    from evidently.metrics import ValueDrift  # noqa: PLC0415
    from evidently.metrics.group_by import GroupBy  # noqa: PLC0415

    frame = pd.DataFrame({"age": np.arange(40.0), "group": [1, 2] * 20})
    definition = {"numerical_columns": ["age"], "categorical_columns": ["group"]}
    metrics = [GroupBy(ValueDrift(column="age"), "group"), ValueDrift(column="age")]
    rows = report_rows(with_reference(metrics, frame, definition))
    assert [row["metric_name"] for row in rows] == ["drift_score.age[method=ks]"]
    assert [each.name for each in rows.left_out] == [f"drift_score.age[group={each},group_by=group]" for each in (1, 2)]
    assert "method=" in rows.left_out[0].reason
    shifted = frame.assign(age=frame.age.where(frame.group == 1, 1000 + frame.age))
    for order in (metrics, metrics[::-1]):
        tested = report_rows(with_reference(order, shifted, definition, frame, include_tests=True))
        assert tested.left_out == ()
        assert {row["metric_name"]: row["metric_value"] for row in tested if row["metric_type"] == "test"} == {
            "drift_score.age[drift_threshold=0.05,group=1,group_by=group,method=ks]": 1.0,
            "drift_score.age[drift_threshold=0.05,group=2,group_by=group,method=ks]": 0.0,
            "drift_score.age[drift_threshold=0.05,method=ks]": 0.0,
        }
