"""The scores of each version, as they were before it was in production."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.labels import apart, number
from mlops_db.reporting.report.production import SCORES
from mlops_db.reporting.report.scale import ValueScale
from mlops_db.server.cursor import SafeCursor

MOST_MODELS = 12
MOST_VERSIONS = 40

_VERSIONS = f"""
    SELECT *
      FROM (
          SELECT model_name, model_version, status, f1_score, brier_score, created_at, promoted_at IS NOT NULL,
                 count(*) OVER (PARTITION BY model_name),
                 row_number() OVER (PARTITION BY model_name ORDER BY created_at DESC, id DESC) AS place
            FROM public.v_model_timeline
           WHERE %(models)s::text[] IS NULL OR model_name = ANY(%(models)s)
      ) AS numbered
     WHERE place <= {MOST_VERSIONS}
     ORDER BY model_name, place DESC
"""


class Version(NamedTuple):
    """A row of v_model_timeline: the `place`th newest version of `of` of its model."""

    model_name: str
    model_version: str
    status: str
    f1_score: float | None
    brier_score: float | None
    created_at: datetime
    promoted: bool
    of: int
    place: int


@dataclass(frozen=True)
class Scores:
    """The versions of a model.

    Attributes:
        model_name: the model.
        versions: the newest ones, oldest first.
        charts: the name of each score, its picture, and the number of versions without it. Without any score there is
            no picture.
        left_out: the number of older versions.
    """

    model_name: str
    versions: list[Version]
    charts: list[tuple[str, Chart | None, int]]
    left_out: int


def read_versions(cursor: SafeCursor, models: Sequence[str]) -> dict[str, list[Version]]:
    """Read the newest versions of some models, or of all if none is named; oldest first."""
    found: defaultdict[str, list[Version]] = defaultdict(list)
    cursor.execute(_VERSIONS, {"models": list(models) or None})
    for row in cursor.fetchall():
        version = Version(*row)
        found[version.model_name].append(version)
    return found


def draw_scores(versions: dict[str, list[Version]], order: Sequence[str]) -> tuple[list[Scores], int]:
    """Draw the scores of the models in this order; and the number of models that are left out."""
    having = [name for name in order if name in versions]
    pictures = []
    for name in having[:MOST_MODELS]:
        own = versions[name]
        charts = [(title, *_chart(name, own, score)) for score, title in SCORES.items()]
        pictures.append(Scores(name, own, charts, own[0].of - len(own)))
    return pictures, len(having) - len(pictures)


def _chart(model_name: str, versions: list[Version], score: str) -> tuple[Chart | None, int]:
    values = [getattr(version, score) for version in versions]
    known = [value for value in values if value is not None]
    if not known:
        return None, len(versions)
    rows = [
        (place, value, version.status, version.promoted, f"{SCORES[score]} {number(value)}")
        for place, (version, value) in enumerate(zip(versions, values, strict=True))
        if value is not None
    ]
    scale = ValueScale.of(known)
    label = f"{SCORES[score]} of {len(known)} versions of {model_name}: {number(min(known))} to {number(max(known))}"
    label += f", {number(known[-1])} of the newest"
    names = list(apart(version.model_version for version in versions))
    chart = Chart(
        "scores",
        label,
        {"versions": columns("row score status promoted text", rows)},
        {"row": names},
        scale.values,
    )
    return chart, len(versions) - len(known)
