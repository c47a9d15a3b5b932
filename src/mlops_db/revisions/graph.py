"""Builds the graph of revisions: their order, and the faults of their files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import TYPE_CHECKING

from mlops_db.errors import RefusedError, alembic
from mlops_db.project import revisions_folder
from mlops_db.revisions.files import Fault, RevisionFile, UnusableFileError, read_revision_file, revision_paths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from alembic.runtime.migration import MigrationInfo


@dataclass(frozen=True)
class Revision:
    """A revision.

    Attributes:
        id: what `alembic_version` holds at this revision, such as `0003`.
        title: the rest of the file name, such as `retraining_decisions`.
    """

    id: str
    title: str


class Graph:
    """The revisions of our folder, and those of other folders beside it.

    Ours are one line with one base and one head; branches in between are merged. Others have heads of their own, and
    depend on ours or follow them (docs/own-tables.md).

    Attributes:
        others: the ids of the revisions that are not ours.
        recorded: those of them of which there is no file here; a run of their project has recorded them.
        faults: the faults of the files, the most basic first; with any, nothing else here is reliable.
        shared_ids: those faults that are about an id or a label of several files.
        second_head: the fault that our line has several heads; Alembic runs them if the command names one.
        revisions: our revisions, each after all that it follows.
        heads: the ids of our revisions that no other one of ours follows.
    """

    def __init__(
        self, ours: Sequence[RevisionFile], others: Sequence[RevisionFile] = (), *, unusable: Iterable[Fault] = ()
    ) -> None:
        """Take the revisions of the files, and the faults of files without a revision."""
        self._files = (*ours, *others)
        self._ids_of_labels = {label: file.id for file in self._files for label in file.labels}
        self._before: dict[str, tuple[str, ...]] = {}
        for file in self._files:
            depends_on = (self._ids_of_labels.get(name, name) for name in file.depends_on)
            self._before[file.id] = (*self._before.get(file.id, ()), *file.parents, *depends_on)
        self.others = {file.id for file in others}
        self.recorded: set[str] = set()
        self._works_from = {file.id: file.works_from for file in ours if file.works_from is not None}
        followed = {parent for file in ours for parent in file.parents}
        self.heads = tuple(file.id for file in ours if file.id not in followed)
        by_id = {file.id: file for file in ours}
        self.shared_ids = tuple(self._shared_ids())
        self.faults = (
            *unusable, *_names(ours), *_numbers(others), *self.shared_ids, *self._strangers(), *_bases(ours),
            *_crossings(ours, others),
        )  # fmt: skip
        try:
            order = tuple(TopologicalSorter(self._before).static_order())
        except CycleError as error:
            order = ()
            self.faults += (self._circle(error.args[1][1:]),)
        self.revisions = tuple(Revision(id_, by_id[id_].title) for id_ in order if id_ in by_id)
        self.second_head = None if self.faults or len(self.heads) == 1 else self._two_heads(by_id)

    def __contains__(self, revision: str) -> bool:
        """Whether there is such a revision in any folder."""
        return revision in self._before

    def has_file(self, path: Path) -> bool:
        """Whether one of the revisions is in this file."""
        return any(file.path.name == path.name and file.path.resolve() == path.resolve() for file in self._files)

    def add_others(self, revisions: Iterable[str], *, depend_on: Iterable[str]) -> None:
        """Add revisions of others of which there are no files: the last ones, as a run has recorded them."""
        for revision in revisions:
            self.others.add(revision)
            self.recorded.add(revision)
            self._before[revision] = tuple(depend_on)

    def ancestors(self, *revisions: str) -> set[str]:
        """These revisions, and all that they follow or depend on."""
        found: set[str] = set()
        left = list(revisions)
        while left:
            revision = left.pop()
            if revision not in found:
                found.add(revision)
                left.extend(self._before[revision])
        return found

    def works_from(self, *revisions: str) -> tuple[str, ...]:
        """The revisions that code must know to work in a database at these: the latest ones that break older code.

        Usually it is one. There are several where branches are not merged, and none if no revision breaks code. A
        revision may declare that an earlier one is enough.
        """
        needed = set()
        for revision in self.ancestors(*revisions) & self._works_from.keys():
            since = self._works_from[revision]
            needed.add(since if since in self.ancestors(revision) else revision)
        return self.last(needed)

    def last(self, revisions: Collection[str]) -> tuple[str, ...]:
        """Those of the revisions that none of them follows or depends on."""
        followed = {before for one in revisions for before in self.ancestors(*self._before[one])}
        return tuple(sorted({*revisions} - followed))

    def between(self, step: MigrationInfo) -> set[str]:
        """The revisions that a step of Alembic's applies or reverts, or that a stamp says are applied or reverted."""
        return self.ancestors(*step.source_revision_ids) ^ self.ancestors(*step.destination_revision_ids)

    def pending(self, *recorded: str) -> tuple[Revision, ...]:
        """Our revisions that an upgrade to head runs in a database at these; without any it is at base."""
        done = self.ancestors(*recorded)
        return tuple(revision for revision in self.revisions if revision.id not in done)

    def refuse_faults(self, *, second_head: bool = False) -> None:
        """Refuse files that a command cannot rely on.

        Args:
            second_head: whether the command names the head that it means.

        Raises:
            RefusedError: names the files and the way out.
        """
        faults = self.faults or (() if second_head or self.second_head is None else (self.second_head,))
        for fault in faults:
            raise RefusedError(fault.message, hint=fault.remedy)

    def _shared_ids(self) -> Iterator[Fault]:
        """Find files with the same id or label: usually each of two branches has added the next number."""
        claims: dict[str, list[RevisionFile]] = {}
        for file in self._files:
            for claim in dict.fromkeys((file.id, *file.labels)):
                claims.setdefault(claim, []).append(file)
        for claim, files in claims.items():
            if len(files) > 1:
                names = tuple(file.path.name for file in files)
                if claim in self._ids_of_labels:
                    remedy = "Take another label in one of them."
                else:
                    last = {*self._before} - {parent for file in self._files for parent in file.parents}
                    follows = f'"{last.pop()}"' if len(last) == 1 else "the last one's id"
                    remedy = (
                        "Renumber the one that has run nowhere yet: another number in its name and in `revision`, such "
                        f"as {self._next_number()}, and down_revision = {follows}."
                    )
                both = "both" if len(names) == 2 else "all"  # noqa: PLR2004
                yield Fault(names, f"{_listed(names)} are {both} revision {claim}", remedy)

    def _next_number(self) -> str:
        return f"{max((int(id_) for id_ in self._before if id_.isdigit()), default=0) + 1:04}"

    def _strangers(self) -> Iterator[Fault]:
        for file in self._files:
            for name, named in (("down_revision", file.parents), ("depends_on", file.depends_on)):
                for revision in named:
                    if revision not in self._before and not (name == "depends_on" and revision in self._ids_of_labels):
                        yield Fault(
                            (file.path.name,),
                            f"{file.path.name} has {name} {revision!r}, but no file has that revision",
                            f"Restore the file of {revision}, or set {name} to a revision that is there.",
                        )  # fmt: skip

    def _circle(self, ids: Sequence[str]) -> Fault:
        names = tuple(file.path.name for file in self._files if file.id in ids)
        message = f"{names[0]} follows itself" if len(names) == 1 else f"{_listed(names)} follow each other in a circle"
        return Fault(names, message, f"Set the down_revision of {names[0]} to the revision that came before it.")

    def _two_heads(self, by_id: dict[str, RevisionFile]) -> Fault:
        heads = [one.id for one in self.revisions if one.id in self.heads]  # one may depend on those before it
        first, *_, last = heads
        names = tuple(by_id[head].path.name for head in heads)
        begins = next(one.id for one in self.revisions if one.id in self.ancestors(last) - self.ancestors(first))
        return Fault(
            names, f"there are {len(names)} heads, {_listed(names)}",
            f"Join them: {alembic('merge heads')} -m \"Join them\". Or, if {by_id[begins].path.name} has run nowhere "
            f'yet, set its down_revision to "{first}".',
        )  # fmt: skip


def _names(ours: Sequence[RevisionFile]) -> Iterator[Fault]:
    for file in ours:
        name = file.path.name
        if not file.is_named_after_its_id:
            yield Fault(
                (name,), f"{name} declares revision {file.id}",
                f"Rename it to {file.id}_...py, or set the `revision` in it to the one in its name.",
            )  # fmt: skip


def _bases(ours: Sequence[RevisionFile]) -> Iterator[Fault]:
    names = tuple(file.path.name for file in ours if not file.parents)
    if len(names) > 1:
        yield Fault(
            names, f"there are {len(names)} bases, {_listed(names)}",
            f"Set the down_revision of all but {names[0]} to the revision that comes before.",
        )  # fmt: skip


def _numbers(others: Sequence[RevisionFile]) -> Iterator[Fault]:
    for file in others:
        if file.id.isdigit():
            yield Fault(
                (file.path.name,),
                f"{file.path.name} has revision {file.id}, and plain numbers are for the revisions of mlops-db",
                f"Put a prefix of your own before it, such as acme_{file.id}; docs/own-tables.md has the steps for a "
                "database where it has run.",
            )  # fmt: skip


def _crossings(ours: Sequence[RevisionFile], others: Sequence[RevisionFile]) -> Iterator[Fault]:
    """Find revisions of ours that need theirs, and merges of both: our next revision would make a second head again."""
    lines = {file.id for file in ours}, {file.id for file in others}
    for file in ours:
        for revision in lines[1].intersection((*file.parents, *file.depends_on)):
            yield Fault(
                (file.path.name,), f"{file.path.name} follows {revision}, which is in another folder of revisions",
                "Let it follow the one before it in its own folder.",
            )  # fmt: skip
    for file in others:
        left = tuple(parent for parent in file.parents if parent not in lines[0])
        for revision in lines[0].intersection(file.parents) if left else ():
            yield Fault(
                (file.path.name,), f"{file.path.name} merges {revision}, which is of mlops-db, into a line of its own",
                f"Write depends_on = {revision!r} and down_revision = {left[0] if len(left) == 1 else left!r} instead. "
                "A database where it has run stays as it is.",
            )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def read_graph(ours: Path, *others: Path) -> Graph:
    """Read the files of our folder of revisions and of the folders beside it; the graph has their faults."""
    unusable: list[Fault] = []
    lines = [tuple(_read(folder, unusable)) for folder in (ours, *others)]
    if not lines[0] and not unusable:
        unusable.append(
            Fault(
                (), f"there is no revision in {ours}",
                "Restore it (in a checkout: git checkout -- migrations), or install mlops-db again.",
            )
        )  # fmt: skip
    return Graph(lines[0], tuple(chain.from_iterable(lines[1:])), unusable=unusable)


def _read(folder: Path, unusable: list[Fault]) -> Iterator[RevisionFile]:
    for path in revision_paths(folder):
        try:
            yield read_revision_file(path)
        except UnusableFileError as error:  # noqa: PERF203  (each file has its own)
            unusable.append(error.fault)


@cache
def package_graph() -> Graph:
    """The package's own revisions, for which its code was written. ALEMBIC_CONFIG does not matter here.

    Raises:
        RefusedError: the files cannot be relied on.
    """
    graph = read_graph(revisions_folder())
    graph.refuse_faults()
    return graph


def revisions() -> tuple[Revision, ...]:
    """The package's own revisions, from the first one to head.

    Raises:
        RefusedError: their files cannot be relied on.
    """
    return package_graph().revisions
