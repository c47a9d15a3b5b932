"""The graph as the files tell it, beside Alembic's own of the same files; and what is wrong with files is named."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_db.errors import MlopsDbError, RecordedRevisionError, RefusedError
from mlops_db.revisions.gate import refuse_wrong_rows
from mlops_db.revisions.graph import Graph, read_graph

pytestmark = pytest.mark.full_postgresql

SOURCE = """\
revision = {id!r}
down_revision = {parents!r}
depends_on = {depends_on!r}
branch_labels = {labels!r}
upgrade = downgrade = print
"""
few = settings(max_examples=25)


@dataclass(frozen=True)
class Drawn:
    """A revision to write."""

    id: str
    parents: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    slug: str = "drawn"

    @property
    def source(self) -> str:
        down = self.parents if len(self.parents) > 1 else next(iter(self.parents), None)
        return SOURCE.format(id=self.id, parents=down, depends_on=self.depends_on or None, labels=self.labels or None)

    @property
    def name(self) -> str:
        return f"{self.id}_{self.slug}.py"


@st.composite
def lines(draw: st.DrawFn) -> list[Drawn]:
    """Revisions from one base on, with branches, merges and dependencies; their numbers are in no order."""
    count = draw(st.integers(1, 9))
    ids = draw(st.permutations([f"{number:04}" for number in range(1, count + 1)]))
    drawn: list[Drawn] = []
    for place, id_ in enumerate(ids):
        before = ids[max(0, place - 4) : place]
        parents = draw(st.lists(st.sampled_from(before), min_size=1, max_size=2, unique=True)) if before else []
        names = [name for one in drawn for name in (one.id, *one.labels)]
        depends_on = draw(st.lists(st.sampled_from(names), max_size=1)) if names and draw(st.booleans()) else []
        # With a branch before it, Alembic would give the label to that one as well.
        labels = (f"branch{place}",) if not place and draw(st.booleans()) else ()
        drawn.append(Drawn(id_, tuple(parents), tuple(depends_on), labels))
    return drawn


@dataclass
class Folder:
    """A folder of revisions, written anew for each example."""

    path: Path
    count: int = field(default=0)

    def write(self, drawn: list[Drawn], **others: str) -> Path:
        self.count += 1
        versions = self.path / str(self.count) / "versions"
        versions.mkdir(parents=True)
        for one in drawn:
            (versions / one.name).write_text(one.source, encoding="utf-8")
        for name, source in others.items():
            (versions / f"{name}.py").write_text(source, encoding="utf-8")
        return versions


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def alembics(versions: Path) -> ScriptDirectory:
    return ScriptDirectory(str(versions.parent))


def ancestors(script: ScriptDirectory, id_: str) -> set[str]:
    """By what an upgrade to it from nothing runs."""
    return {step.revision.revision for step in script._upgrade_revs(id_, ())}  # noqa: SLF001  (what `upgrade` asks)


def as_property(check: Callable[[Folder, list[Drawn], st.DataObject], None]) -> Callable[[Path], None]:
    """A test of the check for drawn lines, all in one folder."""

    def test(tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = Folder(tmp_path_factory.mktemp("lines"))

        @few
        @given(lines(), st.data())
        def holds(drawn: list[Drawn], data: st.DataObject) -> None:
            check(folder, drawn, data)

        holds()

    return test


def _heads_order_and_ancestors(folder: Folder, drawn: list[Drawn], _: st.DataObject) -> None:
    versions = folder.write(drawn)
    graph, script = read_graph(versions), alembics(versions)

    assert graph.faults == ()
    assert sorted(graph.heads) == sorted(script.get_heads())
    assert (graph.second_head is None) == (len(script.get_heads()) == 1)
    order = [revision.id for revision in graph.revisions]
    assert sorted(order) == sorted(one.id for one in drawn)
    for place, id_ in enumerate(order):
        assert graph.ancestors(id_) == ancestors(script, id_)
        assert graph.ancestors(id_) <= {*order[: place + 1]}
    assert [revision.title for revision in graph.revisions] == ["drawn"] * len(drawn)


def _what_is_pending(folder: Folder, drawn: list[Drawn], data: st.DataObject) -> None:
    versions = folder.write(drawn)
    graph, script = read_graph(versions), alembics(versions)
    recorded = tuple(data.draw(st.lists(st.sampled_from([one.id for one in drawn]), max_size=3, unique=True)))
    try:
        steps = script._upgrade_revs("heads", recorded)  # noqa: SLF001
    except CommandError:
        with pytest.raises(RecordedRevisionError, match="no run leaves another row"):
            refuse_wrong_rows(recorded, graph, "here")
        return
    refuse_wrong_rows(recorded, graph, "here")
    assert sorted(one.id for one in graph.pending(*recorded)) == sorted(step.revision.revision for step in steps)


test_heads_order_and_ancestors_are_alembics = as_property(_heads_order_and_ancestors)
test_what_is_pending_and_which_rows_overlap_is_as_alembic_has_it = as_property(_what_is_pending)


def test_a_line_whose_numbers_are_in_no_order_keeps_its_own_order(folder: Folder) -> None:
    graph = read_graph(folder.write([Drawn("0003"), Drawn("0001", ("0003",)), Drawn("0002", ("0001",))]))
    assert [revision.id for revision in graph.revisions] == ["0003", "0001", "0002"]
    assert [revision.id for revision in graph.pending("0003")] == ["0001", "0002"]


def test_a_file_may_assign_as_python_lets_it(folder: Folder) -> None:
    versions = folder.write(
        [Drawn("0001")],
        **{
            "0002_annotated": 'revision: str = "0002"\ndown_revision: str | None = "0001"\nbranch_labels: str\n',
            "0003_together": 'revision, down_revision = "0003", "0002"\ndef upgrade():\n    revision = 1\n',
            "0004": 'revision = name = "0004"\ndown_revision = ["0003"]\n',
        },
    )
    (versions / ".#0004.py").symlink_to("nobody@nowhere")  # an editor has it open
    (versions / "__init__.py").touch()
    graph = read_graph(versions)
    assert (graph.faults, graph.heads, graph.second_head) == ((), ("0004",), None)


def test_what_others_have_beside_ours_is_theirs(folder: Folder) -> None:
    ours = folder.write([Drawn("0001"), Drawn("0002", ("0001",))])
    others = folder.write([Drawn("team1", depends_on=("0001",), labels=("team",)), Drawn("team2", ("team1",))])
    graph = read_graph(ours, others)

    assert (graph.faults, graph.second_head, graph.heads) == ((), None, ("0002",))
    assert [revision.id for revision in graph.revisions] == ["0001", "0002"]
    assert "team2" in graph
    assert [revision.id for revision in graph.pending("team2")] == ["0002"]


@pytest.mark.parametrize(
    ("ours", "theirs", "message", "remedy"),
    [
        (Drawn("0002", ("0001",)), Drawn("0003", ()), "0003_drawn.py has revision 0003, and plain", "acme_0003"),
        (Drawn("0002", ("0001",)), Drawn("0002", ()), "0002_drawn.py has revision 0002, and plain", "acme_0002"),
        (Drawn("0002", ("acme_0001",)), Drawn("acme_0001", ()), "0002_drawn.py follows acme_0001", "its own folder"),
        (Drawn("0002", ("0001",), ("acme_0001",)), Drawn("acme_0001", ()), "0002_drawn.py follows acme_0001", "own"),
    ],
)  # fmt: skip
def test_two_lines_do_not_cross(folder: Folder, ours: Drawn, theirs: Drawn, message: str, remedy: str) -> None:
    graph = read_graph(folder.write([Drawn("0001"), ours]), folder.write([theirs]))
    fault = graph.faults[0]
    assert fault.message.startswith(message)
    assert remedy in fault.remedy


def test_a_branch_of_theirs_follows_ours_and_merges_nothing(folder: Folder) -> None:
    line = [Drawn("0001"), Drawn("0002", ("0001",)), Drawn("0003", ("0002",))]
    branch = [Drawn("acme_0001", ("0002",), labels=("acme",)), Drawn("acme_0002", ("acme_0001",))]
    ours = folder.write(line)
    graph = read_graph(ours, folder.write(branch))
    assert (graph.faults, graph.second_head, graph.heads) == ((), None, ("0003",))

    (fault,) = read_graph(ours, folder.write([*branch, Drawn("acme_0003", ("acme_0002", "0003"))])).faults
    assert fault.message == "acme_0003_drawn.py merges 0003, which is of mlops-db, into a line of its own"
    assert fault.remedy.startswith("Write depends_on = '0003' and down_revision = 'acme_0002' instead.")


# What is wrong with files

LINE = [Drawn("0001"), Drawn("0002", ("0001",)), Drawn("0003", ("0002",))]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("revision = ", "is not Python, line 1"),
        ("revision = '0004'\ndown_revision = '0003", "is not Python, line 2"),
        ("\0", "is not Python"),
        ('"""\N{LATIN SMALL LETTER E WITH ACUTE}"""\n# -*- coding: nonesuch -*-', "assigns no revision"),
        ("# -*- coding: nonesuch -*-", "is not Python"),
        ("down_revision = '0003'", "assigns no revision, so"),
        ("revision = '0004'", "assigns no down_revision, so"),
        ("def upgrade(): revision = down_revision = '0003'", "assigns no revision and no down_revision"),
        ("revision = '0004'\ndown_revision = str(3)", "down_revision as a literal"),
        ("revision = f'{4:04}'\ndown_revision = '0003'", "revision as a literal"),
        ("revision = '0004'\ndown_revision = '0003'\nif True:\n    down_revision = '0002'", "down_revision as a lit"),
        ("revision = '0004'\nfrom os import name as down_revision", "down_revision as a literal"),
        ("revision = '0004'\nfor down_revision in ['0003']: pass", "down_revision as a literal"),
        ("revision = '0004'\ndown_revision = '0003'\ndepends_on = HERE", "depends_on as a literal"),
        ("revision = 4\ndown_revision = '0003'", "revision 4, which is not text"),
        ("revision = None\ndown_revision = '0003'", "revision None, which is not a valid id"),
        ("revision = ('0004',)\ndown_revision = '0003'", "which is not a valid id"),
        ("revision = ''\ndown_revision = '0003'", "revision '', which is not a valid id"),
        ("revision = 'a-b'\ndown_revision = '0003'", "revision 'a-b', which is not a valid id"),
        ("revision = 'head'\ndown_revision = '0003'", "revision 'head', which is not a valid id"),
        (f"revision = '{'4' * 33}'\ndown_revision = '0003'", "which is not a valid id"),
        ("revision = '0004'\ndown_revision = 3", "down_revision 3, which is not text"),
        ("revision = '0004'\ndown_revision = ('0003', None)", "down_revision ('0003', None), which is not text"),
        ("revision = '0004'\ndown_revision = '0003'\nbranch_labels = {'a'}", "branch_labels {'a'}, which is not text"),
    ],
)
def test_a_file_without_a_usable_revision(folder: Folder, source: str, output: str) -> None:
    graph = read_graph(folder.write(LINE, **{"0004_odd": source}))
    (fault,) = graph.faults
    assert fault.files == ("0004_odd.py",)
    assert f"0004_odd.py {output}" in fault.message or output in fault.message
    refused(graph, "0004_odd.py")


def refused(graph: Graph, *files: str) -> None:
    """A command that only looks, and knows its head, is refused as well: one line and a hint, which name the files."""
    with pytest.raises(RefusedError) as error:
        graph.refuse_faults(second_head=True)
    assert "\n" not in str(error.value) + error.value.hint
    assert all(file in str(error.value) for file in files), error.value
    assert isinstance(error.value, MlopsDbError)
    assert error.value.hint


def test_a_file_that_cannot_be_read(folder: Folder) -> None:
    versions = folder.write(LINE)
    (versions / "0004_link.py").symlink_to(versions / "nowhere")
    refused(read_graph(versions), "0004_link.py", "No such file")


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_revisions(folder: Folder, there: bool) -> None:  # noqa: FBT001
    versions = folder.write([]) if there else folder.path / "nowhere"
    refused(read_graph(versions), str(versions))


def test_a_file_that_is_named_after_another_revision(folder: Folder) -> None:
    refused(read_graph(folder.write(LINE, **{"0005_four": Drawn("0004", ("0003",)).source})), "0005_four.py", "0004")


def test_two_files_with_one_label(folder: Folder) -> None:
    drawn = [*LINE, Drawn("0004", ("0003",), labels=("a",)), Drawn("0005", ("0004",), labels=("a",))]
    refused(read_graph(folder.write(drawn)), "0004_drawn.py", "0005_drawn.py")


def test_what_to_renumber_to(folder: Folder) -> None:
    drawn = [*LINE, Drawn("0004", ("0003",)), replace(Drawn("0003", ("0002",)), slug="other")]
    (fault,) = read_graph(folder.write(drawn)).faults
    assert fault.message == "0003_drawn.py and 0003_other.py are both revision 0003"
    assert 'such as 0005, and down_revision = "0004"' in fault.remedy


def test_which_of_two_heads_to_put_behind_the_other(folder: Folder) -> None:
    drawn = [*LINE, Drawn("0004", ("0002",)), Drawn("0005", ("0004",))]
    graph = read_graph(folder.write(drawn))
    assert graph.faults == ()
    graph.refuse_faults(second_head=True)
    with pytest.raises(RefusedError, match=r"2 heads, 0003_drawn\.py and 0005_drawn\.py") as error:
        graph.refuse_faults()
    assert "alembic merge heads -m" in error.value.hint
    assert 'if 0004_drawn.py has run nowhere yet, set its down_revision to "0003"' in error.value.hint


def _an_injected_fault_is_named(folder: Folder, drawn: list[Drawn], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(drawn) - 1))
    one, last = drawn[place], drawn[-1]
    kind = data.draw(st.sampled_from(["id", "parent", "dependency", "circle", "base"]))
    if kind == "id":
        other = replace(one, slug="other", labels=())
        drawn, files = [*drawn, other], (one.name, other.name)
    elif kind in ("parent", "dependency"):
        key = "parents" if kind == "parent" else "depends_on"
        drawn, files = [*drawn[:place], replace(one, **{key: ("nowhere",)}), *drawn[place + 1 :]], (one.name,)
    elif kind == "circle":
        after = next(other for other in reversed(drawn) if other is one or one.id in other.parents)
        drawn, files = [*drawn[:place], replace(one, parents=(*one.parents, after.id)), *drawn[place + 1 :]], ()
    else:
        new = Drawn("9999", depends_on=(last.id,))
        drawn, files = [*drawn, new], (drawn[0].name, new.name)
    graph = read_graph(folder.write(drawn))

    if kind == "circle":
        files = graph.faults[-1].files
        assert (one.name in files) or len(files) > 1
        assert "circle" in graph.faults[-1].message or "follows itself" in graph.faults[-1].message
    assert any({*files} <= {*fault.files} and all(name in fault.message for name in files) for fault in graph.faults)
    refused(graph)


test_an_injected_fault_is_always_named = as_property(_an_injected_fault_is_named)
