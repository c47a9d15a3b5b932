"""The classes of rules. A rule has a name, a check that yields findings, and a remedy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlops_db.lint.observation import Head, Run
    from mlops_db.lint.revision_source import Project, RevisionSource

# The columns of the table that `mlops-db lint` prints.
COLUMNS = ("files", "round trip", "--sql", "squawk", "locks", "rows", "names", "copies")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a revision.

    Attributes:
        message: what is wrong, in one line.
        remedy: how to fix it, in one line; left out if the rule has the remedy.
        file: the revision's file name; left out if the check was given this file or run.
        rule: the rule that it breaks; a check leaves this out.
    """

    message: str
    remedy: str = ""
    file: str = ""
    rule: str = ""

    def __str__(self) -> str:
        """The finding in one line."""
        return f"{self.file}: {self.rule}: {self.message}. {self.remedy}"


Findings: TypeAlias = "Iterator[Finding]"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule for revisions. The first line of its check's docstring is what docs/writing-a-revision.md lists.

    Attributes:
        name: its id in findings, and in `Accepted:` of a docstring; that of its module.
        remedy: what to do about a finding that has no remedy of its own.
        column: the column of the table that counts its findings, one of `COLUMNS`.
        may_be_accepted: whether a revision may break it on purpose: `Accepted: <name>, because ...`.
    """

    name: str = ""
    remedy: str
    column: str
    may_be_accepted: bool = False

    def complete(self, findings: Findings, file: str = "") -> Findings:
        """The findings of the rule's check, with what it has left out."""
        for found in findings:
            yield replace(found, rule=self.name, file=found.file or file, remedy=found.remedy or self.remedy)


@dataclass(frozen=True)
class FileRule(Rule):
    """A rule for the source of a revision.

    Attributes:
        check: yields the findings of one file of the project.
        stops_runs: whether no revision runs after a finding, because the order or the code is wrong.
    """

    check: Callable[[RevisionSource, Project], Findings]
    column: str = field(default="files", kw_only=True)
    stops_runs: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class RunRule(Rule):
    """A rule for what a revision does when it runs.

    Attributes:
        check: yields the findings of one revision. If that failed, it has only the steps before the failure.
        baseline: whether the rule also holds for the revisions of the baseline.
        needs: what the run must have, besides that.
    """

    check: Callable[[Run], Findings]
    baseline: bool = field(default=False, kw_only=True)
    needs: Callable[[Run], bool] = field(default=lambda _: True, kw_only=True)

    def applies(self, run: Run) -> bool:
        """Whether it holds for this revision."""
        return (self.baseline or not run.is_baseline) and self.needs(run)


@dataclass(frozen=True)
class HeadRule(Rule):
    """A rule for what all revisions make together.

    Attributes:
        check: yields the findings, after every revision has run.
    """

    check: Callable[[Head], Findings]


def first_line(error: object) -> str:
    """The first line of an error's text, as a part of a finding."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
