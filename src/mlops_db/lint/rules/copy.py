"""A copy that pg_dump and restore make has the same schema.

PostgreSQL rewrites some expressions when it stores them, and rewrites them again when it restores them: a list of texts
compared with a varchar column, or AT TIME ZONE. On such a copy `mlops-db check` would always report a difference.
"""

from functools import partial
from os.path import commonprefix

from mlops_db.drift.catalogue import Catalogue
from mlops_db.drift.compare import Difference, differences
from mlops_db.drift.scratch import scratch_database
from mlops_db.lint.observation import Head, read_schema
from mlops_db.lint.rule import Finding, Findings, HeadRule
from mlops_db.server.client_programs import copy_schema


@partial(
    HeadRule,
    column="copies",
    remedy="Write it as the copy has it, or without what PostgreSQL rewrites: timezone('UTC', x) for x AT TIME ZONE"
    " 'UTC', x::text IN ('a', 'b') for x IN ('a', 'b').",
)
def check(head: Head) -> Findings:
    """Find a difference that `mlops-db check` would find after `pg_dump --schema-only` and restore."""
    with scratch_database(head.server) as copy:
        copy_schema(head.database, copy)
        copied = read_schema(copy)
    for difference in differences(head.runs[-1].made, copied):
        since = next((run for run in head.runs if _has(run.made, difference)), head.runs[-1])
        if not since.is_baseline:
            yield Finding(f"after pg_dump and restore there is a difference, {difference}", file=since.file.name)


def _has(catalogue: Catalogue, difference: Difference) -> bool:
    """Whether the catalogue has the differing text already, perhaps under another name or in another table."""
    name, property_ = difference.name, difference.property
    if not property_ or difference.expected is None or difference.found is None:
        return name in catalogue
    own = _own_part(difference.expected, difference.found)
    return any(
        own in properties.get(property_, "") for other, properties in catalogue.items() if other.kind == name.kind
    )


def _own_part(text: str, other: str) -> str:
    """The text from where it differs from the other on, up to what both end with."""
    begin = len(commonprefix([text, other]))  # noqa: RUF071  (character by character is meant)
    end = len(commonprefix([text[begin:][::-1], other[begin:][::-1]]))  # noqa: RUF071  (the same)
    return text[begin : len(text) - end] or text
