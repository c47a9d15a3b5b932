"""What Evidently's metrics measure, by the names of their classes: the table that every metric of 0.7 is in.

Evidently itself is not asked, so that a saved report can be read where it is not installed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.names import DRIFT, PERFORMANCE, QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping

METRIC_TYPES: Mapping[str, str] = MappingProxyType(
    {
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
    }
)  # fmt: skip
# Series that would have no end, or no number.
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "UniqueValueCount": "a count of each value would be series without end: "
        "CategoryCount(column=..., category=...) counts those that you name",
        **dict.fromkeys(
            ("ColumnCorrelationMatrix", "CorrelationMatrix"),
            "a correlation of each pair of columns would be series without end",
        ),
        **dict.fromkeys(("ItemBias", "UserBias"), "it is a distribution: a table of values and counts"),
        "RecCasesTable": "it is a table of examples",
    }
)
# Tables with a value for each rank. Which ranks they are, Evidently counts from 1 or from 2; they are in order.
TOP_K = frozenset({"FBetaTopK", "HitRate", "MAP", "MRR", "NDCG", "PrecisionTopK", "RecallTopK"})
# The parameter that names what the metric is of.
SUBJECTS = ("column", "column_name", "embeddings_name")
# How a metric is drawn tells no two apart.
DRAWING = frozenset(
    {
        "nbinsx", "conf_matrix", "pr_curve", "pr_table", "roc_curve", "error_plot", "perc_error_plot", "error_distr",
        "error_normality",
    }
)  # fmt: skip
# What goes without saying.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(("classification_name", "regression_name", "ranking_name", "distribution"), "default"),
        **dict.fromkeys(("no_feedback_users", "normalize_arp"), False),
    }
)
