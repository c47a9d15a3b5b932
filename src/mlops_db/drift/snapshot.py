"""What each revision makes, written down: to compare with it takes no scratch database, and no right to create one.

`mlops-db docs` writes snapshot.json from the embedded server, as what each revision changes in the catalogue. It holds
for the revisions that it was written from: their files are in it as SHA-256.
"""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_db.drift.catalogue import Catalogue, Name, Properties, read_catalogue, reading
from mlops_db.drift.scratch import catalogue_of, scratch_database
from mlops_db.migration.commands import upgrade
from mlops_db.project import alembic_ini
from mlops_db.revisions.graph import Revision, package_graph, revisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.settings import Settings

SNAPSHOT = Path(__file__).with_name("snapshot.json")
Document = dict[str, Any]


def expected_catalogue(settings: Settings, revision: str) -> Catalogue:
    """The catalogue that the revisions up to `revision` make: from the snapshot, or else from a scratch database.

    The snapshot does not hold once one of these revisions is edited or new: a developer's, most likely.

    Raises:
        NotPermittedError: a scratch database is needed, and the role may not create databases.
    """
    known = recorded_catalogue(revision)
    return catalogue_of(settings, revision) if known is None else known


def recorded_catalogue(revision: str, snapshot: Path = SNAPSHOT) -> Catalogue | None:
    """What the snapshot says that the revisions up to `revision` make; None if those are not the ones in use."""
    try:
        document: Document = json.loads(snapshot.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not written yet, or in the middle of a merge
        return None
    used, made, done = _fingerprints(), Catalogue(), set()
    if any(used.get(file) != digest for file, digest in document["files"].items() if not _is_revision(file)):
        return None
    for step in document["steps"]:
        if used.get(step["file"]) != document["files"][step["file"]]:
            return None
        made = _after(made, step)
        done.add(step["revision"])
        if step["revision"] == revision:
            # Beside another branch, a revision makes less than all that was written down before it.
            return made if package_graph().ancestors(revision) == done else None
    return None


def catalogues(settings: Settings) -> dict[str, Catalogue]:
    """What the revisions up to each one make, in a scratch database on the settings' server."""
    made = {}
    with scratch_database(settings) as scratch:
        for revision in revisions():
            upgrade(scratch, revision.id)
            with reading(scratch) as cursor:
                made[revision.id] = read_catalogue(cursor)
    return made


def written_down(made: dict[str, Catalogue]) -> str:
    """The text of the snapshot: of each revision, in what its catalogue differs from that of the one before."""
    steps, before = [], Catalogue()
    for revision in revisions():
        steps.append({"revision": revision.id, "file": _file(revision), **_step(before, made[revision.id])})
        before = made[revision.id]
    return json.dumps({"files": _fingerprints(), "steps": steps}, indent=1, ensure_ascii=False) + "\n"


def _fingerprints() -> dict[str, str]:
    """Of each file that revisions are made of, by its path below migrations/: SHA-256, whatever its line ends."""
    folder = alembic_ini().parent / "migrations"
    files = [_file(revision) for revision in revisions()]
    files += sorted(path.relative_to(folder).as_posix() for path in folder.glob("versions/sql/*.sql"))
    return {file: sha256((folder / file).read_bytes().replace(b"\r\n", b"\n")).hexdigest() for file in files}


def _file(revision: Revision) -> str:
    return f"versions/{'_'.join(filter(None, (revision.id, revision.title)))}.py"


def _is_revision(file: str) -> bool:
    return file.endswith(".py")


def _step(before: Catalogue, after: Catalogue) -> Document:
    """What is gone, what has changed, and what was made at which place; what has moved is gone and made anew."""
    old, new = list(before), list(after)
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    kept = {name for block in blocks for name in old[block.a : block.a + block.size]}
    return {
        "gone": [_object(name) for name in before if name not in kept],
        "changed": [
            {**_object(name), "properties": dict(_changes(before[name], after[name]))}
            for name in after
            if name in kept and before[name] != after[name]
        ],
        "made": [
            {**_object(name), "place": place, "properties": {key: _lines(text) for key, text in after[name].items()}}
            for place, name in enumerate(after)
            if name not in kept
        ],
    }


def _changes(before: Properties, after: Properties) -> Iterator[tuple[str, str | list[str] | None]]:
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield key, _lines(after[key]) if key in after else None


def _after(before: Catalogue, step: Document) -> Catalogue:
    """The catalogue after a step."""
    gone = {_name(entry) for entry in step["gone"]}
    order = [name for name in before if name not in gone]
    properties: dict[Name, Document] = {name: {**before[name]} for name in order}
    for entry in step["changed"]:
        properties[_name(entry)].update(entry["properties"])
    for entry in step["made"]:  # in the order of their places
        order.insert(entry["place"], _name(entry))
        properties[_name(entry)] = entry["properties"]
    return {name: _as_read(properties[name]) for name in order}


def _as_read(properties: Document) -> Properties:
    """The properties as the server sorts the keys of a jsonb object."""
    texts = {key: _text(value) for key, value in properties.items() if value is not None}
    return {key: texts[key] for key in sorted(texts, key=lambda key: (len(key), key))}


def _object(name: Name) -> Document:
    return {"kind": name.kind, "within": name.within, "name": name.name}


def _name(entry: Document) -> Name:
    return Name(entry["kind"], entry["within"], entry["name"])


def _lines(text: str) -> str | list[str]:
    """A text of several lines as a list of them, so that a changed line is one in a diff, too."""
    return text.split("\n") if "\n" in text else text


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(value)
