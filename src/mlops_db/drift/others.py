"""Separates our objects from others': objects that no revision creates, and grants to roles that no revision names.

Others' objects are listed and left alone. So are grants, but not those that a reader or a writer needs: these are
declared. Parts of our objects, such as an index on a table, objects with one of our names, and everything in
mlops_internal are ours: an unexpected object there is a difference.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mlops_db.drift.catalogue import OPTION, VIEWS, grants_of, split_grant
from mlops_db.drift.declared_roles import ON_SHARDS, Privilege, find_kind
from mlops_db.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlops_db.drift.catalogue import Catalogue, Name


def divide(expected: Catalogue, found: Catalogue) -> tuple[Catalogue, Catalogue]:
    """Divide the found objects into ours and others'."""
    names = {_whole(name) for name in expected}
    ours: Catalogue = {}
    theirs: Catalogue = {}
    for name, properties in found.items():
        owner = properties.get("owned by", "").rpartition(".")[0]
        whole = _whole(name)
        mine = whole in names or owner in names or whole.partition(".")[0] == "mlops_internal"
        (ours if mine else theirs)[name] = properties
    return ours, theirs


def with_their_grants(expected: Catalogue, ours: Catalogue) -> Catalogue:
    """What is expected, plus the grants to roles: the revisions do not decide who may use the database."""
    result = dict(expected)
    for name, properties in expected.items():
        found, wanted = ours.get(name, {}), grants_of(properties)
        both = wanted | {grant for grant in grants_of(found) if not grant.endswith(" TO PUBLIC")}
        both = {grant for grant in both if grant + OPTION not in both}
        if both != wanted:
            same = both == grants_of(found)  # which the server may sort otherwise
            result[name] = {**properties, "grants": found["grants"] if same else "\n".join(sorted(both))}
    return result


def lines(expected: Catalogue, ours: Catalogue, theirs: Catalogue) -> list[str]:
    """Others' objects and the grants to others, one line an object or a role."""
    return [
        *(
            f"theirs: {printable(str(name))}"
            for name, properties in theirs.items()
            if not name.within and "owned by" not in properties  # a sequence goes with its table
        ),
        *(
            printable(f"theirs: grants to {role} on {', '.join(names)}")
            for role, names in sorted(_granted_beyond(expected, ours).items())
        ),
    ]


def _granted_beyond(expected: Catalogue, ours: Catalogue) -> Mapping[str, list[str]]:
    """The objects on which each role has more than the revisions grant, and than its kind of role needs."""
    found: defaultdict[str, list[tuple[Name, Privilege, str]]] = defaultdict(list)
    for name, properties in ours.items():
        wanted = grants_of(expected.get(name, {}))
        for grant in sorted(grants_of(properties) - wanted):
            privilege, role = split_grant(grant)
            if role != "PUBLIC" and grant.removesuffix(OPTION) + OPTION not in wanted:
                found[role].append((name, _privilege(privilege, name), grant))
    beyond = {}
    for role, granted in found.items():
        kind = find_kind(privilege for _, privilege, _ in granted)
        names = [
            str(name)
            for name, privilege, grant in granted
            if kind is None or not (kind.allows(privilege) or privilege == ON_SHARDS) or grant.endswith(OPTION)
        ]
        if names:
            beyond[role] = list(dict.fromkeys(names))
    return beyond


def _privilege(privilege: str, name: Name) -> Privilege:
    if name.kind == "column":
        return Privilege(privilege, "table", name.within, name.name)
    kind = "table" if name.kind in VIEWS else name.kind
    return Privilege(privilege, kind, name.name.partition("(")[0] if kind == "function" else name.name)


def _whole(name: Name) -> str:
    return name.within or name.name
