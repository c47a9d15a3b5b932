"""Evidently's metrics by the names of their classes. The tables list every metric of Evidently 0.7.

They do not import Evidently, so a saved report can be read where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.names import DRIFT, PERFORMANCE, QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping

METRIC_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("ValueDrift", "DriftedColumnsCount", "EmbeddingsDrift"), DRIFT),
    **dict.fromkeys(
        (
            # of classification
            "Accuracy", "F1ByLabel", "F1Score", "FNR", "FPR", "LogLoss", "Precision", "PrecisionByLabel", "Recall",
            "RecallByLabel", "RocAuc", "RocAucByLabel", "TNR", "TPR", "DummyAccuracy", "DummyF1Score", "DummyFNR",
            "DummyFPR", "DummyLogLoss", "DummyPrecision", "DummyRecall", "DummyRocAuc", "DummyTNR", "DummyTPR",
            # of regression
            "AbsMaxError", "MAE", "MAPE", "MeanError", "R2Score", "RMSE", "DummyMAE", "DummyMAPE", "DummyRMSE",
            # of ranking
            "Diversity", "FBetaTopK", "HitRate", "MAP", "MRR", "NDCG", "Novelty", "Personalization",
            "PopularityBiasMetric", "PrecisionTopK", "RecallTopK", "ScoreDistribution", "Serendipity",
        ),
        PERFORMANCE,
    ),
    **dict.fromkeys(
        (
            "AlmostConstantColumnsCount", "AlmostDuplicatedColumnsCount", "CategoryCount", "ColumnCount",
            "ConstantColumnsCount", "DatasetMissingValueCount", "DuplicatedColumnsCount", "DuplicatedRowCount",
            "EmptyColumnsCount", "EmptyRowsCount", "InListValueCount", "InRangeValueCount", "MaxValue", "MeanValue",
            "MedianValue", "MinValue", "MissingValueCount", "OutListValueCount", "OutRangeValueCount",
            "QuantileValue", "RowCount", "StdValue", "SumValue",
        ),
        QUALITY,
    ),
}  # fmt: skip
# Metrics that have no number, or would make series without end.
LEFT_OUT: Mapping[str, str] = {
    "UniqueValueCount": "a count of each value would be series without end: "
    "CategoryCount(column=..., category=...) counts those that you name",
    **dict.fromkeys(
        ("ColumnCorrelationMatrix", "CorrelationMatrix"),
        "a correlation of each pair of columns would be series without end",
    ),
    **dict.fromkeys(("ItemBias", "UserBias"), "it is a distribution: a table of values and counts"),
    "RecCasesTable": "it is a table of examples",
}
# Tables with a value for each rank, in order. Some versions of Evidently count the ranks from 1, others from 2.
TOP_K = frozenset({"FBetaTopK", "HitRate", "MAP", "MRR", "NDCG", "PrecisionTopK", "RecallTopK"})
# The parameters that hold the column, or what else the metric measures.
SUBJECTS = ("column", "column_name", "embeddings_name")
# Parameters of drawings. They do not distinguish series.
DRAWING = frozenset(
    {
        "nbinsx", "conf_matrix", "pr_curve", "pr_table", "roc_curve", "error_plot", "perc_error_plot", "error_distr",
        "error_normality",
    }
)  # fmt: skip
# Defaults, which names leave out.
DEFAULTS: Mapping[str, Any] = {
    **dict.fromkeys(("classification_name", "regression_name", "ranking_name", "distribution"), "default"),
    **dict.fromkeys(("no_feedback_users", "normalize_arp"), False),
}
