"""A docstring says what changes, why, which locks are taken and for how long, and what downgrade loses."""

import ast
import re
from functools import partial

from mlops_db.lint.lock_modes import strongest_lock
from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings
from mlops_db.migration.preview import SECTIONS

# They commit what the revision did so far, and each statement in them by itself: no rule sees their locks.
_OUTSIDE = {"autocommit_block", "create_index_concurrently", "run_in_batches"}


@partial(FileRule, remedy="Say what changes, why, which locks are taken and for how long, and what downgrade loses.")
def check(file: RevisionSource, project: Project) -> Findings:
    """Find a docstring without title, `Why:`, `Locks:` or `Loss on downgrade:`, or with text of the template."""
    sections = file.description.sections
    missing = [] if file.description.title else ["a title"]
    missing += [section for section in SECTIONS if not sections.get(section)]
    if missing:
        yield Finding(f"its docstring lacks {', '.join(missing)}")
    outside = sorted(_OUTSIDE & {node.attr for node in ast.walk(file.tree) if isinstance(node, ast.Attribute)})
    if outside and "Locks" not in missing and strongest_lock(sections["Locks"]) < 0:
        yield Finding(
            f"its Locks name no lock, but the statements in {outside[0]} take locks",
            "Name the strongest of them, such as SHARE UPDATE EXCLUSIVE: no check can see it.",
        )
    if "Accepted" in sections and not any(map(file.accepts, project.acceptable)):
        yield Finding(
            "its Accepted names no rule with a reason",
            f"Write `Accepted: <rule>, because <reason>`; the rule is one of {', '.join(project.acceptable)}.",
        )
    if re.search(r"<[a-z][^<>]*>", file.docstring):
        yield Finding("its docstring still holds the template's <...>", "Fill it in.")
