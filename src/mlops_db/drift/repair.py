"""Writes the SQL that repairs drift."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from mlops_db.drift.catalogue import VIEWS, Name, grants_of, split_grant
from mlops_db.drift.obstructions import converted
from mlops_db.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.drift.catalogue import Catalogue, Properties
    from mlops_db.drift.compare import Drift

LOSES_ROWS = "-- loses data, so it is yours to uncomment: "
BY_HAND = "-- by hand: "
AS_BOTH = "-- as a superuser, or as a member of the old owner and of the new one:"
# Dropped in this order if they are unexpected or differ; created again after the tables are repaired.
REPLACED = ("rule", "policy", "trigger", "constraint", "index")
_TRIGGER = re.compile(r"(?:CREATE|DROP|ALTER TABLE \S+ \w+(?: \w+)?) TRIGGER\b")
# The properties of a column as its definition has them, in this order.
_COLUMN = {
    "type": "{}",
    "collation": "COLLATE {}",
    "default": "DEFAULT {}",
    "generated": "GENERATED ALWAYS AS ({}) STORED",
    "identity": "GENERATED {} AS IDENTITY",
    "not null": "NOT NULL",
}


def repair_statements(drift: Drift) -> list[str]:
    """SQL that repairs the drift, one statement an entry, in an order in which it runs.

    Statements that would lose data (drop an unexpected table or column) are comments. So is what no single statement
    repairs, such as the order of columns. A view that differs, or that keeps a column from changing, is dropped and
    created again, with the views that read it. Others' objects that depend on it are named and left alone: the script
    stops there.
    """
    repair = _Repair(drift)
    statements = list(repair.statements())
    # Citus refuses to create, drop or switch triggers of distributed tables without it, also those that belong there.
    triggers = "theirs: extension citus" in drift.theirs and any(map(_TRIGGER.match, statements))
    return [
        *(["SET check_function_bodies = off;"] if repair.makes_functions else []),
        *(["SET citus.enable_unsafe_triggers = on;"] if triggers else []),
        *statements,
    ]


def needs(what: str, needed: str) -> str:
    """The comment that an object of others depends on one that is dropped or changed."""
    return _by_hand(f"{printable(what)} needs {needed}: drop it before this, and create it again afterwards")


class _Repair:
    def __init__(self, drift: Drift) -> None:
        self.expected = expected = drift.expected
        self.found = found = drift.found
        self.owners = drift.owners
        self.dependents = drift.dependents
        self.obstructions = drift.obstructions
        self.differing = {name for name in expected if name in found and expected[name] != found[name]}
        self.missing = [name for name in expected if name not in found]
        self.unexpected = [name for name in found if name not in expected]
        self.makes_functions = any(
            name.kind == "function" and len(expected[name]["definition"]) > 1 and self.changed(name, "definition")
            for name in expected
        )
        self.retyped = {name.within for name in self.differing if name.kind == "column" and self.changes_type(name)}
        self.views = {name for name in self.missing if name.kind in VIEWS} | self.find_stale_views()
        self.rebuilt = {name.name for name in self.views}
        self.replaced = {name for name in expected if name in found and self.must_replace(name)}

    def must_replace(self, name: Name) -> bool:
        """Whether the part differs, or belongs to a view that is created again or to a column with a new type."""
        wanted, there = (catalogue[name].get("definition", "") for catalogue in (self.expected, self.found))
        only_validate = there == f"{wanted} NOT VALID"
        return (
            (name.kind in REPLACED and not only_validate and self.changed(name, "definition", "valid", "options"))
            or (name.kind in ("trigger", "rule") and name.within in self.rebuilt)
            or (name.kind == "policy" and name.within in self.retyped)
        )

    def find_stale_views(self) -> set[Name]:
        """The existing views to create again: those that differ, and readers of them or of changed columns."""
        views = {name for name in self.found if name.kind in VIEWS}
        stale = {name for name in views if name not in self.expected or self.changed(name, "definition", "options")}
        below = {name.name for name in stale} | self.retyped
        while more := {
            name
            for name in views - stale
            if name.name in below or below & set(self.found[name].get("reads", "").split(", "))
        }:
            stale |= more
            below |= {name.name for name in more}
        return stale

    def changes_type(self, name: Name) -> bool:
        # A column to convert by hand stays as it is meanwhile.
        return self.changed(name, "type", "collation") and name not in self.obstructions

    def changes_values(self, name: Name) -> bool:
        if name.kind != "column" or name.table not in self.found:
            return False
        return self.fills(name) if name in self.missing else self.changes_type(name)

    def fills(self, name: Name) -> bool:
        """Whether the column gets a value in the existing rows."""
        return any(key in self.expected[name] for key in ("default", "generated", "identity"))

    def statements(self) -> Iterator[str]:
        yield from self.stands_in_the_way()
        yield from self.drops()
        yield from self.tables_and_columns()
        yield from self.creates()
        yield from self.sequences_of_columns()
        for name, properties in self.expected.items():
            if not self.is_beyond_us(name):
                yield from self.comment(name, properties)
        yield from self.grants()
        yield from self.give_away()
        yield from self.leftovers()

    def stands_in_the_way(self) -> Iterator[str]:
        """Comments on others' objects that keep ours from being dropped or changed."""
        going = {(name.name, ""): name for name in self.views if name in self.found}
        for name in self.found:
            if name.within and (name in self.replaced or name in self.unexpected or self.changes_type(name)):
                going[name.within, name.name] = name
        # A table with a column of its row type keeps a table from changing values: by another type, or a new default.
        revalued = {name.within: name for name in self.expected if self.changes_values(name)}
        for on, part, _, what in self.dependents:
            needed = going.get((on, part)) or going.get((on, ""))
            if needed is None and not part and what.startswith(("table column ", "materialized view column ")):
                needed = revalued.get(on)
            if needed is not None:
                yield needs(what, str(needed))

    def give_away(self) -> Iterator[str]:
        """ALTER ... OWNER TO for objects of another owner, and for those that this repair creates."""
        owner = self.owners.expected
        wrong = {name for name in self.owners.wrong(self.expected) if name not in self.views}
        if owner != self.owners.reader:
            wrong |= self.views & self.expected.keys()
            wrong |= {name for name in self.missing if not name.within and not self.is_beyond_us(name)}
        if wrong and owner is not None:
            yield AS_BOTH
            # The schema first: a new owner has to be able to create in it.
            for name in sorted(wrong, key=lambda name: (name.kind != "schema", str(name))):
                if name.kind != "extension" and "owned by" not in self.expected.get(name, {}):
                    yield f"ALTER {_sql_kind(name)} {name.name} OWNER TO {owner};"

    def is_beyond_us(self, name: Name) -> bool:
        """Whether it stays missing: PostgreSQL has no definition of an aggregate."""
        return name.kind == "function" and name in self.missing and len(self.expected[name]["definition"]) == 1

    def drops(self) -> Iterator[str]:
        going = self.replaced | {name for name in self.unexpected if name.kind in REPLACED}
        for kind in REPLACED:
            there = [name for name in self.found if name.kind == kind and name in going]
            # A key that refers to a constraint goes before it.
            for name in sorted(there, key=lambda name: not self.found[name]["definition"].startswith("FOREIGN KEY")):
                if self._table_stays(name) and name.within not in self.rebuilt:
                    yield f"{self.drop(name)};"
        for name in reversed(_readers_last(self.found, self.views)):
            yield f"DROP {name.kind.upper()} {name.name};"

    def _table_stays(self, name: Name) -> bool:
        """Whether the object's table or view is expected; otherwise it is dropped with that, if at all."""
        return any(whole in self.expected for whole in name.wholes)

    def leftovers(self) -> Iterator[str]:
        """DROP for unexpected objects, last; as comments if rows, or what holds rows, would be lost."""
        loss = [name for name in self.unexpected if name.kind in ("table", "column", "schema")]
        for name in loss:
            if name.kind == "column" and name.table in self.expected:
                yield _comment(LOSES_ROWS, f"ALTER TABLE {name.within} DROP COLUMN {name.name};")
        yield from self.unexpected_tables(loss)
        for kind in ("function", "sequence", "type"):
            for name in reversed([name for name in self.unexpected if name.kind == kind]):
                if not self.goes_with_its_table(name):
                    statement = f"DROP {_sql_kind(name)} {name.name};"
                    yield _comment(LOSES_ROWS, statement) if loss else statement
        for name in loss:
            if name.kind == "schema":
                yield _comment(LOSES_ROWS, f"DROP SCHEMA {name.name};")

    def unexpected_tables(self, loss: list[Name]) -> Iterator[str]:
        for name in self.unexpected:
            key = self.found[name].get("definition", "").startswith("FOREIGN KEY")
            if key and not self._table_stays(name):
                yield _comment(LOSES_ROWS, f"{self.drop(name)};")
        for name in reversed([name for name in loss if name.kind == "table"]):
            foreign = "FOREIGN " if "foreign" in self.found[name] else ""
            if "parents" not in self.found[name] or Name("table", "", self.found[name]["parents"]) in self.expected:
                yield _comment(LOSES_ROWS, f"DROP {foreign}TABLE {name.name};")

    def goes_with_its_table(self, name: Name) -> bool:
        """Whether it is a sequence of an unexpected table, or of an identity column."""
        owner = self.found[name].get("owned by", "").rpartition(".")[0]
        return "identity" in self.found[name] or (owner != "" and Name("table", "", owner) not in self.expected)

    def drop(self, name: Name) -> str:
        if name.kind == "constraint":
            return f"ALTER TABLE {name.within} DROP CONSTRAINT {name.name}"
        on = "" if name.kind == "index" else f" ON {name.within}"
        return f"DROP {name.kind.upper()} {name.name}{on}"

    def tables_and_columns(self) -> Iterator[str]:
        for kind in ("extension", "schema", "type", "sequence", "function", "table", "column"):
            for name in self.expected:
                if name.kind == kind == "function" and self.changed(name, "definition"):
                    yield from self.function(name)
                elif name.kind == kind and name not in self.found:
                    yield from self.create_missing(name)
        for name in self.expected:
            if name in self.differing:
                yield from self.alter(name)

    def function(self, name: Name) -> Iterator[str]:
        definition = self.expected[name]["definition"]
        if len(definition) == 1:  # an aggregate or a window function, of which PostgreSQL gives no definition
            yield _by_hand(f"{name} should be there")
            return
        there = self.found.get(name, {}).get("definition", "")
        if there and _returns(there) != _returns(definition):
            yield f"DROP ROUTINE {name.name};"
        yield f"{definition.rstrip().rstrip(';')};"

    def create_missing(self, name: Name) -> Iterator[str]:
        if name.kind in ("extension", "schema"):
            yield f"CREATE {name.kind.upper()} {name.name};"
        elif name.kind == "type":
            labels = self.expected[name].get("labels")
            if labels is not None:
                yield f"CREATE TYPE {name.name} AS ENUM ({labels});"
            else:
                yield f"CREATE DOMAIN {name.name} AS {self.expected[name]['domain']};"
        elif name.kind == "sequence" and "identity" not in self.expected[name]:
            yield f"CREATE SEQUENCE {name.name} {self.expected[name]['definition']};"
        elif name.kind == "table":
            yield self.create_table(name)
            yield from self.set_properties(name)
        elif name.kind == "column" and name.table in self.found:
            column = self.column(name)
            if column.endswith(" NOT NULL") and not self.fills(name):
                yield f"ALTER TABLE {name.within} ADD COLUMN {column.removesuffix(' NOT NULL')};"
                alter = f"ALTER TABLE {name.within} ALTER COLUMN {name.name} SET NOT NULL;"
                empty = f"NOT EXISTS (SELECT FROM {name.within} WHERE {name.name} IS NULL)"
                yield f"DO $repair$ BEGIN IF {empty} THEN {alter} END IF; END $repair$;"
                yield _by_hand(f"where the table has rows, fill {name}, then {alter}")
            else:
                yield f"ALTER TABLE {name.within} ADD COLUMN {column};"

    def alter(self, name: Name) -> Iterator[str]:
        if name.kind == "column" and name.table in self.expected:
            yield from self.alter_column(name)
        elif name.kind == "table":
            yield from self.alter_table(name)
        elif name.kind == "sequence" and self.changed(name, "identity"):
            yield _by_hand(
                f"{name} should {'' if 'identity' in self.expected[name] else 'not '}be an identity column's"
            )
        elif name.kind == "sequence" and self.changed(name, "definition"):
            yield f"ALTER SEQUENCE {name.name} {self.expected[name]['definition']};"
        elif name.kind == "type" and self.changed(name, "labels", "domain"):
            wanted = self.expected[name].get("labels") or self.expected[name].get("domain", "something else")
            yield _by_hand(f"{name} should be {wanted}")

    def create_table(self, name: Name) -> str:
        properties = self.expected[name]
        create = f"CREATE {'UNLOGGED ' if 'persistence' in properties else ''}TABLE {name.name}"
        if "partition bound" in properties:
            return f"{create} PARTITION OF {properties['parents']} {properties['partition bound']};"
        columns = [self.column(part) for part in self.expected if part.kind == "column" and part.within == name.name]
        key = f" PARTITION BY {properties['partition key']}" if "partition key" in properties else ""
        return f"{create} ({', '.join(columns)}){key};"

    def column(self, name: Name) -> str:
        properties = self.expected[name]
        parts = (part.format(properties[key]) for key, part in _COLUMN.items() if key in properties)
        return " ".join((name.name, *parts))

    def alter_column(self, name: Name) -> Iterator[str]:
        wanted, alter = self.expected[name], f"ALTER TABLE {name.within} ALTER COLUMN {name.name}"
        if self.changed(name, "generated", "identity", "position"):
            yield _by_hand(f"{name} should be {self.column(name)}, at position {wanted['position']}")
            if self.changed(name, "identity"):
                return
        reason = self.obstructions.get(name)
        if reason and self.changed(name, "type"):
            yield _by_hand(f"{name} should be {self.column(name)}; {reason}")
            return
        retyped = self.changed(name, "type", "collation")
        if retyped:
            collate = f" COLLATE {wanted['collation']}" if "collation" in wanted else ""
            if "default" in self.found[name]:
                yield f"{alter} DROP DEFAULT;"  # it may not convert
            using = converted(name.name, self.found[name]["type"], wanted["type"])
            yield f"{alter} TYPE {wanted['type']}{collate} USING {using};"
        if self.changed(name, "default") or (retyped and "default" in wanted):
            yield f"{alter} SET DEFAULT {wanted['default']};" if "default" in wanted else f"{alter} DROP DEFAULT;"
        if reason and self.changed(name, "not null"):
            yield _by_hand(f"{name}: {reason}; fill it, then {alter} SET NOT NULL;")
        elif self.changed(name, "not null"):
            yield f"{alter} {'SET' if 'not null' in wanted else 'DROP'} NOT NULL;"

    def alter_table(self, name: Name) -> Iterator[str]:
        wanted = self.expected[name]
        if self.changed(name, "persistence"):
            yield f"ALTER TABLE {name.name} SET {'UNLOGGED' if 'persistence' in wanted else 'LOGGED'};"
        yield from self.set_properties(name)
        for key in ("foreign", "partition key", "open ends", "gaps", "parents", "partition bound"):
            if self.changed(name, key):
                yield _by_hand(f"{name}: {key} should be {wanted.get(key, 'none')}")

    def set_properties(self, name: Name) -> Iterator[str]:
        wanted = self.expected[name]
        if self.changed(name, "row level security"):
            security = wanted.get("row level security", "")
            yield f"ALTER TABLE {name.name} {'ENABLE' if 'ENABLE' in security else 'DISABLE'} ROW LEVEL SECURITY;"
            yield f"ALTER TABLE {name.name} {'FORCE' if 'FORCE' in security else 'NO FORCE'} ROW LEVEL SECURITY;"
        if self.changed(name, "options"):
            if found := self.found.get(name, {}).get("options"):
                keys = ", ".join(part.partition("=")[0] for part in found.split(", "))
                yield f"ALTER TABLE {name.name} RESET ({keys});"
            if "options" in wanted:
                yield f"ALTER TABLE {name.name} SET ({wanted['options']});"
        if self.changed(name, "replica identity"):
            yield _by_hand(f"{name}: replica identity should be {wanted.get('replica identity', 'the default')}")

    def creates(self) -> Iterator[str]:
        parts = [name for name in self.expected if name in self.missing or name in self.replaced]
        on_views = [name for name in self.expected if name.kind == "index" and name.within in self.rebuilt]
        for name in parts:
            if name.kind in ("constraint", "index") and name not in on_views:
                yield from self.create_part(name)
        for name in self.expected:
            if name.kind == "constraint" and name not in parts and self.changed(name, "definition"):
                yield f"ALTER TABLE {name.within} VALIDATE CONSTRAINT {name.name};"
        for name in _readers_last(self.expected, self.views):
            properties = self.expected[name]
            options = f" WITH ({properties['options']})" if "options" in properties else ""
            yield f"CREATE {name.kind.upper()} {name.name}{options} AS\n{properties['definition']}"
        for name in dict.fromkeys([*on_views, *parts]):
            if name in on_views or name.kind in ("rule", "policy", "trigger"):
                yield from self.create_part(name)
        for name in self.expected:
            if name.kind == "trigger" and name not in parts and self.changed(name, "enabled"):
                yield self.enable(name)

    def create_part(self, name: Name) -> Iterator[str]:
        definition = self.expected[name]["definition"].rstrip().rstrip(";")
        if name.kind == "constraint":
            definition = f"ALTER TABLE {name.within} ADD CONSTRAINT {name.name} {definition}"
            if name in self.obstructions:
                yield _by_hand(f"{name}: {self.obstructions[name]}; fix them, then {definition};")
                return
        elif name.kind == "policy":
            definition = f"CREATE POLICY {name.name} ON {name.within} {definition}"
        elif name.kind == "index":
            definition = definition.replace(" ON ONLY ", " ON ", 1)  # on the partitions too, or it stays invalid
        yield f"{definition};"
        if name.kind == "trigger" and "enabled" in self.expected[name]:
            yield self.enable(name)

    def enable(self, name: Name) -> str:
        return f"ALTER TABLE {name.within} {self.expected[name].get('enabled', 'ENABLE')} TRIGGER {name.name};"

    def sequences_of_columns(self) -> Iterator[str]:
        for name, properties in self.expected.items():
            if name.kind == "sequence" and self.changed(name, "owned by") and "identity" not in properties:
                owner = properties.get("owned by", "NONE")
                yield f"ALTER SEQUENCE {name.name} OWNED BY {owner};"
                table, _, column = owner.rpartition(".")
                fits = Name("table", "", table) in self.found and Name("column", table, column) not in self.obstructions
                if name in self.missing and fits:
                    highest = f"(SELECT coalesce(max({column}), 0) + 1 FROM {table})"
                    yield f"SELECT setval('{name.name}', {highest}, false);"

    def there(self, name: Name) -> Properties:
        """The properties at this point of the repair: none of what it has created again; a function has its default."""
        if name in self.views or name in self.replaced or name.within in self.rebuilt:
            return {}
        if name.kind == "function" and name in self.missing:
            return {"grants": "EXECUTE TO PUBLIC"}
        return self.found.get(name, {})

    def comment(self, name: Name, wanted: Properties) -> Iterator[str]:
        if wanted.get("comment") != self.there(name).get("comment"):
            text = "NULL" if "comment" not in wanted else "'" + wanted["comment"].replace("'", "''") + "'"
            target = f"{name.within}.{name.name}" if name.kind == "column" else name.name
            on = f" ON {name.within}" if name.kind in ("constraint", "trigger", "rule", "policy") else ""
            yield f"COMMENT ON {_sql_kind(name)} {target}{on} IS {text};"

    def grants(self) -> Iterator[str]:
        granted = {name: (grants_of(wanted), grants_of(self.there(name))) for name, wanted in self.expected.items()}
        revoked = set()
        for name, (wanted, there) in granted.items():
            kind, target, columns = _grant_target(name)
            for grant in sorted(there - wanted):
                privilege, role = split_grant(grant)
                revoked.add((target, role))
                yield f"REVOKE {privilege}{columns} ON {kind} {target} FROM {role};"
        for name, (wanted, there) in granted.items():
            kind, target, columns = _grant_target(name)
            for grant in sorted(wanted):
                privilege, _, role = grant.partition(" TO ")
                # REVOKE on a table also revokes the privilege on its columns.
                lost = grant not in there or (target, split_grant(grant)[1]) in revoked
                if lost and not self.is_beyond_us(name):
                    yield f"GRANT {privilege}{columns} ON {kind} {target} TO {role};"

    def changed(self, name: Name, *keys: str) -> bool:
        wanted, there = self.expected.get(name, {}), self.found.get(name, {})
        return any(wanted.get(key) != there.get(key) for key in keys)


def _grant_target(name: Name) -> tuple[str, str, str]:
    if name.kind == "column":
        return "TABLE", name.within, f" ({name.name})"
    return {"view": "TABLE", "materialized view": "TABLE"}.get(name.kind, _sql_kind(name)), name.name, ""


def _sql_kind(name: Name) -> str:
    """The kind for DROP, COMMENT and GRANT; ROUTINE includes procedures and aggregates."""
    return "ROUTINE" if name.kind == "function" else name.kind.upper()


def _returns(definition: str) -> str:
    return next((line.strip() for line in definition.splitlines() if line.strip().startswith("RETURNS")), "")


def _by_hand(remark: str) -> str:
    return BY_HAND + " ".join(remark.split())


def _comment(remark: str, statement: str) -> str:
    """A comment: a line break in a name must not end it."""
    return remark + re.sub(r"[\r\n]", "\n-- ", statement)


def _readers_last(catalogue: Catalogue, views: set[Name]) -> list[Name]:
    """The views of the catalogue that are in `views`, each after those that it reads."""
    there = {name.name: name for name in catalogue if name in views}
    reads = {name: set(catalogue[there[name]].get("reads", "").split(", ")) & there.keys() - {name} for name in there}
    return [there[name] for name in TopologicalSorter(reads).static_order()]
