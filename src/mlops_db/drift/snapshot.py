"""The recorded catalogue of each revision: a comparison with it needs no scratch database, and no right to create one.

`mlops-db docs` writes snapshot.json from the embedded server. It has each object of any revision once, and for each
revision the numbers of its objects. It is valid for the revisions that it was written from, whose SHA-256 are in it.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_db.drift.catalogue import Catalogue, Name, read_catalogue, reading
from mlops_db.drift.scratch import catalogue_of, scratch_database
from mlops_db.migration.commands import upgrade
from mlops_db.project import alembic_ini
from mlops_db.revisions.graph import Revision, package_graph, revisions

if TYPE_CHECKING:
    from mlops_db.settings import Settings

SNAPSHOT = Path(__file__).with_name("snapshot.json")


def expected_catalogue(settings: Settings, revision: str) -> Catalogue:
    """The catalogue that the revisions up to `revision` make: from the snapshot, or else from a scratch database.

    The snapshot is not valid after one of these revisions was added or edited, as by a developer.

    Raises:
        NotPermittedError: a scratch database is needed, and the role may not create databases.
    """
    recorded = recorded_catalogue(revision)
    return catalogue_of(settings, revision) if recorded is None else recorded


def recorded_catalogue(revision: str, snapshot: Path = SNAPSHOT) -> Catalogue | None:
    """The recorded catalogue of the revisions up to `revision`; None if the snapshot is not valid for these."""
    try:
        document: dict[str, Any] = json.loads(snapshot.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not written yet, or in the middle of a merge
        return None
    hashes, done = _hash_files(), set()
    if any(hashes.get(file) != recorded for file, recorded in document["files"].items() if not _is_revision(file)):
        return None
    for step in document["steps"]:
        if hashes.get(step["file"]) != document["files"][step["file"]]:
            return None
        done.add(step["revision"])
        if step["revision"] == revision:
            # Beside another branch, a revision makes less than everything that was recorded before it.
            if package_graph().ancestors(revision) != done:
                return None
            objects = [document["objects"][int(number)] for number in step["objects"].split()]
            return {Name(one["kind"], one["within"], one["name"]): one["properties"] for one in objects}
    return None


def read_catalogues(settings: Settings) -> dict[str, Catalogue]:
    """The catalogue at each revision, from a scratch database on the settings' server."""
    found = {}
    with scratch_database(settings) as scratch:
        for revision in revisions():
            upgrade(scratch, revision.id)
            with reading(scratch) as cursor:
                found[revision.id] = read_catalogue(cursor)
    return found


def snapshot_text(catalogues: dict[str, Catalogue]) -> str:
    """The text of snapshot.json for the catalogue at each revision."""
    numbers: dict[str, int] = {}
    steps = []
    for revision in revisions():
        objects = [
            json.dumps({"kind": name.kind, "within": name.within, "name": name.name, "properties": properties})
            for name, properties in catalogues[revision.id].items()
        ]
        for text in objects:
            numbers.setdefault(text, len(numbers))
        listed = " ".join(str(numbers[text]) for text in objects)  # as one line in a diff
        steps.append({"revision": revision.id, "file": _file(revision), "objects": listed})
    document = {"files": _hash_files(), "objects": list(map(json.loads, numbers)), "steps": steps}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _hash_files() -> dict[str, str]:
    """The SHA-256 of each file of the revisions, by its path below migrations/; line ends do not count."""
    folder = alembic_ini().parent / "migrations"
    files = [_file(revision) for revision in revisions()]
    files += sorted(path.relative_to(folder).as_posix() for path in folder.glob("versions/sql/*.sql"))
    return {file: sha256((folder / file).read_bytes().replace(b"\r\n", b"\n")).hexdigest() for file in files}


def _file(revision: Revision) -> str:
    return f"versions/{'_'.join(filter(None, (revision.id, revision.title)))}.py"


def _is_revision(file: str) -> bool:
    return file.endswith(".py")
