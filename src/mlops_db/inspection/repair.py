"""The statements that make a database what its revisions make it, from the differences that were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.inspection.catalogue import Name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.inspection.catalogue import Catalogue, Properties
    from mlops_db.inspection.drift import Drift

LOSES_ROWS = "-- loses data, so it is yours to uncomment: "
BY_HAND = "-- by hand: "
VIEWS = ("view", "materialized view")
# Dropped in this order when they are unexpected or not as they should be; made again after the tables are right.
REPLACED = ("rule", "policy", "trigger", "constraint", "index", *VIEWS)


def repair_statements(drift: Drift) -> list[str]:
    """SQL that repairs the drift, one statement an entry, in an order in which it runs.

    What would lose data, a table or a column that is not expected, is there as a comment; so is the little that no
    single statement repairs, such as the order of columns. Views are dropped and created anew together, because they
    read each other and keep columns from changing.
    """
    return list(_Repair(drift.expected, drift.found).statements())


class _Repair:
    def __init__(self, expected: Catalogue, found: Catalogue) -> None:
        self.expected = expected
        self.found = found
        self.differing = {name for name in expected if name in found and expected[name] != found[name]}
        self.missing = [name for name in expected if name not in found]
        self.unexpected = [name for name in found if name not in expected]
        changed = self.differing | set(self.unexpected) | set(self.missing)
        rebuild = any(name.kind in VIEWS for name in changed) or any(
            name.kind == "column" and self.changes_type(name) for name in changed
        )
        self.views = {name for name in [*expected, *found] if rebuild and name.kind in VIEWS}

    def changes_type(self, name: Name) -> bool:
        wanted, there = self.expected.get(name, {}), self.found.get(name, {})
        return any(wanted.get(key) != there.get(key) for key in ("type", "collation", "generated"))

    def statements(self) -> Iterator[str]:
        yield from self.drops()
        yield from self.tables_and_columns()
        yield from self.creates()
        for name, properties in self.expected.items():
            yield from self.comment_and_grants(name, properties)

    def drops(self) -> Iterator[str]:
        for name in reversed([name for name in self.found if name in self.views]):
            yield f"DROP {name.kind.upper()} {name.name};"
        for kind in REPLACED[:-2]:
            for name in self.found:
                if name.kind == kind and (name in self.unexpected or self.must_replace(name)):
                    yield f"{self.drop(name)};"
        for name in self.unexpected:
            yield from self.drop_unexpected(name)

    def drop_unexpected(self, name: Name) -> Iterator[str]:
        if name.kind in ("function", "type"):
            yield f"DROP {name.kind.upper()} {name.name};"
        elif name.kind in ("table", "schema"):
            yield f"{LOSES_ROWS}DROP {name.kind.upper()} {name.name};"
        elif name.kind == "column" and Name("table", "", name.within) in self.expected:
            yield f"{LOSES_ROWS}ALTER TABLE {name.within} DROP COLUMN {name.name};"
        elif name.kind == "sequence" and "owned by" not in self.found[name]:
            yield f"DROP SEQUENCE {name.name};"

    def must_replace(self, name: Name) -> bool:
        wanted, there = self.expected[name], self.found[name]
        if wanted.get("definition") != there.get("definition"):
            # A constraint that only waits to be validated is validated.
            return name.kind != "constraint" or there["definition"] != f"{wanted['definition']} NOT VALID"
        return wanted.get("valid") != there.get("valid") or wanted.get("options") != there.get("options")

    def drop(self, name: Name) -> str:
        if name.kind == "constraint":
            return f"ALTER TABLE {name.within} DROP CONSTRAINT {name.name}"
        on = "" if name.kind == "index" else f" ON {name.within}"
        return f"DROP {name.kind.upper()} {name.name}{on}"

    def tables_and_columns(self) -> Iterator[str]:
        for kind in ("schema", "type", "sequence", "table", "column"):
            for name in self.missing:
                if name.kind == kind:
                    yield from self.create_missing(name)
        for name in self.expected:
            if name in self.differing:
                yield from self.alter(name)

    def create_missing(self, name: Name) -> Iterator[str]:
        if name.kind == "schema":
            yield f"CREATE SCHEMA {name.name};"
        elif name.kind == "type":
            yield self.create_type(name)
        elif name.kind == "sequence" and "identity" not in self.expected[name]:
            yield f"CREATE SEQUENCE {name.name} {self.expected[name]['definition']};"
        elif name.kind == "table":
            yield self.create_table(name)
        elif name.kind == "column" and Name("table", "", name.within) in self.found:
            yield f"ALTER TABLE {name.within} ADD COLUMN {self.column(name)};"

    def alter(self, name: Name) -> Iterator[str]:
        if name.kind == "column" and Name("table", "", name.within) in self.expected:
            yield from self.alter_column(name)
        elif name.kind == "table":
            yield from self.alter_table(name)
        elif name.kind == "sequence" and self.changed(name, "definition"):
            yield f"ALTER SEQUENCE {name.name} {self.expected[name]['definition']};"
        elif name.kind == "type" and self.changed(name, "labels", "domain"):
            yield f"{BY_HAND}{name} should be {self.expected[name].get('labels') or self.expected[name]['domain']}"

    def create_table(self, name: Name) -> str:
        properties = self.expected[name]
        create = f"CREATE {'UNLOGGED ' if 'persistence' in properties else ''}TABLE {name.name}"
        if "partition bound" in properties:
            return f"{create} PARTITION OF {properties['parents']} {properties['partition bound']};"
        columns = [self.column(part) for part in self.expected if part.kind == "column" and part.within == name.name]
        key = f" PARTITION BY {properties['partition key']}" if "partition key" in properties else ""
        return f"{create} ({', '.join(columns)}){key};"

    def create_type(self, name: Name) -> str:
        properties = self.expected[name]
        if "labels" in properties:
            return f"CREATE TYPE {name.name} AS ENUM ({properties['labels']});"
        return f"CREATE DOMAIN {name.name} AS {properties['domain']};"

    def column(self, name: Name) -> str:
        properties = self.expected[name]
        parts = [name.name, properties["type"]]
        if "collation" in properties:
            parts.append(f"COLLATE {properties['collation']}")
        if "default" in properties:
            parts.append(f"DEFAULT {properties['default']}")
        if "generated" in properties:
            parts.append(f"GENERATED ALWAYS AS ({properties['generated']}) STORED")
        if "identity" in properties:
            parts.append(f"GENERATED {properties['identity']} AS IDENTITY")
        if "not null" in properties:
            parts.append("NOT NULL")
        return " ".join(parts)

    def alter_column(self, name: Name) -> Iterator[str]:
        wanted, alter = self.expected[name], f"ALTER TABLE {name.within} ALTER COLUMN {name.name}"
        if self.changed(name, "generated", "identity", "position"):
            yield f"{BY_HAND}{name} should be {self.column(name)}, at position {wanted['position']}"
        if self.changed(name, "type", "collation"):
            collate = f" COLLATE {wanted['collation']}" if "collation" in wanted else ""
            if "default" in self.found[name]:
                yield f"{alter} DROP DEFAULT;"  # it may not convert
            yield f"{alter} TYPE {wanted['type']}{collate} USING {self.converted(name)};"
        if self.changed(name, "default", "type") and ("default" in wanted or self.changed(name, "default")):
            yield f"{alter} SET DEFAULT {wanted['default']};" if "default" in wanted else f"{alter} DROP DEFAULT;"
        if self.changed(name, "not null"):
            yield f"{alter} {'SET' if 'not null' in wanted else 'DROP'} NOT NULL;"

    def converted(self, name: Name) -> str:
        wanted, there = self.expected[name]["type"], self.found[name]["type"]
        if wanted != there and wanted.startswith("timestamp") and there.startswith("timestamp"):
            return f"{name.name} AT TIME ZONE 'UTC'"  # not the zone of whoever runs this
        return f"{name.name}::{wanted}"

    def alter_table(self, name: Name) -> Iterator[str]:
        wanted = self.expected[name]
        if self.changed(name, "persistence"):
            yield f"ALTER TABLE {name.name} SET {'UNLOGGED' if 'persistence' in wanted else 'LOGGED'};"
        if self.changed(name, "row level security"):
            yield f"ALTER TABLE {name.name} {wanted.get('row level security', 'DISABLE')} ROW LEVEL SECURITY;"
        if self.changed(name, "options"):
            yield from self.set_options(name)
        for key in ("partition key", "parents", "partition bound", "replica identity"):
            if self.changed(name, key):
                yield f"{BY_HAND}{name}: {key} should be {wanted.get(key, 'none')}"

    def set_options(self, name: Name) -> Iterator[str]:
        found = self.found[name].get("options", "")
        if found:
            yield f"ALTER TABLE {name.name} RESET ({', '.join(part.partition('=')[0] for part in found.split(', '))});"
        if "options" in self.expected[name]:
            yield f"ALTER TABLE {name.name} SET ({self.expected[name]['options']});"

    def creates(self) -> Iterator[str]:
        for name, properties in self.expected.items():
            anew = name in self.missing or (name in self.differing and self.must_replace(name))
            definition = properties.get("definition", "")
            if name.kind == "constraint" and anew:
                yield f"ALTER TABLE {name.within} ADD CONSTRAINT {name.name} {definition};"
            elif name.kind == "constraint" and self.changed(name, "definition"):
                yield f"ALTER TABLE {name.within} VALIDATE CONSTRAINT {name.name};"
            elif name.kind in ("index", "function", "rule") and anew:
                yield f"{definition.rstrip().rstrip(';')};"
            elif name.kind == "trigger":
                yield from self.trigger(name, definition, anew=anew)
            elif name.kind == "policy" and anew:
                yield f"CREATE POLICY {name.name} ON {name.within} {definition};"
            elif name in self.views:
                options = f" WITH ({properties['options']})" if "options" in properties else ""
                yield f"CREATE {name.kind.upper()} {name.name}{options} AS\n{definition}"
        yield from self.ownerships()

    def ownerships(self) -> Iterator[str]:
        for name, properties in self.expected.items():
            if name.kind == "sequence" and self.changed(name, "owned by") and "identity" not in properties:
                yield from self.own(name)
        for name in self.unexpected:
            owner = self.found[name].get("owned by", "").rpartition(".")[0]
            if name.kind == "sequence" and Name("table", "", owner) in self.expected:
                yield f"DROP SEQUENCE {name.name};"  # no column's default any more

    def own(self, name: Name) -> Iterator[str]:
        owner = self.expected[name].get("owned by")
        yield f"ALTER SEQUENCE {name.name} OWNED BY {owner or 'NONE'};"
        if owner is not None and name in self.missing:
            table, _, column = owner.rpartition(".")
            if Name("table", "", table) in self.found:
                highest = f"(SELECT coalesce(max({column}), 0) + 1 FROM {table})"
                yield f"SELECT setval('{name.name}', {highest}, false);"

    def trigger(self, name: Name, definition: str, *, anew: bool) -> Iterator[str]:
        if anew:
            yield f"{definition};"
        if self.changed(name, "enabled"):
            yield f"ALTER TABLE {name.within} {self.expected[name].get('enabled', 'ENABLE')} TRIGGER {name.name};"

    def comment_and_grants(self, name: Name, wanted: Properties) -> Iterator[str]:
        """What a view lost with its old self, and everybody else's where it differs."""
        rebuilt = name in self.views or Name("view", "", name.within) in self.views
        there: Properties = {} if rebuilt else self.found.get(name, {})
        if wanted.get("comment") != there.get("comment"):
            text = "NULL" if "comment" not in wanted else "'" + wanted["comment"].replace("'", "''") + "'"
            target = f"{name.within}.{name.name}" if name.kind == "column" else name.name
            on = f" ON {name.within}" if name.kind in ("constraint", "trigger", "rule", "policy") else ""
            yield f"COMMENT ON {name.kind.upper()} {target}{on} IS {text};"
        wanted_grants, there_grants = _split(wanted.get("grants")), _split(there.get("grants"))
        kind, target, columns = _grant_target(name)
        for grant in sorted(there_grants - wanted_grants):
            privilege, _, role = grant.removesuffix(" WITH GRANT OPTION").partition(" TO ")
            yield f"REVOKE {privilege}{columns} ON {kind} {target} FROM {role};"
        for grant in sorted(wanted_grants - there_grants):
            privilege, _, role = grant.partition(" TO ")
            yield f"GRANT {privilege}{columns} ON {kind} {target} TO {role};"

    def changed(self, name: Name, *keys: str) -> bool:
        wanted, there = self.expected.get(name, {}), self.found.get(name, {})
        return any(wanted.get(key) != there.get(key) for key in keys)


def _split(grants: str | None) -> set[str]:
    return set(grants.split(", ")) if grants else set()


def _grant_target(name: Name) -> tuple[str, str, str]:
    if name.kind == "column":
        return "TABLE", name.within, f" ({name.name})"
    return {"view": "TABLE", "materialized view": "TABLE"}.get(name.kind, name.kind.upper()), name.name, ""
