"""A revision's file is named after its id and its title."""

import re
from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings

_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.py")


@partial(FileRule, remedy="Rename it.", stops_runs=True)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find a file that is not named `NNNN_lower_case_words.py` after its id."""
    if project.is_beside:  # whose ids have a prefix of their own
        if not file.name.startswith(f"{file.revision}_"):
            yield Finding(f"its revision is {file.revision!r}", f"Name the file {file.revision}_words.py.")
        return
    match = _FILE_NAME.fullmatch(file.name)
    if match is None:
        yield Finding("the file is not named NNNN_lower_case_words.py")
    elif file.revision != match["number"]:
        yield Finding(
            f"its revision is {file.revision!r}, its number {match['number']}",
            "Make both the same: `mlops-db` reads the revisions from the files' names.",
        )
