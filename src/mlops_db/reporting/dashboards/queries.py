"""The query of a panel, and how a query uses the dashboard's variables."""

from __future__ import annotations

import textwrap

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import AnnotationTarget, DataSourceRef

# grafana/provisioning/datasources has the same.
DATA_SOURCE = DataSourceRef(type_val="grafana-postgresql-datasource", uid="mlops-postgresql")


class Query(Builder[Dataquery], Dataquery):
    """A query in SQL, as Grafana's PostgreSQL data source takes it."""

    def __init__(self, sql: str, ref_id: str = "A") -> None:
        """Take the statement, and the name of the query in its panel."""
        self.sql = textwrap.dedent(sql).strip()
        self.ref_id = ref_id

    def build(self) -> Dataquery:
        """The query itself: it has no parts to build."""
        return self

    def to_json(self) -> dict[str, object]:
        """What Grafana stores."""
        return {
            "refId": self.ref_id,
            "datasource": DATA_SOURCE,
            "editorMode": "code",
            "rawQuery": True,
            "format": "table",
            "rawSql": self.sql,
        }


class AnnotationSource(Builder[AnnotationTarget], AnnotationTarget):
    """The query of an annotation."""

    def __init__(self, sql: str) -> None:
        """Take a statement that returns time, text and tags."""
        self.query = Query(sql, ref_id="Annotation")

    def build(self) -> AnnotationTarget:
        """The query itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """What Grafana stores."""
        return self.query.to_json()


def chosen(column: str, variable: str) -> str:
    r"""The condition that a column has one of the chosen values of a variable.

    `sqlstring` quotes the values in all versions of Grafana, and without a value the list may be empty. But it writes a
    double quote as `\"`, as MySQL wants it, so that is undone here.
    """
    values = f"unnest(ARRAY[${{{variable}:sqlstring}}]::text[]) AS value"
    return f"""{column} = ANY (ARRAY(SELECT replace(value, '\\"', '"') FROM {values}))"""


def chosen_text(variable: str) -> str:
    """The value of a variable of which one value can be chosen."""
    return f"""replace(${{{variable}:sqlstring}}, '\\"', '"')"""
