"""A docstring says what changes, why, which locks are taken and for how long, what downgrade loses, and what breaks."""

import ast
import re
from functools import partial

from mlops_db.lint.lock_modes import strongest_lock
from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings
from mlops_db.migration.preview import RUNNING_CODE, SECTIONS

_DECLARATION = re.compile(r"unaffected\.|breaks( code before [^\s:]+)?: \S")

# They commit what the revision did so far, and each statement in them by itself: no rule sees their locks.
_OUTSIDE = {"autocommit_block", "create_index_concurrently", "run_in_batches"}


@partial(
    FileRule,
    remedy="Say what changes, why, which locks are taken and for how long, what downgrade loses, and whether code of"
    " earlier revisions goes on working.",
)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find a docstring without title or one of its sections, `Why:` and the others, or with text of the template."""
    sections = file.description.sections
    missing = [] if file.description.title else ["a title"]
    # The baseline was made before its revisions were, and before there was code.
    needed = [section for section in SECTIONS if not (section == RUNNING_CODE and file.is_baseline)]
    missing += [section for section in needed if not sections.get(section)]
    if missing:
        yield Finding(f"its docstring lacks {', '.join(missing)}")
    if sections.get(RUNNING_CODE):
        yield from _check_declaration(file, project)
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


def _check_declaration(file: RevisionSource, project: Project) -> Findings:
    declared = file.description.sections[RUNNING_CODE]
    if not declared.startswith("<") and not _DECLARATION.match(declared):
        yield Finding(
            f"its {RUNNING_CODE} says neither that older code is unaffected nor what breaks",
            f"Write `{RUNNING_CODE}: unaffected.`, or `breaks: ` and what fails, or `breaks code before <revision>: `"
            " and what fails.",
        )
    revision, since, graph = file.revision, file.works_from, project.graph
    if revision and since and not graph.faults and since not in graph.ancestors(revision):
        yield Finding(
            f"its {RUNNING_CODE} names {since}, which is no revision before it",
            "Name the first revision whose code works after this one.",
        )
