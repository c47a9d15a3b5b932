"""A released revision never changes: frozen.sha256, beside the revisions, has the checksum of each of its files.

`sha256sum` writes that file at a release, and `sha256sum -c` reads it. A project without it has released nothing.
"""

import re
from functools import partial
from hashlib import sha256

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings
from mlops_db.revisions.files import sql_names

LIST = "frozen.sha256"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
_RENUMBER = "Renumber it: it follows all released revisions."


@partial(FileRule, remedy="Restore the file, and write a new revision that makes the change.")
def check(file: RevisionSource, project: Project) -> Findings:
    """Find a released file that was changed or removed, and a revision that was put before a released one."""
    path = file.path.with_name(LIST)
    if not path.is_file():
        return
    lines = [_LINE.fullmatch(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    listed = {line[2]: line[1] for line in lines if line}
    yield from _changed(file, listed)
    if file is project.parsed[0]:
        for number, line in enumerate(lines, 1):
            if line is None:
                yield Finding(f"line {number} is not one of sha256sum", "Write the file again.", LIST)
        for name in sorted(_revisions(listed) - {each.name for each in project.files}):
            yield Finding(f"it was released, and does not exist: {LIST} has its checksum", file=name)


def _changed(file: RevisionSource, listed: dict[str, str]) -> Findings:
    sql_files = [f"sql/{name}" for name in sql_names(file.tree)]
    for name in (file.name, *sql_files):
        path = file.path.parent / name
        if name in listed and path.is_file():
            content = path.read_bytes().replace(b"\r\n", b"\n")  # Windows checks out other line ends
            if sha256(content).hexdigest() != listed[name]:
                yield Finding(f"{name} was changed after its release: {LIST} has another checksum")
        if name not in listed and file.name in listed:
            yield Finding(f"{LIST} has no checksum of {name}", "Add it: `sha256sum sql/*.sql` in its folder.")
    newest = max(_revisions(listed), default="")
    if file.name not in listed and file.name < newest:
        yield Finding(f"it is not released, and {newest} after it is", _RENUMBER)


def _revisions(listed: dict[str, str]) -> set[str]:
    return {name for name in listed if name.endswith(".py")}
