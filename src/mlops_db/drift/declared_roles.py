"""The two kinds of role beside the owner, readers and writers, and the privileges that each has.

No table says what a role is. A role is of a kind if it has the privileges by which the kind is known. So grants made by
hand count, too, and so do those that a dump brings along. A writer has all privileges of a reader.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlops_db.project import BASELINE_TABLES, BASELINE_VIEWS, REPORTING_FUNCTIONS, REPORTING_VIEWS, TABLES, VIEWS
from mlops_db.revisions.tables import RUNNING_CODE_TABLE, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

OWNERSHIP = "ownership"  # counts as a privilege, though no GRANT gives it
_SERIES = "mlops_internal.metric_series"


class Privilege(NamedTuple):
    """One privilege on one object, or on one column of it.

    Attributes:
        name: as GRANT has it, such as `SELECT`.
        kind: `table` (a view, too), `sequence`, `schema`, `function` or `database`; empty if it is on no object.
        object: its name, qualified unless it is a schema or a database; of a function without the arguments.
        column: the column; empty for the whole object.
    """

    name: str
    kind: str
    object: str
    column: str = ""


# A reader has it, too, on a coordinator of Citus that has shards there; without them it gives nothing.
ON_SHARDS = Privilege("USAGE", "schema", "mlops_internal")


@dataclass(frozen=True)
class Kind:
    """A kind of role.

    Attributes:
        name: what people call it.
        may: what it may do, in words.
        privileges: all that it needs.
        known_by: those by which a role is known to be of this kind, even if it lacks others.
        may_have: what gives it nothing more, so that it may have it, but does not need it.
    """

    name: Literal["reader", "writer"]
    may: str
    privileges: tuple[Privilege, ...]
    known_by: tuple[Privilege, ...]
    may_have: tuple[Privilege, ...] = ()

    def lacks(self, held: Iterable[Privilege]) -> list[Privilege]:
        """The privileges that a role with these ones still needs."""
        found = frozenset(held)
        return [wanted for wanted in self.privileges if not found & {wanted, wanted._replace(column="")}]

    def allows(self, privilege: Privilege) -> bool:
        """Whether a role of this kind may have this privilege."""
        return bool({*self.privileges, *self.may_have} & {privilege, privilege._replace(column="")})


def _tables(name: str, tables: Iterable[str], schema: str = "public") -> tuple[Privilege, ...]:
    return tuple(Privilege(name, "table", f"{schema}.{table}") for table in tables)


READER = Kind(
    "reader",
    "read the views",
    (
        Privilege("USAGE", "schema", "public"),
        Privilege("USAGE", "schema", "reporting"),
        *_tables("SELECT", VIEWS),
        *_tables("SELECT", REPORTING_VIEWS, "reporting"),
        *(
            Privilege("EXECUTE", "function", f"reporting.{function.partition('(')[0]}")
            for function in REPORTING_FUNCTIONS
        ),
    ),
    _tables("SELECT", BASELINE_VIEWS),
)
# Column by column only where Citus has no shards, because it cannot grant columns there.
WRITER = Kind(
    "writer",
    "make every call of the storage layer",
    (
        *READER.privileges,
        Privilege("SELECT", "table", VERSION_TABLE),
        Privilege("USAGE", "schema", "mlops_internal"),
        Privilege("SELECT", "table", RUNNING_CODE_TABLE),
        *_tables("SELECT", TABLES),
        *_tables("INSERT", TABLES),
        *(Privilege("USAGE", "sequence", f"public.{table}_id_seq") for table in TABLES),
        # What a version is stays; its stage changes, and missing scores are filled in.
        *(
            Privilege("UPDATE", "table", "public.model_versions", column)
            for column in ("status", "promoted_at", "f1_score", "brier_score")
        ),
        # log_many(replace=...) and forget() remove rows of metrics; decisions and versions stay for ever.
        Privilege("DELETE", "table", "public.monitoring_metrics"),
        *(Privilege(name, "table", _SERIES) for name in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    ),
    _tables("INSERT", BASELINE_TABLES),
    # It only inserts into the catalogue, which a writer may do itself. Earlier pages told to grant it.
    (Privilege("EXECUTE", "function", "mlops_internal.register_series"),),
)
KINDS = (WRITER, READER)  # a writer is a reader, too, so it is asked first


def find_kind(held: Iterable[Privilege]) -> Kind | None:
    """The kind that a role with these privileges is of; None if it is of none."""
    found = frozenset(held)
    return next((kind for kind in KINDS if found.issuperset(kind.known_by)), None)


def describe(privileges: Iterable[Privilege]) -> list[str]:
    """The privileges in words, one for each object and name, such as `UPDATE (status) on model_versions`."""
    columns: defaultdict[Privilege, list[str]] = defaultdict(list)
    for privilege in privileges:
        columns[privilege._replace(column="")].append(privilege.column)
    return [_describe(privilege, sorted(filter(None, found))) for privilege, found in columns.items()]


def _describe(privilege: Privilege, columns: list[str]) -> str:
    if not privilege.object:
        return privilege.name
    kind = "" if privilege.kind == "table" else f"{privilege.kind} "
    of_columns = f" ({', '.join(columns)})" if columns else ""
    on = "of" if privilege.name == OWNERSHIP else "on"
    return f"{privilege.name}{of_columns} {on} {kind}{privilege.object.removeprefix('public.')}"
