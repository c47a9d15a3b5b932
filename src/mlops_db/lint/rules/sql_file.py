"""A revision names SQL files that exist, and a revision names every SQL file."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings
from mlops_db.revisions.files import sql_folder, sql_names


@partial(FileRule, remedy="Restore the file, or correct its name.", stops_runs=True)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find an SQL file that is missing, or that no revision names."""
    folder = sql_folder(file.path)
    for name in sql_names(file.tree):
        if not (folder / name).is_file():
            yield Finding(f"it names sql/{name}, which does not exist")
    if file.revision:
        named = {name for other in project.parsed for name in sql_names(other.tree)}
        for path in sorted(folder.glob(f"{file.revision}_*.sql")):
            if path.name not in named:
                remedy = f'Write op.execute_file("{path.name}") in the revision, or delete the file.'
                yield Finding(f"no revision names sql/{path.name}", remedy)
